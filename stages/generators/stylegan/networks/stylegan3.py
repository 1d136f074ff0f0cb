"""StyleGAN3 (Karras et al., "Alias-Free Generative Adversarial Networks", NeurIPS 2021, arXiv 2106.12423).

Configurations T (translation) and R (rotation, with 1x1 kernels and radial filters), for inference. StyleGAN-XL has
the same synthesis network.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stages.errors import UserError
from stages.generators.stylegan.networks.convolution import LARGEST_ACTIVATION, clamp_, demodulated, leaky_relu_, scaled
from stages.generators.stylegan.networks.mapping import Dense, Mapping, MappingConfig, Network, normalised
from stages.generators.stylegan.networks.resampling import downsample, upsample

HALVED_OCTAVES = 4  # layers with more than resolution / 16 samples per side may compute in half precision

NAME = re.compile(r"L[0-9]{1,3}_[0-9]{1,5}_[0-9]{1,5}")  # L{index}_{size}_{channels}


@dataclass(frozen=True)
class InputConfig:
    """The Fourier features that replace StyleGAN2's learned constant (Sec. 3.1, config B)."""

    channels: int
    size: int  # samples per side, with the margin around the picture
    sampling_rate: float  # samples per unit, the picture's side
    bandwidth: float  # the highest frequency, in cycles per unit

    def __post_init__(self) -> None:
        if not (self.channels and self.size and 0 < self.bandwidth < self.sampling_rate / 2):
            raise UserError(f"{self.size} samples can't hold frequencies up to {self.bandwidth}.")


@dataclass(frozen=True)
class LayerConfig:
    """One layer of the "flexible layer specifications" (Sec. 3.2, config T). Sizes are samples per side."""

    name: str
    in_channels: int
    out_channels: int
    in_size: int
    out_size: int
    kernel: int
    up: int  # from the input's sampling rate to that of the nonlinearity
    down: int  # from there to the output's rate
    up_taps: int
    down_taps: int
    radial: bool  # the down filter is radially symmetric, thus not separable (Sec. 3.2, config R)
    clamp: float | None
    to_rgb: bool

    def __post_init__(self) -> None:
        counts = (self.kernel, self.up, self.down, self.up_taps, self.down_taps)
        filtered = min(counts) > 0 and min(counts[1:]) > 1 and self.crop >= 0
        fits = set(counts) == {1} if self.to_rgb else filtered
        if not fits or not self.out_channels or not self.out_size or not NAME.fullmatch(self.name):
            raise UserError(f"Layer {self.name[:20]!r} can't make {self.out_size} samples of {self.in_size}.")

    @property
    def upsampled(self) -> int:
        """Samples per side at which the nonlinearity is applied: those that the down filter makes `out_size` of."""
        return (self.out_size - 1) * self.down + self.down_taps

    @property
    def crop(self) -> int:
        """Samples that the up filter makes, beyond these, at each edge."""
        return ((self.in_size + self.kernel - 2) * self.up + self.up_taps - self.upsampled) // 2


@dataclass(frozen=True)
class SynthesisConfig:
    resolution: int
    input: InputConfig
    layers: tuple[LayerConfig, ...]
    output_scale: float

    def __post_init__(self) -> None:
        channels, size = self.input.channels, self.input.size
        for layer in self.layers:
            if (layer.in_channels, layer.in_size) != (channels, size):
                raise UserError(f"Layer {layer.name} does not take what the one before it makes.")
            channels, size = layer.out_channels, layer.out_size
        if not self.layers or [layer for layer in self.layers if layer.to_rgb] != [self.layers[-1]]:
            raise UserError("One layer, the last, must make the image.")
        if (channels, size) != (3, self.resolution):
            raise UserError(f"The image has {channels} channels and {size} pixels a side, not 3 and {self.resolution}.")
        if self.largest > LARGEST_ACTIVATION:
            raise UserError(f"An image of this network takes {self.largest} numbers in one layer, which is too much.")

    @property
    def largest(self) -> int:
        """Numbers in the largest activation of one image."""
        start = self.input.channels * self.input.size**2
        return max(start, *(layer.out_channels * layer.upsampled**2 for layer in self.layers))

    def table(self) -> list[dict[str, str | int]]:
        """The layers, to be shown."""
        return [{"name": layer.name, "channels": layer.out_channels, "size": layer.out_size} for layer in self.layers]


@dataclass(frozen=True)
class Config:
    mapping: MappingConfig
    synthesis: SynthesisConfig


def network(config: Config) -> Network:
    return Network(Mapping(config.mapping), Synthesis(config.synthesis, config.mapping.w_dim))


class Synthesis(nn.Module):
    """ws float [n, num_ws, w_dim] -> images float [n, 3, resolution, resolution], about [-1, 1].

    The first w places the Fourier features, each layer takes one.
    """

    def __init__(self, config: SynthesisConfig, w_dim: int):
        super().__init__()
        self.num_ws = len(config.layers) + 1
        self.output_scale = config.output_scale
        self.input = SynthesisInput(config.input, w_dim)
        for layer in config.layers:
            self.add_module(layer.name, SynthesisLayer(layer, w_dim))
        margin = config.input.size - math.ceil(config.input.sampling_rate)
        self._halves = {
            layer.name: (layer.out_size - margin) * 2**HALVED_OCTAVES > config.resolution for layer in config.layers
        }

    def forward(self, ws: Tensor, precision: torch.dtype | None = None) -> Tensor:
        """`precision` is that of the finer layers' pictures, as officially; all else keeps that of the weights."""
        first, *rest = ws.unbind(1)
        x: Tensor = self.input(first)
        for (name, halved), w in zip(self._halves.items(), rest, strict=True):
            x = self.get_submodule(name)(x.to(precision) if halved and precision else x, w)
        return x.to(ws.dtype) * self.output_scale


class SynthesisInput(nn.Module):
    """w -> Fourier features [n, channels, size, size], moved and turned as w says (config H, "transformed")."""

    transform: Tensor
    freqs: Tensor
    phases: Tensor

    def __init__(self, config: InputConfig, w_dim: int):
        super().__init__()
        self.config = config
        self.affine = Dense(w_dim, 4)
        self.weight = nn.Parameter(torch.empty(config.channels, config.channels))
        self.register_buffer("transform", torch.empty(3, 3))  # a user's own, on top of the learned one
        self.register_buffer("freqs", torch.empty(config.channels, 2))
        self.register_buffer("phases", torch.empty(config.channels))

    def forward(self, w: Tensor) -> Tensor:
        size, rate, bandwidth = self.config.size, self.config.sampling_rate, self.config.bandwidth
        transform = self._transform(w)
        phases = self.phases + transform[:, :2, 2] @ self.freqs.T  # [n, channels]
        freqs = self.freqs @ transform[:, :2, :2]  # [n, channels, 2]
        amplitudes = (1 - (freqs.norm(dim=2) - bandwidth) / (rate / 2 - bandwidth)).clamp(0, 1)
        centres = (torch.arange(size, dtype=w.dtype, device=w.device) + 0.5 - size / 2) / rate
        along_x = centres[:, None] * freqs[:, None, None, :, 0]  # [n, 1, size, channels]
        along_y = centres[:, None, None] * freqs[:, None, None, :, 1]  # [n, size, 1, channels]
        waves = torch.sin(2 * math.pi * (along_x + along_y + phases[:, None, None]))
        mixed = (waves * amplitudes[:, None, None]) @ (self.weight.T / math.sqrt(len(self.weight)))
        features: Tensor = mixed.permute(0, 3, 1, 2)
        return (
            features.contiguous() if w.is_cuda else features
        )  # on a CPU channels last in memory, which filters fastest

    def _transform(self, w: Tensor) -> Tensor:
        """[n, 3, 3]: rotation by (cos, sin) after translation by -(x, y), both as the affine layer reads them from w."""
        direction = self.affine(w)
        cos, sin, x, y = (direction / direction[:, :2].norm(dim=1, keepdim=True)).unbind(1)
        zero, one = torch.zeros_like(x), torch.ones_like(x)
        rotation = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], dim=1).view(-1, 3, 3)
        translation = torch.stack([one, zero, -x, zero, one, -y, zero, zero, one], dim=1).view(-1, 3, 3)
        return rotation @ translation @ self.transform


class SynthesisLayer(nn.Module):
    """x [n, in_channels, in_size, in_size], w [n, w_dim] -> [n, out_channels, out_size, out_size] (Fig. 4b)."""

    magnitude_ema: Tensor
    up_filter: Tensor
    down_filter: Tensor

    def __init__(self, config: LayerConfig, w_dim: int):
        super().__init__()
        self.config = config
        self.affine = Dense(w_dim, config.in_channels)
        self.weight = nn.Parameter(torch.empty(config.out_channels, config.in_channels, config.kernel, config.kernel))
        self.bias = nn.Parameter(torch.empty(config.out_channels))
        self.register_buffer("magnitude_ema", torch.empty(()))
        if not config.to_rgb:
            self.register_buffer("up_filter", torch.empty(config.up_taps))
            self.register_buffer("down_filter", torch.empty([config.down_taps] * (2 if config.radial else 1)))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        style, gain = self.affine(w), self.magnitude_ema.rsqrt()  # config D: inputs at unit variance
        bias = self.bias.to(x.dtype)[:, None, None]
        if self.config.to_rgb:
            style = style * gain / math.sqrt(self.config.in_channels)
            return clamp_(F.conv2d(scaled(x, style), self.weight.to(x.dtype)) + bias, self.config.clamp)
        weight = self.weight * self.weight.square().mean((1, 2, 3), keepdim=True).rsqrt()
        convolve = partial(F.conv2d, padding=self.config.kernel - 1)
        return self._filtered_leaky_relu(demodulated(convolve, x, weight, normalised(style), gain).add_(bias))

    def _filtered_leaky_relu(self, x: Tensor) -> Tensor:
        """The nonlinearity at a higher sampling rate, so that it adds no aliases (Sec. 2.1; configs E to G and R)."""
        x = upsample(x, self.up_filter, self.config.up, self.config.crop)
        x = clamp_(leaky_relu_(x), self.config.clamp)
        return downsample(x, self.down_filter, self.config.down)
