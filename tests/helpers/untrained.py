"""The built-in network as its seed made it, to tell what its training brought. Its latents are standardised as those are."""

import torch

from stages.generators.builtin.generator import Builtin
from stages.generators.builtin.network import Network
from stages.generators.builtin.train import standardised
from stages.randomness import Rng, seeded


def make(device: torch.device) -> Builtin:
    with seeded(0):
        network = Network()
    return Builtin(device, standardised(network, Rng(0)), {"training": "untrained", "seed": 0})
