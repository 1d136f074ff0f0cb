"""The stand-in generator of the anchor run: fixed, seeded, untrained (tests/fixtures/README.md)."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from stages.pixels import to_uint8

WEIGHTS = Path(__file__).parents[1] / "fixtures" / "standin" / "standin-generator.safetensors"


class Standin:
    latent_dim = 64
    resolution = 32

    def __init__(self, device: torch.device):
        self.descriptor = {"seed": "recorded"}
        self.weights = {name: tensor.to(device) for name, tensor in load_file(WEIGHTS).items()}
        self.device = device

    def layer(self, name):
        return self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]

    def mapping(self, z):
        z = z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt()
        return F.linear(F.leaky_relu(F.linear(z, *self.layer("map1")), 0.2), *self.layer("map2"))

    def synthesis(self, w):
        x = F.leaky_relu(F.linear(w, *self.layer("fc")).view(-1, 64, 4, 4), 0.2)
        x = F.leaky_relu(F.conv_transpose2d(x, *self.layer("up1"), stride=2, padding=1), 0.2)
        x = F.leaky_relu(F.conv_transpose2d(x, *self.layer("up2"), stride=2, padding=1), 0.2)
        return torch.tanh(F.conv_transpose2d(x, *self.layer("up3"), stride=2, padding=1))

    @torch.no_grad()
    def sample_latents(self, n, rng):
        return self.mapping(torch.randn(n, 64, generator=rng).to(self.device))

    @torch.no_grad()
    def render(self, latents):
        return to_uint8(self.synthesis(latents.to(self.device)))


make = Standin
