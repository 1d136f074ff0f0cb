"""The built-in network, trained or not, in coordinates of W in which every direction varies as much as any other."""

from __future__ import annotations

import torch

from stages.generators.builtin.generator import Builtin, pretrained
from stages.generators.builtin.network import Network
from stages.generators.builtin.train import in_coordinates, latents
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
    w = latents(network, Rng(0).torch("whitening"), samples)
    return in_coordinates(network, w.mean(0), torch.linalg.cholesky(torch.cov(w.T)))
