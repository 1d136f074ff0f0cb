"""Rows as a matrix: algorithms down, data across, or whatever else differs; one score a cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stages.reporting.rows import label

METRICS = {"selected": "validation_selected", "last": "last", "best": "best_on_test"}
TITLES = {
    "selected": "at the round that was best on the validation images", "last": "after the last round",
    "best": "best of all rounds on the test images themselves",
}  # fmt: skip


@dataclass(frozen=True)
class Matrix:
    across: str  # what the columns are of: data, models or variant
    rows: list[str]
    columns: list[str]
    cells: dict[tuple[str, str], dict[str, Any]]  # by row and column: the row of the report

    def rank(self, row: str, column: str, metric: str) -> int | None:
        """0 for the best of a column, 1 for the second; None for the rest, and where there is nothing to compare."""
        means = [None if self._unfinished(each, column) else self.mean(each, column, metric) for each in self.rows]
        return ranked(means)[self.rows.index(row)]

    def _unfinished(self, row: str, column: str) -> bool:
        return bool(self.cells.get((row, column), {}).get("planned_rounds"))

    def mean(self, row: str, column: str, metric: str) -> float | None:
        score = self.score(row, column, metric)
        return None if score is None else score["mean"]

    def score(self, row: str, column: str, metric: str) -> dict[str, Any] | None:
        found = self.cells.get((row, column))
        return None if found is None else found[METRICS[metric]]


def ranked(values: Sequence[float | None]) -> list[int | None]:
    """0 for the highest of several, as they are printed, and 1 for the second; None for the rest."""
    printed = [None if value is None else round(value, 2) for value in values]
    order = sorted({value for value in printed if value is not None}, reverse=True)[:2]
    several = sum(value is not None for value in printed) > 1
    return [order.index(value) if several and value in order else None for value in printed]


def matrix(rows: Sequence[dict[str, Any]]) -> Matrix:
    """Across is the first of data, models and variant that differs, a variant only if all algorithms have the same ones."""
    across = next((axis for axis in ("data", "models") if len({row[axis] for row in rows}) > 1), None)
    if across is None:
        variants: dict[str, set[str]] = {}
        for row in rows:
            variants.setdefault(row["algorithm"], set()).add(row["variant"])
        first, *others = variants.values()
        across = "variant" if len(first) > 1 and all(other == first for other in others) else "data"
    models = across == "data" and len({row["models"] for row in rows}) > 1
    cells = {}
    for row in rows:
        name = label(row["algorithm"], "" if across == "variant" else row["variant"])
        cells[f"{name}, {row['models']}" if models else name, row[across]] = row
    names, columns = (list(dict.fromkeys(key[place] for key in cells)) for place in (0, 1))
    return Matrix(across, names, columns, cells)
