"""The numbers of a run in long form: a row for each round, client and metric."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.errors import UserError

if TYPE_CHECKING:
    from stages.artifacts.schemas import Run

NOBODY = -1  # in place of a client, for what belongs to no single one


def columns(run: Run) -> dict[str, np.ndarray]:
    """Columns of one length: round int64, client int64 (-1: not of a single client), metric str, value float64; without NaN.

    A metric has the name of its array in the artifact, without `rounds/`; evaluations have round 0, too.
    """
    parts = [_rows(run, *series) for series in _series(run)]
    rounds, clients, metrics, values = (np.concatenate(column) for column in zip(*parts, strict=True))
    return {"round": rounds, "client": clients, "metric": metrics, "value": values}


def frame(run: Run) -> Any:
    """The columns as a pandas DataFrame. UserError without pandas."""
    try:
        import pandas
    except ImportError:
        raise UserError("A frame needs pandas (pip install pandas); `metrics()` has the same columns.") from None
    return pandas.DataFrame(columns(run))


def _series(run: Run) -> Iterator[tuple[str, str, np.ndarray]]:
    """Name, first axis and values of every array that has a row a round, and perhaps a column a client."""
    for field in fields(run):
        found, part = getattr(run, field.name), field.metadata.get("array")
        if part is None or part.axes not in (("E", "K"), ("R", "K"), ("R",)):
            continue
        for path, values in found.items() if isinstance(found, dict) else [("", found)]:
            yield f"{part.prefix}{path}".removeprefix("rounds/"), part.axes[0], values


def _rows(run: Run, name: str, axis: str, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rounds = run.evaluated if axis == "E" else np.arange(1, len(values) + 1)
    clients = np.array([NOBODY]) if values.ndim == 1 else np.arange(values.shape[1])
    flat = values.astype(np.float64).ravel()
    known = ~np.isnan(flat)
    columns = np.repeat(rounds, len(clients)), np.tile(clients, len(rounds)), np.full(len(flat), name), flat
    return tuple(column[known] for column in columns)  # type: ignore[return-value]
