"""The built-in network, trained or not, in coordinates of W in which every direction varies as much as any other."""

from __future__ import annotations

import torch
from torch import nn

from stages.generators.builtin.generator import Builtin, pretrained
from stages.generators.builtin.network import LATENT_DIM, Network
from stages.randomness import Rng, seeded


def trained(device: torch.device) -> Builtin:
    generator = pretrained(torch.device("cpu"))
    return Builtin(device, whitened(generator._network), {"training": "whitened", "of": generator.descriptor["sha256"]})


def untrained(device: torch.device) -> Builtin:
    with seeded(0):
        network = Network()
    return Builtin(device, whitened(network), {"training": "untrained, whitened", "seed": 0})


def whitened(network: Network, samples: int = 50_000) -> Network:
    """The same generator with latents of mean 0 and covariance 1."""
    z = torch.randn(samples, LATENT_DIM, generator=Rng(0).torch("whitening"))
    network = network.cpu().double()
    with torch.no_grad():
        w = network.mapping(z.double())
        mean, factor = w.mean(0), torch.linalg.cholesky(torch.cov(w.T))
        last = network.mapping_layers[-1]
        assert isinstance(last, nn.Linear)
        last.bias.copy_(torch.linalg.solve_triangular(factor, (last.bias - mean)[:, None], upper=False)[:, 0])
        last.weight.copy_(torch.linalg.solve_triangular(factor, last.weight, upper=False))
        for block in network.blocks:
            block.style.bias.add_(block.style.weight @ mean)
            block.style.weight.copy_(block.style.weight @ factor)
    return network.float()
