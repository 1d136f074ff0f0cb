"""Convolutions that make few pixels, as products of matrices.

In networks made for larger images, CIFAR's have shrunk to 2x2 pixels or to one when they reach the last layers. Many of a
kernel's taps then lie beside the image, and oneDNN takes two to twelve times as long as the product, most of it for the
backward pass.
"""

from __future__ import annotations

from functools import cache
from math import prod
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEW, SMALL = 4, 16  # pixels that come out, that go in

Pair = tuple[int, ...]  # rows, columns


class Conv2d(nn.Conv2d):
    """`nn.Conv2d`, quicker on a CPU where FEW pixels come out of SMALL images, if its weights lie with the channels last."""

    def forward(self, input: Tensor) -> Tensor:
        windows = self._windows(input)
        if windows is None:
            return super().forward(input)
        patches = windows.seen.to(input.dtype) @ input.permute(0, 2, 3, 1).flatten(1, 2)
        taps = self.weight.permute(0, 2, 3, 1)
        if windows.cropped:
            taps = taps[:, windows.rows, windows.columns]
        out = F.linear(patches.view(-1, taps[0].numel()), taps.flatten(1), self.bias)
        return out.view(len(input), *windows.size, -1).permute(0, 3, 1, 2)

    def _windows(self, input: Tensor) -> Windows | None:
        if input.dim() != 4 or input.device.type != "cpu" or torch.compiler.is_compiling():  # programs may go elsewhere
            return None
        return few(tuple(input.shape[2:]), self.kernel_size, self.stride, cast(Pair, self.padding), self.dilation)


def quick(model: nn.Module) -> None:
    """Makes the model's convolutions `Conv2d`, but for those that are something else than PyTorch's plain ones."""
    for layer in model.modules():
        plain = type(layer) is nn.Conv2d and layer.groups == 1 and layer.padding_mode == "zeros"
        if plain and not isinstance(layer.padding, str):
            layer.__class__ = Conv2d


class Windows(NamedTuple):
    """What a convolution sees of an image [H, W]."""

    size: Pair  # of what comes out
    rows: slice  # of the kernel's taps, those that ever lie on the image
    columns: slice
    cropped: bool  # whether these are not all
    seen: Tensor  # float32 [pixels that come out * taps, H W], 1 where a tap lies on a pixel


@cache
def few(image: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Windows | None:
    """None for more pixels than FEW out and SMALL in, and where no tap lies on the image."""
    geometry = zip(image, kernel, stride, padding, dilation, strict=True)
    size = tuple((i + 2 * p - d * (k - 1) - 1) // s + 1 for i, k, s, p, d in geometry)
    if min(size) < 1 or prod(size) > FEW or prod(image) > SMALL:
        return None
    with torch.inference_mode(False):  # training needs it, whichever pass sees the size first
        numbers = 1 + torch.arange(prod(image), dtype=torch.float32).view(1, 1, *image)
        pixels = F.unfold(numbers, kernel, dilation, padding, stride).long().view(*kernel, -1)  # 0 beside the image
        if not pixels.any():
            return None
        rows, columns = span(pixels.amax((1, 2))), span(pixels.amax((0, 2)))
        used = pixels[rows, columns]
        seen = F.one_hot(used.flatten(0, 1).T.flatten(), prod(image) + 1)[:, 1:].float()
    return Windows(size, rows, columns, used.shape != pixels.shape, seen)


def span(used: Tensor) -> slice:
    """From the first to the last that is not 0."""
    at = used.nonzero()
    return slice(int(at[0]), int(at[-1]) + 1)
