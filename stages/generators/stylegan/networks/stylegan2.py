"""StyleGAN2 with adaptive augmentation (Karras et al., CVPR 2020, arXiv 1912.04958, and NeurIPS 2020, arXiv 2006.06676).

The three generator architectures of StyleGAN2, Fig. 7 ('skip', 'resnet', 'orig'), for inference with constant noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stages.errors import UserError, unknown
from stages.generators.stylegan.networks.convolution import LARGEST_ACTIVATION, clamp_, demodulated, leaky_relu_, scaled
from stages.generators.stylegan.networks.mapping import Dense, Mapping, MappingConfig, Network
from stages.generators.stylegan.networks.resampling import downsample, upsample

ARCHITECTURES = ("orig", "skip", "resnet")
HALVED_BLOCKS = 4  # of the highest resolutions, which may compute in half precision


@dataclass(frozen=True)
class SynthesisConfig:
    resolution: int
    architecture: str  # see ARCHITECTURES
    channels: tuple[int, ...]  # of each block: at 4, 8, ... pixels, up to the resolution
    clamp: float | None

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise unknown("StyleGAN2 architecture", self.architecture, ARCHITECTURES)
        if not self.channels or not all(self.channels) or 4 << (len(self.channels) - 1) != self.resolution:
            raise UserError(f"{len(self.channels)} blocks make no image of {self.resolution} pixels a side.")
        if self.largest > LARGEST_ACTIVATION:
            raise UserError(f"An image of this network takes {self.largest} numbers in one layer, which is too much.")

    @property
    def largest(self) -> int:
        """Numbers in the largest activation of one image: that of a block's upsampling convolution."""
        return max(channels * ((4 << i) + 1) ** 2 for i, channels in enumerate(self.channels))

    def table(self) -> list[dict[str, str | int]]:
        """The blocks, to be shown."""
        return [
            {"name": f"b{4 << i}", "channels": channels, "size": 4 << i} for i, channels in enumerate(self.channels)
        ]


@dataclass(frozen=True)
class Config:
    mapping: MappingConfig
    synthesis: SynthesisConfig


def network(config: Config) -> Network:
    return Network(Mapping(config.mapping), Synthesis(config.synthesis, config.mapping.w_dim))


class Synthesis(nn.Module):
    """ws float [n, num_ws, w_dim] -> images float [n, 3, resolution, resolution], about [-1, 1].

    Each convolution takes one w. A block's ToRGB takes the one that the next block's first convolution takes too.
    """

    b4: Block

    def __init__(self, config: SynthesisConfig, w_dim: int):
        super().__init__()
        self.num_ws = 2 * len(config.channels)
        for i, (inputs, outputs) in enumerate(pairwise((0, *config.channels))):
            last = i == len(config.channels) - 1
            self.add_module(f"b{4 << i}", Block(config, w_dim, 4 << i, inputs, outputs, last))

    def forward(self, ws: Tensor, precision: torch.dtype | None = None) -> Tensor:
        """`precision` is that of the features of the finer blocks, as officially; all else keeps that of the weights."""
        x = self.b4.const.expand(len(ws), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        blocks = list(self.children())
        image: Tensor | None = None
        for i, block in enumerate(blocks):
            if precision and i > 0 and len(blocks) - i <= HALVED_BLOCKS:
                x = x.to(precision)
            x, image = block(x, image, ws[:, max(2 * i - 1, 0) : 2 * i + 2].unbind(1))
        assert image is not None
        return image


class Block(nn.Module):
    """The layers at one resolution: the first block has no `conv0`, only 'skip' has a `torgb` in every block."""

    resample_filter: Tensor

    def __init__(self, config: SynthesisConfig, w_dim: int, resolution: int, inputs: int, outputs: int, last: bool):
        super().__init__()
        self.register_buffer("resample_filter", torch.empty(4, 4))
        if not inputs:
            self.const = nn.Parameter(torch.empty(outputs, resolution, resolution))
        self.conv0 = SynthesisLayer(config.clamp, w_dim, resolution, inputs, outputs, up=True) if inputs else None
        self.conv1 = SynthesisLayer(config.clamp, w_dim, resolution, outputs, outputs)
        self.torgb = ToRGB(config.clamp, w_dim, outputs) if last or config.architecture == "skip" else None
        self.skip = Skip(inputs, outputs) if inputs and config.architecture == "resnet" else None

    def forward(self, x: Tensor, image: Tensor | None, ws: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """The features and the image so far, with a w for each convolution and, last, for ToRGB."""
        y = self.conv0(x, ws[0]) if self.conv0 else x
        if self.skip:
            y = self.conv1(y, ws[-2], gain=math.sqrt(0.5)).add_(self.skip(x))
        else:
            y = self.conv1(y, ws[-2])
        if self.torgb:
            rgb = self.torgb(y, ws[-1])
            image = rgb if image is None else upsample(image, self.resample_filter, factor=2, crop=1).add_(rgb)
        return y, image


class SynthesisLayer(nn.Module):
    """x [n, inputs, h, h], w [n, w_dim] -> [n, outputs, r, r]; h is r, or r / 2 when it scales up."""

    noise_const: Tensor
    resample_filter: Tensor

    def __init__(self, clamp: float | None, w_dim: int, resolution: int, inputs: int, outputs: int, up: bool = False):
        super().__init__()
        self.up, self.clamp = up, clamp
        self.affine = Dense(w_dim, inputs)
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.noise_strength = nn.Parameter(torch.empty(()))
        self.register_buffer("noise_const", torch.empty(resolution, resolution))
        self.register_buffer("resample_filter", torch.empty(4, 4))

    def forward(self, x: Tensor, w: Tensor, gain: float = 1.0) -> Tensor:
        convolve = self._up_convolution if self.up else partial(F.conv2d, padding=1)
        x = demodulated(convolve, x, self.weight, self.affine(w))
        x = x.add_((self.noise_const * self.noise_strength + self.bias[:, None, None]).to(x.dtype))
        return clamp_(leaky_relu_(x, gain), None if self.clamp is None else self.clamp * gain)

    def _up_convolution(self, x: Tensor, weight: Tensor) -> Tensor:
        """Zeros inserted, convolved, and low-passed against the checkerboard: twice the size (StyleGAN2, App. B)."""
        x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
        return downsample(x, self.resample_filter * 4, factor=1, padding=1)


class ToRGB(nn.Module):
    """x [n, inputs, r, r], w [n, w_dim] -> [n, 3, r, r], modulated without demodulation, in the precision of w."""

    def __init__(self, clamp: float | None, w_dim: int, inputs: int):
        super().__init__()
        self.clamp = clamp
        self.affine = Dense(w_dim, inputs)
        self.weight = nn.Parameter(torch.empty(3, inputs, 1, 1))
        self.bias = nn.Parameter(torch.empty(3))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        x = scaled(x, self.affine(w) / math.sqrt(self.weight.shape[1]))
        x = F.conv2d(x, self.weight.to(x.dtype)) + self.bias.to(x.dtype)[:, None, None]
        return clamp_(x, self.clamp).to(w.dtype)


class Skip(nn.Module):
    """The residual connection: a 1x1 convolution, then twice the size. [n, inputs, h, h] -> [n, outputs, 2h, 2h].

    Like what it is added to, it has gain sqrt(1/2), so that the sum keeps the variance.
    """

    resample_filter: Tensor

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 1, 1))
        self.register_buffer("resample_filter", torch.empty(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * math.sqrt(0.5 / self.weight.shape[1])
        return upsample(F.conv2d(x, weight.to(x.dtype)), self.resample_filter, factor=2, crop=1)
