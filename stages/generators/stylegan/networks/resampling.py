"""FIR filters around a change of the sampling rate: on a CPU depthwise convolutions, on a GPU banded matrices.

A GPU has slow kernels for strided depthwise convolutions and very fast ones for matrix products: measured on an H100,
products render StyleGAN3-T in 7.5 ms an image where convolutions take 14.8 (channels last 26.3); on a CPU it is the
other way round.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F


def upsample(x: Tensor, fir: Tensor, factor: int, crop: int) -> Tensor:
    """x [n, channels, h, w] with zeros between its samples, filtered at unit gain, `crop` rows and columns off each edge.

    `fir` is [taps], for each axis, or [taps, taps]. An axis of h samples becomes (h - 1) factor + taps - 2 crop long.
    """
    if _by_products(x, fir):
        return _on_both_axes(
            x, lambda h: _banded((h - 1) * factor + len(fir) - 2 * crop, h, fir * factor, factor, crop)
        )
    for kernel in _kernels(fir, x):
        stride, padding = _on_filtered_axes(kernel, factor, 1), _on_filtered_axes(kernel, crop, 0)
        x = F.conv_transpose2d(x, kernel * math.prod(stride), stride=stride, padding=padding, groups=x.shape[1])
    return x


def downsample(x: Tensor, fir: Tensor, factor: int, padding: int = 0) -> Tensor:
    """x [n, channels, h, w] filtered, every factor-th sample kept: an axis of (h - 1) factor + taps becomes h long."""
    flipped = fir.flip(tuple(range(fir.ndim)))
    if _by_products(x, fir):
        return _on_both_axes(
            x, lambda h: _banded(h, (h + 2 * padding - len(fir)) // factor + 1, flipped, factor, padding).T
        )
    for kernel in _kernels(flipped, x):
        stride, pad = _on_filtered_axes(kernel, factor, 1), _on_filtered_axes(kernel, padding, 0)
        x = F.conv2d(x, kernel, stride=stride, padding=pad, groups=x.shape[1])
    return x


def _by_products(x: Tensor, fir: Tensor) -> bool:
    return x.is_cuda and fir.ndim == 1


def _banded(rows: int, columns: int, taps: Tensor, factor: int, offset: int) -> Tensor:
    """[rows, columns] with the taps in each column, `factor` rows lower from column to column, the first `offset` above."""
    tap = torch.arange(rows, device=taps.device)[:, None] + offset - factor * torch.arange(columns, device=taps.device)
    return torch.where((tap >= 0) & (tap < len(taps)), taps[tap.clamp(0, len(taps) - 1)], 0)


def _on_both_axes(x: Tensor, matrix: Callable[[int], Tensor]) -> Tensor:
    """x [n, channels, h, w] with columns and rows multiplied by the matrix of their length."""
    columns, rows = (matrix(side).to(x.dtype) for side in x.shape[2:])
    return columns @ x.contiguous() @ rows.T


def _kernels(fir: Tensor, x: Tensor) -> Iterator[Tensor]:
    """Depthwise kernels that apply `fir` to x, one after the other: columns, then rows, or both at once."""
    fir = fir.to(x.dtype)
    for kernel in (fir[:, None], fir[None, :]) if fir.ndim == 1 else (fir,):
        yield kernel.expand(x.shape[1], 1, *kernel.shape)


def _on_filtered_axes(kernel: Tensor, value: int, otherwise: int) -> list[int]:
    return [value if side > 1 else otherwise for side in kernel.shape[2:]]
