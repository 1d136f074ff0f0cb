"""uint8 and float images, and resizing, for data, generators and algorithms."""

from __future__ import annotations

import torch
from torch import Tensor


def normalised(images: Tensor) -> Tensor:
    """Images uint8, or float32 in 0..255, as float32 in [-1, 1]."""
    return images.to(torch.float32, copy=True).div_(127.5).sub_(1)


def to_uint8(images: Tensor) -> Tensor:
    """Images float [n, 3, h, w] in [-1, 1] as uint8: clamped and rounded once."""
    return images.mul(127.5).add_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def resized(images: Tensor, size: int, antialias: bool = True) -> Tensor:
    """Images [n, 3, h, w] with the short side scaled to `size`, centre-cropped to size x size; uint8 stays uint8."""
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
