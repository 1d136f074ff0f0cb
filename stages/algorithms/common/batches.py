"""A client's images in batches, and steps over any tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from stages.models.split import parameters
from stages.pixels import normalised
from stages.randomness import Rng

AHEAD = 1024  # rows whose order goes to the device at once: ten pairs would make one copy a step


@dataclass(frozen=True)
class Steps:
    """What each step of training takes: a few small tensors, such as row numbers, and the batch that `take` makes of them.

    The two are apart so that on a GPU `take` is part of the graph, and only the small tensors are copied for a step.
    """

    given: Iterable[tuple[Tensor, ...]]
    take: Callable[..., tuple[Tensor, ...]] = lambda *given: given

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        return (self.take(*given) for given in self.given)


def passes(
    tables: Sequence[Tensor], size: int, count: int, generator: torch.Generator, begin: Callable[[], object]
) -> Steps:
    """`count` passes over the rows of `tables`, equally long, `size` a step and each pass in an order of its own.

    `begin` is called before each pass.
    """
    device = tables[0].device

    def orders() -> Iterator[tuple[Tensor]]:
        for _ in range(count):
            begin()
            order = torch.randperm(len(tables[0]), generator=generator).to(device, non_blocking=True)
            yield from ((rows,) for rows in torch.split(order, size))

    return Steps(orders(), lambda rows: tuple(table[rows] for table in tables))


def endless(tables: Sequence[Tensor], size: int, generator: torch.Generator) -> Steps:
    """Endless passes, each in an order of its own, cut as `slices` cuts them. Nothing else may draw from `generator`."""
    tables = [two_or_more(table) for table in tables]
    count, device = len(tables[0]), tables[0].device
    ahead = 1 if device.type == "cpu" else max(1, AHEAD // count)

    def orders() -> Iterator[tuple[Tensor]]:
        while True:
            drawn = torch.stack([torch.randperm(count, generator=generator) for _ in range(ahead)])
            for order in drawn.to(device, non_blocking=True):
                yield from ((order[rows],) for rows in slices(count, size))

    return Steps(orders(), lambda rows: tuple(table[rows] for table in tables))


def two_or_more(table: Tensor) -> Tensor:
    """The table, a single row taken twice: BatchNorm has no variance over one."""
    return torch.cat([table, table]) if len(table) == 1 else table


class Batches:
    """One client's training images, already on the device.

    images uint8 [n, C, H, W], labels int64 [n]. A last batch of a single image joins the batch before it: BatchNorm
    has no variance over one.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, size: int, epochs: int = 1, shuffle: bool = True, drop_last: bool = False
    ):
        trained = len(labels) - len(labels) % size if drop_last else len(labels)
        seen = len(labels) if shuffle else trained  # in a fixed order the tail is never trained on
        self.images, self.labels = images[:seen], labels[:seen]
        self.total = len(labels)  # all of the client's, as they count in averages over clients
        self.size, self.epochs, self.shuffle, self.drop_last = size, epochs, shuffle, drop_last
        self._slices = slices(trained, size)

    def __len__(self) -> int:
        """Steps in all local epochs."""
        return self.epochs * len(self._slices)

    def steps(self, rng: Rng) -> Steps:
        """x float32 [B, C, H, W] in [-1, 1] and y int64 [B], epoch after epoch."""
        return Steps(self._rows(rng), lambda rows: (normalised(self.images[rows]), self.labels[rows]))

    def _rows(self, rng: Rng) -> Iterator[tuple[Tensor]]:
        device = self.labels.device
        stored = torch.arange(len(self.labels), device=device)
        for epoch in range(self.epochs):
            order = stored
            if self.shuffle:
                drawn = torch.randperm(len(self.labels), generator=rng.torch("order", epoch))
                order = drawn.to(device, non_blocking=True)
            yield from ((order[rows],) for rows in self._slices)

    def only(self, rows: Tensor) -> Batches:
        """The same steps over some of the images, int64 [m]; fewer than a batch of them still make one step."""
        drop_last = self.drop_last and len(rows) >= self.size
        return Batches(self.images[rows], self.labels[rows], self.size, self.epochs, self.shuffle, drop_last)

    def once(self, model: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image that training sees, once, in stored order, in batches of the size that suits `model` where there is no gradient."""
        size = eval_batch(self.images, parameters(model))
        for images, labels in zip(torch.split(self.images, size), torch.split(self.labels, size), strict=True):
            yield normalised(images), labels


def slices(count: int, size: int) -> list[slice]:
    """Batches of `size` of `count` rows; a single row left over joins the batch before it."""
    cuts = [*range(0, count, size), count]
    if len(cuts) > 2 and cuts[-1] - cuts[-2] == 1:
        del cuts[-2]
    return [slice(start, stop) for start, stop in pairwise(cuts)]


def eval_batch(images: Tensor, weights: int = 0) -> int:
    """How many of the images [n, C, H, W] a model of so many weights takes at once where there is no gradient.

    On a CPU few, since their activations set a run's peak memory; more where weights outweigh them, because these are laid
    out again for each forward pass.
    """
    if images.device.type != "cpu":
        return 2048
    pixels = images.shape[-2] * images.shape[-1]
    return max(40, min(128, weights // (32 * pixels)))
