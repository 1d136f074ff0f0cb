"""The mean of each class over batches as they go by."""

from __future__ import annotations

import torch
from torch import Tensor


class ClassMeans:
    def __init__(self, classes: int, width: int, device: torch.device):
        self._sums = torch.zeros(classes, width, device=device)
        self._counts = torch.zeros(classes, dtype=torch.int64, device=device)

    def add(self, rows: Tensor, labels: Tensor) -> None:
        """rows float32 [B, width] of classes int64 [B]; in place, so that a captured step can do it."""
        self._sums.index_add_(0, labels, rows)
        self._counts.index_add_(0, labels, torch.ones_like(labels))

    def taken(self) -> tuple[Tensor, Tensor, Tensor]:
        """The classes that came, int64 [k], their means float32 [k, width], and how many rows are behind each."""
        present = self._counts.nonzero().flatten()
        counts = self._counts[present]
        return present, self._sums[present] / counts[:, None], counts
