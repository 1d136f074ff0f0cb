"""Centroids to latents of a bank, several each: a transportation problem.

SciPy's linear assignment sees each centroid as often as it gets latents, and had not ended after 150 s for a hundred each of a
hundred classes; its linear programming takes 11 s for ten each. Here a centroid gets one more latent along the cheapest path,
over others that pass theirs on (successive shortest paths: Ahuja, Magnanti and Orlin, Network Flows, 1993, chapter 9), in a
graph of centroids only.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROUNDING = 1e-9  # of the largest distance: a path that is shorter by less is not shorter


def match(distances: Tensor, each: int = 1) -> Tensor:
    """Columns int64 [C each] for the rows of float32 [C, n], C each <= n: `each` for a row, nearest first, none twice,
    with the least sum. NaN counts as the largest distance: divergence is reported after the round, by the loss.
    """
    known = distances.nan_to_num(nan=torch.finfo(distances.dtype).max).cpu()
    nearest = known.topk(len(known) * each, largest=False).indices  # a best match needs no others
    columns = Columns(known.T.contiguous().numpy(), nearest.numpy())
    for _ in range(each):
        for row in range(len(known)):
            columns.add(row)
    owned = torch.tensor(columns.owned)
    return owned.gather(1, known.gather(1, owned).argsort(stable=True)).flatten().to(distances.device)


class Columns:
    """Who owns which column, and what it costs to change that."""

    def __init__(self, costs: NDArray[np.float32], nearest: NDArray[np.int64]):
        """costs [n, C], and each row's nearest columns [C, C each]."""
        self._rows = np.arange(len(nearest))
        self._costs, self._nearest = costs, nearest
        self._tolerance = ROUNDING * float(np.abs(costs).max())
        self.owned: list[list[int]] = [[] for _ in self._rows]
        self._taken: set[int] = set()
        self._free = nearest[:, 0].copy()  # each row's nearest free column
        self._place = np.zeros_like(self._rows)  # of that, among its nearest
        self._over = np.full((len(nearest), len(nearest)), np.inf)  # [a, b], what it costs that a takes over from b
        self._passed = np.zeros((len(nearest), len(nearest)), np.int64)  # the column

    def add(self, row: int) -> None:
        """One more column for a row; others pass on theirs, and take others, as that is cheapest."""
        path = self._path(row)
        for taker, giver in pairwise(path):
            column = int(self._passed[taker, giver])
            self.owned[giver].remove(column)
            self.owned[taker].append(column)
        column = int(self._free[path[-1]])
        self.owned[path[-1]].append(column)
        self._taken.add(column)
        for other in np.flatnonzero(self._free == column).tolist():
            self._next_free(other)
        for changed in path:
            mine = self._costs[self.owned[changed]].astype(np.float64)
            extra = mine - mine[:, changed, None]
            best = extra.argmin(0)
            self._over[:, changed] = extra[best, self._rows]
            self._passed[:, changed] = np.array(self.owned[changed])[best]

    def _path(self, row: int) -> list[int]:
        """Rows from this one on, each taking over from the next, to one that takes a free column (Bellman and Ford)."""
        total = self._costs[self._free, self._rows].astype(np.float64)
        following = np.full(len(total), -1)
        for _ in total:
            through = self._over + total
            best = through.argmin(1)
            least = through[self._rows, best]
            shorter = least < total - self._tolerance
            if not shorter.any():
                break
            total[shorter], following[shorter] = least[shorter], best[shorter]
        path = [row]
        while following[path[-1]] >= 0:
            path.append(int(following[path[-1]]))
        return path

    def _next_free(self, row: int) -> None:
        """As many columns as all rows get together are near enough, so one is free until all have theirs."""
        columns = self._nearest[row]
        while self._place[row] + 1 < len(columns) and int(columns[self._place[row]]) in self._taken:
            self._place[row] += 1
        self._free[row] = columns[self._place[row]]
