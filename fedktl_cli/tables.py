"""Tables for people, drawn with Rich."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from fedktl_cli.terminal import amount, safe
from stages.artifacts.schemas import SPLITS, Data, Run
from stages.reporting import formats, paper
from stages.reporting.scores import best_on_test, last

if TYPE_CHECKING:
    from stages.train import Outcome

BLOCKS = " ▁▂▃▄▅▆▇█"


def plain(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None, left: int = 1) -> Table:
    """A table without ornament: the first columns to the left, numbers to the right."""
    table = Table(
        title=title and Text(safe(title)), box=None, pad_edge=False, title_justify="left", header_style="bold"
    )
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(safe(str(cell))) for cell in row))
    return table


def sample_counts(data: Data) -> dict[str, list[int]]:
    """Images per client in each split."""
    return {split: np.diff(getattr(data, split).offsets).tolist() for split in SPLITS}


def label_heat_map(data: Data, width: int) -> Table:
    """Images per client, and as blocks how many of each class; the tallest block is the largest count of all."""
    room = max(10, width - 40)
    group = -(-data.classes // room)  # classes per block where they do not all fit
    padded = np.pad(data.counts, ((0, 0), (0, -data.classes % group)))
    cells = padded.reshape(data.clients, -1, group).sum(2)
    levels = np.ceil(8 * cells / max(1, cells.max())).astype(int)
    counts = sample_counts(data)
    heading = f"classes 0..{data.classes - 1}" + (f", {group} a block" if group > 1 else "")
    table = plain(["client", "train", "valid.", "test"], [])
    table.add_column(heading)
    for client, row in enumerate(levels):
        bar = Text("".join(BLOCKS[level] for level in row), style="cyan")
        table.add_row(str(client), *(str(counts[split][client]) for split in SPLITS), bar)
    return table


def study(outcomes: Sequence[Outcome], found: Sequence[Run | None]) -> Table:
    """One line per run: what became of it, where its accuracy went and what it sent."""
    rows = []
    for outcome, run in zip(outcomes, found, strict=True):
        row = [outcome.ref or outcome.name, outcome.state]
        if run is not None:
            up, down = run.upload_floats.sum(1).mean(), run.download_floats.sum(1).mean()
            row += [
                str(len(run.joined)), f"{last(run):.2f}", f"{best_on_test(run):.2f}",
                amount(float(up)), amount(float(down)), f"{sum(s.mean() for s in run.seconds.values()):.2f}",
            ]  # fmt: skip
        rows.append(row)
    columns = ["run", "", "rounds", "last %", "best %", "floats up", "down", "s/round"]
    if {outcome.state for outcome in outcomes} == {"done"}:
        columns, rows = columns[:1] + columns[2:], [row[:1] + row[2:] for row in rows]
    return plain(columns, rows, left=len(columns) - 6)


def report(rows: Sequence[dict[str, Any]]) -> Group:
    """The table of a report as a terminal has room for it: scores and cost, then seconds by phase."""
    blocks: list[Any] = []
    for setting in dict.fromkeys((row["data"], row["models"]) for row in rows):
        own = [row for row in rows if (row["data"], row["models"]) == setting]
        names = [formats.label(row["algorithm"], row["variant"]) for row in own]
        scores = [[name, *_scores(row)] for name, row in zip(names, own, strict=True)]
        phases = [
            phase
            for phase in own[0]["seconds_per_round"]
            if any(row["seconds_per_round"].get(phase, 0) >= 5e-4 for row in own)
        ]
        seconds = [
            [name, *(f"{row['seconds_per_round'].get(phase, 0):.3f}" for phase in phases)]
            for name, row in zip(names, own, strict=True)
        ]
        if any(row["simulated_seconds_per_round"] for row in own):
            phases.append("simulated")
            for line, row in zip(seconds, own, strict=True):
                line.append(f"{row['simulated_seconds_per_round']:.3f}")
        heading = f"{setting[0]}, models {setting[1]}"
        blocks += [
            plain(
                ["accuracy, %", "seeds", "rounds", "last", "selected", "best", "worst", "up", "down"], scores, heading
            ),
            Text(),
            plain(["seconds a round", *phases], seconds),
            Text(),
        ]
    note = "last round, selected on validation, best on test; worst client; floats up and down a round"
    return Group(*blocks, Text(note, style="dim"))


def _scores(row: dict[str, Any]) -> list[str]:
    accuracies = [formats.accuracy(row[name]) for name in ("last", "validation_selected", "best_on_test")]
    traffic = [amount(row[f"{way}_floats_per_round"]) for way in ("upload", "download")]
    return [str(len(row["runs"])), str(row["rounds"]), *accuracies, f"{row['worst_client']:.2f}", *traffic]


def beside_paper(comparison: dict[str, Any]) -> Group:
    """A table of the paper, a block for each of its columns."""
    blocks: list[Any] = [Text(comparison["title"], style="bold"), Text()]
    columns = dict.fromkeys(cell["column"] for cell in comparison["cells"])
    names = max(len(name) for cell in comparison["cells"] for name in (cell["column"], cell["row"]))
    for column in columns:
        own = [cell for cell in comparison["cells"] if cell["column"] == column]
        table = plain([column, *paper.HEADERS], [[cell["row"], *paper.texts(cell)] for cell in own])
        table.columns[0].min_width = names
        blocks += [table, Text()]
    return Group(*blocks, Text("mean ± deviation over seeds; a dash: not published, or not run", style="dim"))


def preview(facts: dict[str, Any]) -> Group:
    """A dry run: settings, architectures, what a round would send."""
    rows = [
        [
            row["model"],
            str(row["clients"]),
            f"{row['parameters']:,}",
            _shape(row["features"]),
            _shape(row["projections"]),
        ]
        for row in facts["architectures"]
    ]
    settings = {**facts["settings"], **{f"{facts['algorithm']}.{k}": v for k, v in facts["hyper"].items()}}
    sources = ", ".join(f"{role} {identity['ref']}" for role, identity in facts["made_from"].items())
    up, down = facts["upload_floats_per_round"], facts["download_floats_per_round"]
    return Group(
        Text(f"{facts['algorithm']}, seed {facts['seed']}, from {sources}", style="bold"),
        plain(["model", "clients", "parameters", "features", "projections"], rows),
        Text(f"Floats per round with every client: {up:,} up, {down:,} down."),
        Text(f"Weights kept: {_kept(facts['weights_bytes'])}."),
        Text("  ".join(f"{name}={_value(value)}" for name, value in settings.items()), style="dim"),
    )


def _kept(sizes: dict[str, int]) -> str:
    """`1.2 MB of the last round, 1.2 MB of the selected one`; of the latter only where they differ."""
    rounds = {"last": "of the last round", "selected": "of the round selected on validation"}
    parts = [f"{formats.size(size)} {rounds[name]}" for name, size in sizes.items()]
    return ", ".join(parts) + (", if it is another" if len(parts) > 1 else "")


def _shape(sides: Sequence[int]) -> str:
    return "x".join(map(str, sides))


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
