"""What fedktl asks of an image generator, and how one is found by name."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor


class Generator(Protocol):
    """A frozen generator on one device: latents in, pictures out."""

    latent_dim: int  # H
    resolution: int  # side of what `render` returns, in pixels
    descriptor: dict[str, Any]  # JSON-able: at least `family`, and all that is needed to build it again

    def sample_latents(self, n: int, rng: torch.Generator) -> Tensor:
        """n latents float32 [n, H] from the generator's own distribution; `rng` is a CPU generator."""

    def render(self, latents: Tensor) -> Tensor:
        """Images uint8 [n, 3, resolution, resolution] of latents float32 [n, H].

        A generator may also have `pixels`, which gives them as float32 in 0..255 before they become bytes.
        """


def to_uint8(images: Tensor) -> Tensor:
    """Images float [n, 3, h, w] in [-1, 1] as uint8: clamped and rounded once."""
    return images.mul(127.5).add_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def resized(images: Tensor, size: int, antialias: bool = True) -> Tensor:
    """[n, 3, h, w] with the short side brought to `size`, centre-cropped to size x size; bytes stay bytes."""
    height, width = images.shape[-2:]
    if height == width == size:
        return images
    scale = size / min(height, width)
    shape = (max(size, round(height * scale)), max(size, round(width * scale)))
    scaled = torch.nn.functional.interpolate(
        images.float(), size=shape, mode="bilinear", antialias=antialias, align_corners=False
    )
    top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
    cropped = scaled[..., top : top + size, left : left + size]
    return cropped if images.is_floating_point() else cropped.round_().clamp_(0, 255).to(torch.uint8)
