"""Tables for people, drawn with Rich."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from fedktl_cli.terminal import safe
from stages.artifacts.schemas import SPLITS, Data, Run
from stages.reporting import formats, numbers, paper
from stages.reporting.numbers import count
from stages.reporting.rows import label
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
    """One line per run: where its accuracy went and what it sent; or, if not all were made now, what became of each."""
    mixed = any(outcome.state != "done" for outcome in outcomes)
    rows = []
    for outcome, run in zip(outcomes, found, strict=True):
        row = [outcome.ref or outcome.name, *[outcome.state] * mixed]
        if run is not None:
            floats = [count(float(sent.sum(1).mean())) for sent in (run.upload_floats, run.download_floats)]
            row += [
                str(len(run.joined)), f"{last(run):.2f}", f"{best_on_test(run):.2f}", *(floats if not mixed else []),
                f"{sum(s.mean() for s in run.seconds.values()):.2f}",
            ]  # fmt: skip
        rows.append(row)
    traffic = [] if mixed else ["floats up", "down"]
    columns = ["run", *[""] * mixed, "rounds", "last %", "best %", *traffic, "s/round"]
    return plain(columns, rows, left=1 + mixed)


def report(rows: Sequence[dict[str, Any]]) -> Group:
    """The table of a report as a terminal has room for it: scores and cost, then seconds by phase."""
    blocks: list[Any] = []
    for setting in dict.fromkeys((row["data"], row["models"]) for row in rows):
        own = [row for row in rows if (row["data"], row["models"]) == setting]
        names = [label(row["algorithm"], row["variant"]) for row in own]
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
    traffic = [count(row[f"{way}_floats_per_round"]) for way in ("upload", "download")]
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


def previews(found: Sequence[dict[str, Any]]) -> Group:
    """A dry run: the architectures, what each kind of run costs, and the settings; what is the same is said once."""
    kinds: dict[tuple[str, str], list[dict[str, Any]]] = {}  # runs that differ in their seed alone
    for one in found:
        kinds.setdefault((one["algorithm"], str(one["hyper"])), []).append(one)
    blocks: list[Any] = []
    shown: dict[str, list[str]] = {}
    for (name, _), runs in kinds.items():
        shown.setdefault(str(runs[0]["architectures"]), []).append(name)
        if shown[str(runs[0]["architectures"])] == [name]:
            blocks += [_architectures(runs[0]), Text()]
    on_gpu = any(one["device_memory"] for one in found)
    columns = ["", "runs", "s/round", "time", "memory", *["device"] * on_gpu, "disk", "up", "down"]
    blocks += [plain(columns, [_cost(runs, found, on_gpu) for runs in kinds.values()])]
    blocks += [
        Text("memory of one run; time and disk of all that are missing; floats a round with every client", "dim")
    ]
    missing = [one for one in found if not one["there"]]
    if len(found) > 1:
        there = f" ({len(found) - len(missing)} there already)" * (len(missing) < len(found))
        time, disk = sum(one["seconds"] for one in missing), sum(one["disk"] for one in missing)
        blocks += [Text(f"{len(found)} runs{there}: {numbers.duration(time)} in all, {numbers.size(disk)} of disk.")]
    first = found[0]
    sources = {role: identity["ref"] for one in found for role, identity in one["made_from"].items()}
    settings = {**first["settings"], **sources}
    for one in found:
        settings |= {f"{one['algorithm']}.{name}": value for name, value in one["hyper"].items()}
    for name in (
        "algorithm",
        "seeds",
        *(f"{one['algorithm']}.{name}" for one in found for name in _varied(one, found)),
    ):
        settings.pop(name, None)
    kept = (
        f"Weights kept: {_kept(first['weights_bytes'])}. On disk while it goes on: {numbers.size(first['most_disk'])}."
    )
    said = "  ".join(f"{name}={_value(value)}" for name, value in settings.items())
    return Group(*blocks, Text(kept), Text(safe(said), style="dim"))


def _architectures(facts: dict[str, Any]) -> Table:
    rows = [
        [row["model"], row["clients"], f"{row['parameters']:,}", _shape(row["features"]), _shape(row["projections"])]
        for row in facts["architectures"]
    ]
    return plain(["model", "clients", "parameters", "features", "projections"], rows)


def _cost(runs: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]], on_gpu: bool) -> list[str]:
    """A row of the price list: runs that differ in their seed alone."""
    one, missing = runs[0], [run for run in runs if not run["there"]]
    return [
        " ".join([one["algorithm"], *(f"{name}={_value(one['hyper'][name])}" for name in _varied(one, found))]),
        str(len(runs)), f"{one['seconds_per_round']:.2f}", numbers.duration(sum(run["seconds"] for run in missing)),
        numbers.memory(one["host_memory"]), *[numbers.memory(one["device_memory"])] * on_gpu,
        numbers.size(sum(run["disk"] for run in missing)),
        count(one["upload_floats_per_round"]), count(one["download_floats_per_round"]),
    ]  # fmt: skip


def _varied(one: dict[str, Any], found: Sequence[dict[str, Any]]) -> list[str]:
    """The hyperparameters in which runs of its algorithm differ."""
    alike = [other["hyper"] for other in found if other["algorithm"] == one["algorithm"]]
    return [name for name, value in one["hyper"].items() if any(hyper[name] != value for hyper in alike)]


def _kept(sizes: dict[str, int]) -> str:
    """`1.2 MB of the last round, 1.2 MB of the selected one`; of the latter only where they differ."""
    rounds = {"last": "of the last round", "selected": "of the round selected on validation"}
    parts = [f"{numbers.size(size)} {rounds[name]}" for name, size in sizes.items()]
    return ", ".join(parts) + (", if it is another" if len(parts) > 1 else "")


def _shape(sides: Sequence[int]) -> str:
    return "x".join(map(str, sides))


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
