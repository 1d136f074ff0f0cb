"""Runs as one long table for other tools: a row for each run, round, client and metric."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from stages.artifacts.metrics import NOBODY
from stages.artifacts.partial_run import PartialRun
from stages.artifacts.schemas import Run
from stages.errors import UserError
from stages.reporting.rows import configuration

FIRST = ("run", "algorithm", "data", "models", "seed")
Columns = dict[str, Any]  # by name, each a sequence of the same length


def table(runs: Sequence[Run]) -> Columns:
    """Run, algorithm, data, models, seed, the settings in which the runs differ, round, client, metric, value.

    The client is None for what belongs to no single client, a setting for an algorithm that does not have it. Where some of the
    runs are unfinished, `finished` is among the settings.
    """
    chosen = [configuration(run) for run in runs]
    for run, one in zip(runs, chosen, strict=True):
        one["finished"] = not isinstance(run.artifact, PartialRun)
    names = dict.fromkeys(name for one in chosen for name in one if name not in FIRST)
    differing = [name for name in names if any(one.get(name) != chosen[0].get(name) for one in chosen)]
    if not all(one["finished"] for one in chosen):
        differing = [*dict.fromkeys((*differing, "finished"))]
    found: Columns = {name: [] for name in (*FIRST, *differing, "round", "client", "metric", "value")}
    for run, own in zip(runs, chosen, strict=True):
        numbers = run.metrics()
        about = {**own, "run": str(run.artifact.ref), "seed": run.artifact.attributes["seed"]}
        for name in (*FIRST, *differing):
            found[name] += [_plain(about.get(name))] * len(numbers["value"])
        for name, column in numbers.items():
            found[name] += column.tolist()
    found["client"] = [None if client == NOBODY else client for client in found["client"]]
    return found


def _plain(value: object) -> object:
    return ",".join(map(str, value)) if isinstance(value, list) else value


def as_csv(columns: Columns) -> str:
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(columns)
    lines.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


def as_parquet(columns: Columns) -> bytes:
    """The bytes of a Parquet file. UserError without the package pyarrow."""
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise UserError("Parquet needs the package pyarrow; install it with: pip install 'fedktl[parquet]'") from None
    mixed = {name: values if _one_type(values) else [_text(v) for v in values] for name, values in columns.items()}
    stream = io.BytesIO()
    parquet.write_table(arrow.table(mixed), stream)
    return stream.getvalue()


def _one_type(values: Sequence[object]) -> bool:
    return len({type(value) for value in values if value is not None}) <= 1


def _text(value: object) -> str | None:
    return None if value is None else str(value)
