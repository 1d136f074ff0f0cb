"""The mean of each class: of rows, or of batches as they go by."""

from __future__ import annotations

import torch
from torch import Tensor


def class_means(
    rows: Tensor, labels: Tensor, classes: int, weights: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The classes present, int64 [k], ascending, their means float32 [k, width], and the weight of each.

    rows float32 [n, width] of classes int64 [n], each weighing 1 or float32 `weights` [n].
    """
    weighted = rows if weights is None else rows * weights[:, None]
    sums = torch.zeros(classes, rows.shape[1], device=rows.device).index_add_(0, labels, weighted)
    totals = torch.bincount(labels, weights, minlength=classes).to(torch.int64 if weights is None else torch.float32)
    present = totals.nonzero().flatten()
    return present, sums[present] / totals[present, None], totals[present]


class ClassMeans:
    """The means of classes whose rows come in batches."""

    def __init__(self, classes: int, width: int, device: torch.device):
        self._sums = torch.zeros(classes, width, device=device)
        self._counts = torch.zeros(classes, dtype=torch.int64, device=device)

    def add(self, rows: Tensor, labels: Tensor) -> None:
        """rows float32 [B, width] of classes int64 [B]; in place, so that a captured step can do it."""
        self._sums.index_add_(0, labels, rows)
        self._counts.index_add_(0, labels, torch.ones_like(labels))

    def result(self) -> tuple[Tensor, Tensor, Tensor]:
        """The classes that came, int64 [k], their means float32 [k, width], and the number of rows behind each."""
        present = self._counts.nonzero().flatten()
        counts = self._counts[present]
        return present, self._sums[present] / counts[:, None], counts
