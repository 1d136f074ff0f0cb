"""A small style-based generator: mapping z -> w, synthesis w -> 3 x 32 x 32 (after Karras et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LATENT_DIM = 64
WIDTHS = (256, 192, 96, 48)  # channels at 4, 8, 16 and 32 pixels
WIDEST = 1024  # of a file's


class StyledBlock(nn.Module):
    """Twice the size (except at 4 pixels), convolution, normalisation, then scale and shift per channel from w."""

    def __init__(self, inputs: int, outputs: int, upsample: bool):
        super().__init__()
        self.upsample = upsample
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.style = nn.Linear(LATENT_DIM, 2 * outputs)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        if self.upsample:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        scale, shift = self.style(w)[:, :, None, None].chunk(2, dim=1)
        return F.leaky_relu(F.instance_norm(self.conv(x)) * (1 + scale) + shift, 0.2)


class Network(nn.Module):
    """`synthesis(mapping(z))`: z float32 [n, 64] -> w float32 [n, 64] -> images float32 [n, 3, 32, 32] in [-1, 1]."""

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        sizes = [LATENT_DIM, 128, 128, LATENT_DIM]
        layers = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.LeakyReLU(0.2))]
        self.mapping_layers = nn.Sequential(*layers[:-1])
        self.start = nn.Parameter(torch.randn(1, widths[0], 4, 4))
        self.blocks = nn.ModuleList(
            StyledBlock(widths[max(i - 1, 0)], width, upsample=i > 0) for i, width in enumerate(widths)
        )
        self.to_rgb = nn.Conv2d(widths[-1], 3, 1)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):  # keeps the scale of signals, so that w shows in the image
                nn.init.kaiming_normal_(module.weight, a=0.2)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.to_rgb.weight.data.mul_(0.25)  # and inside the range of the tanh

    def mapping(self, z: Tensor) -> Tensor:
        w: Tensor = self.mapping_layers(z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt())
        return w

    def synthesis(self, w: Tensor) -> Tensor:
        x = self.start.expand(len(w), -1, -1, -1)
        for block in self.blocks:
            x = block(x, w)
        return torch.tanh(self.to_rgb(x))
