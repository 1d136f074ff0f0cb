"""How an array of a run is declared: its path, type and axes, and what a reader puts in place of an absent one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RunArray:
    """An array of a run: for the writer, the reader, the restorer, the exporter and FORMAT.md.

    A path with <name> stands for any number of arrays, by name.
    """

    path: str
    dtype: str
    axes: tuple[str, ...]
    meaning: str
    optional: bool = False
    absent: float = 0  # what it is filled with for readers, where an artifact has none
    history: bool = True  # whether it is recorded round by round, so that a checkpoint has it too

    @property
    def prefix(self) -> str:
        return self.path.partition("<")[0]

    def among(self, paths: Iterable[str]) -> list[str]:
        """Those of the paths that are this array's."""
        if "<" in self.path:
            return [path for path in paths if path.startswith(self.prefix)]
        return [path for path in paths if path == self.path]

    def filled(self, sizes: Mapping[str, int]) -> np.ndarray:
        """In place of an absent one; an axis without a size has length 0."""
        shape = [int(axis) if axis.isdigit() else sizes.get(axis, 0) for axis in self.axes]
        return np.full(shape, self.absent, self.dtype)


def array(
    path: str, dtype: str, axes: str, meaning: str = "", optional: bool = False, absent: float = 0, history: bool = True
) -> dict[str, RunArray]:
    """Metadata of a field of Run that is an array of the artifact, or with <name> in its path a dict of arrays by name."""
    return {"array": RunArray(path, dtype, tuple(axes.split()), meaning, optional or "<" in path, absent, history)}
