"""BatchNorm of two batches in one kernel forward and one backward, each batch by its own statistics; for a GPU with Triton.

PyTorch's own takes ten launches more: it computes one batch at a time, and parts, copies and sums are around it.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE, NARROW, WIDE, TALL = 2048, 8, 32, 1024  # elements that a program holds at a time; channels; values of a channel


@triton.jit
def _tile(tensor, at, count, channel, inside, space, by_row, by_space, by_channel):
    """Where values `at` of each channel are, and which of them there are."""
    rows = (at // space) * by_row + (at % space) * by_space
    return tensor + rows[:, None] + channel[None, :] * by_channel, (at < count)[:, None] & inside[None, :]


@triton.jit
def _forward(
    x, y, weight, bias, mean, variance, stats, first, second, channels, space, by_row, by_space, by_channel, momentum, eps,
    TRACKED: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    channel = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    inside = channel < channels
    scale = tl.load(weight + channel, inside, 0.0).to(tl.float32)
    shift = tl.load(bias + channel, inside, 0.0).to(tl.float32)
    if TRACKED > 0:
        moving_mean, moving_variance = tl.load(mean + channel, inside, 0.0), tl.load(variance + channel, inside, 0.0)
    for part in tl.static_range(2):
        count = (first if part == 0 else second) * space
        here = part * first * by_row
        total = tl.zeros([WIDTH], tl.float32)
        for begin in range(0, count, BLOCK):
            at, there = _tile(
                x + here, begin + tl.arange(0, BLOCK), count, channel, inside, space, by_row, by_space, by_channel
            )
            total += tl.sum(tl.load(at, there, 0.0).to(tl.float32), 0)
        average = total / count
        squares = tl.zeros([WIDTH], tl.float32)
        for begin in range(0, count, BLOCK):
            at, there = _tile(
                x + here, begin + tl.arange(0, BLOCK), count, channel, inside, space, by_row, by_space, by_channel
            )
            off = tl.where(there, tl.load(at, there, 0.0).to(tl.float32) - average[None, :], 0.0)
            squares += tl.sum(off * off, 0)
        inverse = 1.0 / tl.sqrt(squares / count + eps)
        for begin in range(0, count, BLOCK):
            each = begin + tl.arange(0, BLOCK)
            at, there = _tile(x + here, each, count, channel, inside, space, by_row, by_space, by_channel)
            off = tl.load(at, there, 0.0).to(tl.float32) - average[None, :]
            to, there = _tile(y + here, each, count, channel, inside, space, by_row, by_space, by_channel)
            tl.store(to, off * (inverse * scale)[None, :] + shift[None, :], there)
        tl.store(stats + 2 * part * channels + channel, average, inside)
        tl.store(stats + (2 * part + 1) * channels + channel, inverse, inside)
        if part < TRACKED:
            moving_mean += momentum * (average - moving_mean)
            moving_variance += momentum * (squares / (count - 1) - moving_variance)
    if TRACKED > 0:
        tl.store(mean + channel, moving_mean, inside)
        tl.store(variance + channel, moving_variance, inside)


@triton.jit
def _backward(
    x, dy, dx, weight, stats, dweight, dbias, first, second, channels, space, by_row, by_space, by_channel,
    BLOCK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    channel = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    inside = channel < channels
    scale = tl.load(weight + channel, inside, 0.0).to(tl.float32)
    scales, shifts = tl.zeros([WIDTH], tl.float32), tl.zeros([WIDTH], tl.float32)
    for part in tl.static_range(2):
        count = (first if part == 0 else second) * space
        here = part * first * by_row
        average = tl.load(stats + 2 * part * channels + channel, inside, 0.0)
        inverse = tl.load(stats + (2 * part + 1) * channels + channel, inside, 0.0)
        along, total = tl.zeros([WIDTH], tl.float32), tl.zeros([WIDTH], tl.float32)
        for begin in range(0, count, BLOCK):
            each = begin + tl.arange(0, BLOCK)
            at, there = _tile(x + here, each, count, channel, inside, space, by_row, by_space, by_channel)
            unit = (tl.load(at, there, 0.0).to(tl.float32) - average[None, :]) * inverse[None, :]
            at, there = _tile(dy + here, each, count, channel, inside, space, by_row, by_space, by_channel)
            slope = tl.load(at, there, 0.0).to(tl.float32)
            along += tl.sum(slope * unit, 0)
            total += tl.sum(slope, 0)
        for begin in range(0, count, BLOCK):
            each = begin + tl.arange(0, BLOCK)
            at, there = _tile(x + here, each, count, channel, inside, space, by_row, by_space, by_channel)
            unit = (tl.load(at, there, 0.0).to(tl.float32) - average[None, :]) * inverse[None, :]
            at, there = _tile(dy + here, each, count, channel, inside, space, by_row, by_space, by_channel)
            slope = tl.load(at, there, 0.0).to(tl.float32) - (total / count)[None, :] - unit * (along / count)[None, :]
            to, there = _tile(dx + here, each, count, channel, inside, space, by_row, by_space, by_channel)
            tl.store(to, slope * (inverse * scale)[None, :], there)
        scales += along
        shifts += total
    tl.store(dweight + channel, scales, inside)
    tl.store(dbias + channel, shifts, inside)


def joint_norm(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor | None, variance: Tensor | None, size: int, tracked: int,
    momentum: float, eps: float,
) -> Tensor:  # fmt: skip
    """`F.batch_norm` in training, of the first `size` rows and of the others; running statistics move with `tracked` of the two."""
    if min(size, len(x) - size) * x[0, 0].numel() < 2:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {tuple(x.shape)}")
    normalised: Tensor = JointNorm.apply(x, weight, bias, mean, variance, size, tracked, momentum, eps)
    return normalised


class JointNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor | None, variance: Tensor | None, size: int,
        tracked: int, momentum: float, eps: float,
    ) -> Tensor:  # fmt: skip
        x = x.contiguous(memory_format=layout(x))
        y, stats = torch.empty_like(x), x.new_empty(4 * x.shape[1], dtype=torch.float32)
        grid, facts, blocks = launch(x, size)
        _forward[grid](x, y, weight, bias, mean, variance, stats, *facts, momentum, eps, TRACKED=tracked, **blocks)
        ctx.save_for_backward(x, weight, stats)
        ctx.size = size
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, stats = ctx.saved_tensors
        dy = dy.contiguous(memory_format=layout(x))
        dx, dweight, dbias = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)
        grid, facts, blocks = launch(x, ctx.size)
        _backward[grid](x, dy, dx, weight, stats, dweight, dbias, *facts, **blocks)
        return dx, dweight, dbias, *[None] * 6


def layout(x: Tensor) -> torch.memory_format:
    last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def launch(x: Tensor, size: int) -> tuple[tuple[int], tuple[int, ...], dict[str, int]]:
    """How many programs there are, where they find what, and how much each holds at a time."""
    rows, channels = x.shape[:2]
    space = x[0, 0].numel()
    last = layout(x) == torch.channels_last
    strides = (channels * space, channels, 1) if last else (channels * space, 1, space)
    tall = min(TALL, triton.next_power_of_2(max(size, rows - size) * space))
    width = max(NARROW, min(WIDE, TILE // tall))
    blocks = {"BLOCK": tall, "WIDTH": width, "num_warps": 8 if tall * width > TILE else 4}
    return (triton.cdiv(channels, width),), (size, rows - size, channels, space, *strides), blocks
