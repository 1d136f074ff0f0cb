"""Measured beside published: each cell of a table of the FedKTL paper with the runs that measured it."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.artifacts.schemas import Run, descriptor, read_facts
from stages.artifacts.store import Artifact
from stages.errors import unknown
from stages.reporting import formats, latex, scores
from stages.reporting.rows import grouped, latest, over_seeds

Recorded = Mapping[str, Any]  # what a run and its sources say of themselves, by name


@dataclass(frozen=True)
class Cell:
    """One published number, None where the paper has none, and what a run must record to measure it."""

    row: str
    column: str
    published: dict[str, Any] | None  # mean, std over trials (None if not told)
    measure: str
    where: Recorded

    def fits(self, recorded: Recorded) -> bool:
        asked = dict(self.where)
        part = asked.pop("weights", "")
        return part in recorded.get("weights", "") and all(recorded.get(name) == value for name, value in asked.items())


@functools.cache
def tables() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("published.toml").read_text(encoding="utf-8"))


def cells(table: str) -> list[Cell]:
    """The cells of a table, column by column; UserError for an unknown table."""
    if table not in tables():
        raise unknown("table of the paper", table, tables())
    content = tables()[table]
    found = []
    for number, (column, asked) in enumerate(content["columns"].items()):
        for row, entry in content["rows"].items():
            where = {**content["where"], **asked, **entry}
            published = where.pop("published").split()[number]
            found.append(Cell(row, column, _number(published), where.pop("measure", "accuracy"), where))
    return found


def _number(text: str) -> dict[str, Any] | None:
    """`84.55±0.51`, `46.61` or `-`."""
    if text == "-":
        return None
    mean, _, std = text.partition("±")
    return {"mean": float(mean), "std": float(std) if std else None}


def recorded(run: Artifact, sources: Mapping[str, Artifact]) -> Recorded:
    """What there is to compare with a cell: of the run and of its data and latents; nothing without its data."""
    if "data" not in sources:
        return {}
    facts, data = read_facts(run), sources["data"].settings
    own = {"dataset": _dataset(data), "algorithm": facts["algorithm"], "models": facts["models"]}
    own |= {"generator": None, "weights": ""}
    if "latents" in sources:
        generator = descriptor(sources["latents"])
        weights = f"{sources['latents'].settings.get('weights')} {generator.get('source')}"
        own |= {"generator": generator["family"], "weights": weights.lower()}
    return {**facts["hyper"], **run.settings, **data, **own}  # in this order, for FML too has a `beta`


def _dataset(settings: Recorded) -> str | None:
    """The name of the data set; of one read from the user's own files, their name."""
    if settings.get("dataset") in ("npz", "folder"):
        return Path(str(settings.get("source"))).stem.lower().replace("_", "-")
    return settings.get("dataset")


def _received(run: Run) -> float:
    """Floats down in a round, all clients together; the first round brings none, and does not count."""
    sums = run.download_floats.sum(axis=1)
    return float(sums[sums > 0].mean()) if sums.any() else 0.0


MEASURES: dict[str, Callable[[Run], float]] = {
    "accuracy": scores.best_on_test,  # in percent, as the paper's tables
    "upload": lambda run: float(np.mean(run.upload_floats.sum(axis=1))) / 1e6,
    "download": lambda run: _received(run) / 1e6,
}


def compared(table: str, runs: Sequence[tuple[Run, Recorded]]) -> dict[str, Any]:
    """The table as JSON: title, and per cell what was published, what was measured, and the difference of the means."""
    entries = []
    for cell in cells(table):
        measuring = _newest([run for run, its in runs if cell.fits(its)])
        measured = over_seeds([MEASURES[cell.measure](run) for run in measuring]) if measuring else None
        entries.append({
            "row": cell.row, "column": cell.column, "published": cell.published, "measured": measured,
            "difference": measured["mean"] - cell.published["mean"] if measured and cell.published else None,
            "rounds": max((len(run.joined) for run in measuring), default=None),
            "seeds": [run.artifact.attributes["seed"] for run in measuring],
            "runs": [str(run.artifact.ref) for run in measuring],
        })  # fmt: skip
    accuracies = all(cell.measure == "accuracy" for cell in cells(table))
    return {"table": table, "title": tables()[table]["title"], "higher_is_better": accuracies, "cells": entries}


def _newest(runs: list[Run]) -> list[Run]:
    """The runs, a seed each, of the choice of everything that the cell leaves open that was run last."""
    if not runs:
        return []
    groups = grouped(latest(sorted(runs, key=_age)))
    return max(groups, key=lambda group: max(map(_age, group.runs))).runs


def _age(run: Run) -> tuple[str, str, int | None]:
    """Later runs compare greater."""
    return run.artifact.attributes["created"], run.artifact.ref.name, run.artifact.ref.version


STATISTICS = ("mean", "std")
HEADERS = ["Published", "Measured", "Diff.", "Rounds", "Seeds"]


def texts(cell: Mapping[str, Any]) -> list[str]:
    """What people read of a cell, below HEADERS."""
    difference = cell["difference"]
    return [
        formats.accuracy(cell["published"]),
        formats.accuracy(cell["measured"]),
        "–" if difference is None else f"{round(difference, 2) + 0.0:+.2f}",  # never -0.00
        str(cell["rounds"] or "–"),
        str(len(cell["seeds"]) or "–"),
    ]


def as_text(comparison: Mapping[str, Any], format: str) -> str:
    """The comparison as json, csv, markdown or latex."""
    entries = comparison["cells"]
    if format == "json":
        return formats.json_of(comparison)
    if format == "csv":
        return formats.csv_of([_record(cell) for cell in entries])
    if format == "latex":
        return latex.of_paper(comparison)
    lines = [[cell["column"], cell["row"], *texts(cell)] for cell in entries]
    return formats.markdown(["Setting", comparison["title"], *HEADERS], lines, 2)


def _record(cell: Mapping[str, Any]) -> dict[str, Any]:
    """A flat line, empty where nothing was published or run."""
    parts = {
        f"{name}.{part}": (cell[name] or {}).get(part) for name in ("published", "measured") for part in STATISTICS
    }
    rest = {name: cell[name] for name in ("difference", "rounds", "seeds", "runs")}
    flat = {"column": cell["column"], "row": cell["row"], **parts, **rest}
    return {name: "" if value is None else value for name, value in flat.items()}
