"""Modulated convolution and the nonlinearity after it, as StyleGAN2 and StyleGAN3 share them."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

EPSILON = 1e-8  # keeps roots that are divided by away from zero
LARGEST_ACTIVATION = 1 << 30  # numbers per image; StyleGAN3-R at 1024 pixels has 0.7 of these


def leaky_relu_(x: Tensor, gain: float = 1.0) -> Tensor:
    """Slope 0.2, then sqrt(2), which keeps the variance, and `gain`; in place."""
    return F.leaky_relu_(x, 0.2).mul_(math.sqrt(2) * gain)


def clamp_(x: Tensor, bound: float | None) -> Tensor:
    """x within +-bound; in place. None is no bound."""
    return x if bound is None else x.clamp_(-bound, bound)


def scaled(x: Tensor, scale: Tensor) -> Tensor:
    """x [n, channels, h, w] with each channel of each sample times scale [n, channels], in the precision of x."""
    return x * scale.to(x.dtype)[:, :, None, None]


def demodulated(
    convolve: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor, style: Tensor, gain: Tensor | float = 1.0
) -> Tensor:
    """`convolve(x, weight)` with each sample's kernel modulated by its style and brought to unit norm.

    x [n, inputs, h, w], weight [outputs, inputs, k, k], style [n, inputs]; StyleGAN2, Sec. 2.2, Eq. 1 and 3. Scaling
    the kernels of a sample is scaling its inputs and its outputs, so one set of weights serves the whole batch.
    The shared kernels are convolved at unit norm: half precision then stays in its range.
    """
    energy = weight.square().sum((2, 3))
    norm = (energy.sum(1) + EPSILON).sqrt()
    y = convolve(scaled(x, style), (weight / norm[:, None, None, None]).to(x.dtype))
    return scaled(y, gain * norm * (style.square() @ energy.T + EPSILON).rsqrt())
