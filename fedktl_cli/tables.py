"""Tables for people, drawn with Rich."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from fedktl_cli.terminal import safe
from stages.artifacts.refs import IDENTITY
from stages.artifacts.schemas import SPLITS, Data, Run
from stages.reporting import formats, numbers, paper
from stages.reporting.numbers import count
from stages.reporting.rows import label
from stages.reporting.scores import best_on_test, last
from stages.settings import DECISIVE

if TYPE_CHECKING:
    from stages.engines.making import Outcome

BLOCKS = " ▁▂▃▄▅▆▇█"
GAP = 2  # blanks between columns
PROSE = 24  # letters that every column of words after the first has room for; longer words are broken


@dataclass
class Fitted:
    """A table without ornament that breaks no word or number: where a terminal is too narrow, its last columns go."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]  # texts, or Text with a style
    title: str | None
    left: Collection[int]  # columns of words, which are aligned left and may continue on the next line

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        cells = [
            [as_text(name, "bold") for name in self.columns],
            *([as_text(cell) for cell in row] for row in self.rows),
        ]
        wide = [max(cell.cell_len for cell in column) for column in zip(*cells, strict=True)]
        narrow = []
        for number, (name, *its) in enumerate(zip(*cells, strict=True)):
            words = max([cell_len(word) for cell in its for word in cell.plain.split()], default=0)
            most = words if number == 0 else min(words, PROSE)
            narrow.append(max(name.cell_len, most) if number in self.left else wide[number])
        shown = len(narrow)
        while shown > 1 and sum(narrow[:shown]) + GAP * (shown - 1) > options.max_width:
            shown -= 1
        spare = options.max_width - sum(narrow[:shown]) - GAP * (shown - 1)
        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), show_header=False)
        for number in range(shown):
            more = min(max(0, spare), wide[number] - narrow[number])
            spare -= more
            justify = "left" if number in self.left else "right"
            table.add_column(width=narrow[number] + more, justify=justify, overflow="fold")  # type: ignore[arg-type]
        for row in cells:
            table.add_row(*row[:shown])
        if self.title:
            yield Text(safe(self.title), style="italic")
        yield table
        if left_out := self.columns[shown:]:
            yield Text(f"left out because the terminal is narrow: {', '.join(left_out)}", style="dim")


def as_text(cell: object, style: str = "") -> Text:
    return cell if isinstance(cell, Text) else Text(safe(str(cell)), style=style)


def plain(
    columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None, left: int | Collection[int] = 1
) -> Fitted:
    """The first `left` columns, or those of these numbers, to the left; numbers to the right; the least important last."""
    padded = [[*row, *[""] * (len(columns) - len(row))] for row in rows]
    return Fitted(columns, padded, title, range(left) if isinstance(left, int) else left)


def sample_counts(data: Data) -> dict[str, list[int]]:
    """Images per client in each split."""
    return {split: np.diff(getattr(data, split).offsets).tolist() for split in SPLITS}


def label_heat_map(data: Data, width: int) -> Fitted:
    """Images per client, and as blocks how many of each class; the tallest block is the largest count of all."""
    room = max(10, width - 40)
    group = -(-data.classes // room)  # classes per block where they do not all fit
    padded = np.pad(data.counts, ((0, 0), (0, -data.classes % group)))
    cells = padded.reshape(data.clients, -1, group).sum(2)
    levels = np.ceil(8 * cells / max(1, cells.max())).astype(int)
    counts = sample_counts(data)
    heading = f"classes 0..{data.classes - 1}" + (f", {group} a block" if group > 1 else "")
    rows = [
        [
            client,
            *(counts[split][client] for split in SPLITS),
            Text("".join(BLOCKS[level] for level in row), style="cyan"),
        ]
        for client, row in enumerate(levels)
    ]
    return plain(["client", "train", "valid.", "test", heading], rows, left=(0, 4))


def study(outcomes: Sequence[Outcome], found: Sequence[Run | None]) -> Fitted:
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


def report(rows: Sequence[dict[str, Any]], columns: Sequence[str] = ()) -> Group:
    """The table of a report as a terminal has room for it: scores and cost, then seconds by phase; or the columns named."""
    if columns:
        headers, cells, words = formats.table(list(rows), columns)
        return Group(plain(headers, cells, left=words))
    blocks: list[RenderableType] = []
    for setting in dict.fromkeys((row["data"], row["models"]) for row in rows):
        own = [row for row in rows if (row["data"], row["models"]) == setting]
        names = [label(row["algorithm"], row["variant"]) for row in own]
        more = [name for name in formats.standard(own) if name in formats.OCCASIONAL]
        scores = [[name, *_scores(row, more)] for name, row in zip(names, own, strict=True)]
        headers = ["accuracy, %", "last", "selected", "best", "worst", "up", "down", *more, "rounds", "seeds"]
        blocks += [plain(headers, scores, f"{setting[0]}, models {setting[1]}"), Text(), _seconds(names, own), Text()]
    note = "last round, selected on validation, best on test; worst client; floats up and down a round"
    return Group(*blocks, Text(note, style="dim"))


def _scores(row: dict[str, Any], more: Sequence[str]) -> list[str]:
    """A row of the table of scores, with the columns of `formats` that it has beside its own."""
    accuracies = [formats.accuracy(row[name]) for name in ("last", "validation_selected", "best_on_test")]
    traffic = [count(row[f"{way}_floats_per_round"]) for way in ("upload", "download")]
    return [
        *accuracies,
        f"{row['worst_client']:.2f}",
        *traffic,
        *(formats.COLUMNS[name].text(row) for name in more),
        formats.COLUMNS["rounds"].text(row),
        str(len(row["runs"])),
    ]


def _seconds(names: Sequence[str], rows: Sequence[dict[str, Any]]) -> Fitted:
    """Seconds of the phases that took any, the longest first, and by how much the slowest client would have been late."""
    spent = [row["seconds_per_round"] for row in rows]
    if any(row["simulated_seconds_per_round"] for row in rows):
        spent = [{**its, "simulated": row["simulated_seconds_per_round"]} for its, row in zip(spent, rows, strict=True)]
    longest = {phase: max(its.get(phase, 0) for its in spent) for each in spent for phase in each}
    phases = sorted((phase for phase in longest if longest[phase] >= 5e-4), key=lambda phase: -longest[phase])
    lines = [[name, *(f"{its.get(phase, 0):.3f}" for phase in phases)] for name, its in zip(names, spent, strict=True)]
    return plain(["seconds a round", *phases], lines)


def beside_paper(comparison: dict[str, Any]) -> Group:
    """A table of the paper, a block for each of its columns."""
    blocks: list[RenderableType] = [Text(comparison["title"], style="bold"), Text()]
    columns = dict.fromkeys(cell["column"] for cell in comparison["cells"])
    names = max(len(name) for cell in comparison["cells"] for name in (cell["column"], cell["row"]))
    for column in columns:
        own = [cell for cell in comparison["cells"] if cell["column"] == column]
        rows = [[cell["row"].ljust(names), *paper.texts(cell)] for cell in own]
        blocks += [plain([column, *paper.HEADERS], rows), Text()]
    return Group(*blocks, Text("mean ± deviation over seeds; a dash: not published, or not run", style="dim"))


def previews(found: Sequence[dict[str, Any]]) -> Group:
    """A dry run: the architectures, what each kind of run costs, and the settings; what is the same is said once."""
    kinds: dict[tuple[str, str], list[dict[str, Any]]] = {}  # runs that differ in their seed alone
    for one in found:
        kinds.setdefault((one["algorithm"], str(_choices(one))), []).append(one)
    blocks: list[RenderableType] = []
    shown: dict[str, list[str]] = {}
    for (name, _), runs in kinds.items():
        shown.setdefault(str(runs[0]["architectures"]), []).append(name)
        if shown[str(runs[0]["architectures"])] == [name]:
            blocks += [_architectures(runs[0]), Text()]
    on_gpu = any(one["device_memory"] for one in found)
    columns = ["", "runs", "s/round", "time", "memory", *["device"] * on_gpu, "disk", "up", "down"]
    blocks += [plain(columns, [_cost(runs, found, on_gpu) for runs in kinds.values()])]
    blocks += [
        Text(
            "memory of one run; time and disk of all that are missing, if the machine does nothing else; floats a round with "
            "every client",
            "dim",
        )
    ]
    missing = [one for one in found if not one["there"]]
    if len(found) > 1:
        there = f" ({len(found) - len(missing)} there already)" * (len(missing) < len(found))
        disk = numbers.size(sum(one["disk"] for one in missing))
        blocks += [Text(f"{len(found)} runs{there}: {_time(missing)} in all, {disk} of disk.")]
    first = found[0]
    sources = {role: identity["ref"] for one in found for role, identity in one["made_from"].items()}
    settings = {**first["settings"], **sources}
    for one in found:
        settings |= {f"{one['algorithm']}.{name}": value for name, value in one["hyper"].items()}
    varied = [each for one in found for name in _varied(one, found) for each in (name, f"{one['algorithm']}.{name}")]
    for name in ("algorithm", "seeds", *varied):
        settings.pop(name, None)
    kept = f"Weights kept: {_kept(first['weights_bytes'])}. On disk while it runs: {numbers.size(first['most_disk'])}."
    said = "  ".join(f"{name}={_value(value)}" for name, value in settings.items())
    return Group(*blocks, Text(kept), Text(safe(said), style="dim"))


def _architectures(facts: dict[str, Any]) -> Fitted:
    rows = [
        [row["model"], row["clients"], f"{row['parameters']:,}", _shape(row["features"]), _shape(row["projections"])]
        for row in facts["architectures"]
    ]
    return plain(["model", "clients", "parameters", "features", "projections"], rows)


def _cost(runs: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]], on_gpu: bool) -> list[str]:
    """A row of the price list: runs that differ in their seed alone."""
    one, missing = runs[0], [run for run in runs if not run["there"]]
    return [
        " ".join([one["algorithm"], *(f"{name}={_value(_choices(one)[name])}" for name in _varied(one, found))]),
        str(len(runs)), f"{one['seconds_per_round']:.2f}", _time(missing),
        numbers.memory(one["host_memory"]), *[numbers.memory(one["device_memory"])] * on_gpu,
        numbers.size(sum(run["disk"] for run in missing)),
        count(one["upload_floats_per_round"]), count(one["download_floats_per_round"]),
    ]  # fmt: skip


def _time(runs: Sequence[dict[str, Any]]) -> str:
    """What the runs take, as many side by side as there are jobs."""
    jobs = min(runs[0]["settings"]["jobs"], len(runs)) if runs else 1
    return numbers.duration(sum(run["seconds"] for run in runs) / jobs)


def _varied(one: dict[str, Any], found: Sequence[dict[str, Any]]) -> list[str]:
    """The settings and hyperparameters in which runs of its algorithm differ."""
    alike = [_choices(other) for other in found if other["algorithm"] == one["algorithm"]]
    return [name for name, value in _choices(one).items() if any(other[name] != value for other in alike)]


def _choices(one: dict[str, Any]) -> dict[str, Any]:
    settings, hyper = one["settings"], one["hyper"]
    return {**{name: settings[name] for name in DECISIVE}, **hyper}


def _kept(sizes: dict[str, int]) -> str:
    """`1.2 MB of the last round, 1.2 MB of the selected one`; of the latter only where they differ."""
    rounds = {"last": "of the last round", "selected": "of the round selected on validation"}
    parts = [f"{numbers.size(size)} {rounds[name]}" for name, size in sizes.items()]
    return ", ".join(parts) + (", if it is another" if len(parts) > 1 else "")


def _shape(sides: Sequence[int]) -> str:
    return "x".join(map(str, sides))


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


SHOWN = ("ref", "path", "bytes", "kind", "schema", "created", "arrays")  # what the heading and tables of their own say


def artifact(name: str, told: dict[str, Any]) -> Group:
    """What an artifact says of itself, a table for each thing that has parts."""
    head = [
        name,
        numbers.size(told["bytes"]),
        told.get("created") or f"unfinished, {told.get('rounds_done', 0)} rounds done",
    ]
    blocks: list[RenderableType] = [
        Text(safe("   ".join(map(str, head))), style="bold"),
        Text(safe(told["path"]), style="dim"),
        Text(),
    ]
    parts = {title: value for title, value in told.items() if title not in SHOWN}
    if isinstance(facts := parts.get("facts"), dict):
        parts["facts"] = {name: value for name, value in facts.items() if name not in told}
    single = {title: value for title, value in parts.items() if not isinstance(value, dict)}
    if single:
        blocks += [plain(["attribute", "value"], _lines(single), left=2), Text()]
    for title, value in parts.items():
        if isinstance(value, dict) and value:
            blocks += [plain([title.replace("_", " "), ""], _lines(value), left=2), Text()]
    if arrays := told.get("arrays"):
        rows = [[array, _shape(its["shape"]) or "-", its["dtype"]] for array, its in sorted(arrays.items())]
        blocks.append(plain(["array", "shape", "dtype"], rows))
    return Group(*blocks)


def _lines(value: dict[str, Any], prefix: str = "") -> list[list[str]]:
    """Names and values; parts of a part as `part.name`, an identity as its reference."""
    lines: list[list[str]] = []
    for name, part in value.items():
        if isinstance(part, dict) and set(part) == set(IDENTITY):
            lines.append([f"{prefix}{name}", f"{part['kind']}/{part['ref']}"])
        elif isinstance(part, dict):
            lines += _lines(part, f"{prefix}{name}.")
        elif isinstance(part, list):
            lines.append([f"{prefix}{name}", ", ".join(map(str, part)) or "–"])
        else:
            lines.append([f"{prefix}{name}", _value(part) if part not in (None, "") else "–"])
    return lines
