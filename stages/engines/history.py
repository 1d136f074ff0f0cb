"""What a run records, round by round, as named tensors that grow along their first axis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor


class History:
    """Series of equal-shaped rows by name, such as `rounds/test_accuracy`; storable as plain tensors."""

    def __init__(self, series: Mapping[str, Tensor] | None = None):
        self._rows: dict[str, list[Tensor]] = {
            name: list(values) for name, values in (series or {}).items() if len(values)
        }

    def add(self, name: str, row: Tensor | list[float] | list[int] | list[bool] | float | int) -> None:
        """Append a row; Python floats become float64, ints int64."""
        if not isinstance(row, Tensor):
            first = row[0] if isinstance(row, list) else row
            kind = torch.bool if isinstance(first, bool) else torch.int64 if isinstance(first, int) else torch.float64
            row = torch.tensor(row, dtype=kind)
        self._rows.setdefault(name, []).append(row)

    def add_at(self, place: int, name: str, row: Tensor | list[float] | float) -> None:
        """Append the row that belongs at `place`; missing rows before it are filled with NaN."""
        self.add(name, row)
        rows = self._rows[name]
        rows[-1:-1] = [torch.full_like(rows[-1], torch.nan)] * (place + 1 - len(rows))

    def replace(self, name: str, row: Tensor | None) -> None:
        """Replace the series by this single row; with None, remove it."""
        self._rows.pop(name, None)
        if row is not None:
            self.add(name, row)

    def __getitem__(self, name: str) -> Tensor:
        return torch.stack(self._rows[name])

    def row(self, name: str, place: int) -> Tensor:
        return self._rows[name][place]

    def last(self, name: str) -> Tensor:
        return self._rows[name][-1]

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def tensors(self) -> dict[str, Tensor]:
        return {name: torch.stack(rows) for name, rows in self._rows.items()}
