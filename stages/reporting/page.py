"""The page of a report: one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.artifacts.store import Artifact
from stages.reporting import formats, numbers, pairs
from stages.reporting.diagnosis import diagnose
from stages.reporting.figures import Labels, Picture
from stages.reporting.matrix import matrix
from stages.reporting.rows import Group, configuration
from stages.reporting.summary import summary
from stages.reporting.theme import variable

if TYPE_CHECKING:
    from jinja2 import Template

TIMES = ("seconds", "memory")  # columns of the table that have a section of their own
SCORES = ("last", "selected", "best", "worst")
NEEDS: dict[str, Callable[[dict[str, Any]], object]] = {  # settings that mean something only beside others
    "pairs": lambda chosen: chosen["latents"],
    "pairs_per_class": lambda chosen: chosen["latents"] and chosen.get("pairs") == "bank",
    "pair_pixels": lambda chosen: chosen["latents"] and chosen.get("pairs") == "live",
    "pair_resizing": lambda chosen: chosen["latents"] and chosen.get("pairs") == "live",
    "slow_rate": lambda chosen: chosen.get("slow_seconds"),
    "slow_seconds": lambda chosen: chosen.get("slow_rate"),
}
PARTS = Path(__file__).parent


@dataclass(frozen=True)
class Source:
    """An artifact in the lineage of the report."""

    kind: str
    ref: str
    seal: str
    made_from: str
    seed: int | None
    created: str


def render(
    name: str,
    created: str,
    groups: list[Group],
    rows: list[dict[str, Any]],
    pictures: Sequence[Picture],
    labels: Sequence[Labels],
    sources: Mapping[tuple[str, str], Artifact | None],
    columns: Sequence[str] = (),
    unfinished: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The page as HTML. `sources` are the data and latents by kind and reference, None for one that is gone.

    `columns` are those of the table of results; default: what the page does not say elsewhere. `unfinished` are runs
    that are not done: run, whether it is drawn, algorithm, seed, done, state, why.
    """
    from markupsafe import Markup

    script = _part("page.js")
    across, findings = matrix(rows), diagnose(groups, {one.data: one.class_names for one in labels})
    return _template().render(
        name=name,
        created=created,
        title=_title(rows),
        summary=summary(rows),
        css=Markup(_part("page.css")),
        script=Markup(script),
        script_hash=Markup(_digest(script)),
        entries=[
            {"label": group.label, "colour": variable(index), "row": row, "findings": found}
            for index, (group, row, found) in enumerate(zip(groups, rows, findings, strict=True))
        ],
        matrix=across if len(across.columns) > 1 else None,
        table=_table(rows, columns),
        unfinished=unfinished,
        sections=[{**vars(picture), "svg": Markup(picture.inline)} for picture in pictures],  # what Matplotlib escaped
        galleries=_galleries(groups, labels),
        late=any(row["simulated_seconds_per_round"] for row in rows),
        partly=any(row["evaluated_clients"] is not None for row in rows),
        deltas=sorted({row["delta"] for row in rows if row["epsilon"] is not None and row["delta"] is not None}),
        phases=list({phase: None for row in rows for phase in row["seconds_per_round"]}),
        settings=_settings(groups),
        sources=_lineage(groups, sources),
        software=_software(groups),
    )


def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters.update(
        seconds=numbers.seconds, memory=numbers.memory, accuracy=formats.accuracy,
        sorted_by=lambda order: "" if order is None else order,
    )  # fmt: skip
    return environment.from_string(_part("page.html"))


def _digest(script: str) -> str:
    """What the page's policy allows to run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _part(name: str) -> str:
    return (PARTS / name).read_text(encoding="utf-8")


def _title(rows: list[dict[str, Any]]) -> str:
    algorithms = list(dict.fromkeys(row["algorithm"] for row in rows))
    data = list(dict.fromkeys(row["data"] for row in rows))
    return f"{_listed(algorithms)} on {_listed(data)}"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _table(rows: list[dict[str, Any]], columns: Sequence[str]) -> dict[str, Any]:
    """Columns and cells, without the times unless they are asked for; the best of each accuracy is marked.

    Data and models have columns only where they differ; the title and the settings say them anyway.
    """
    alike = [name for name in ("data", "models") if len({row[name] for row in rows}) == 1]
    names = list(columns) or [name for name in formats.standard(rows) if name not in (*TIMES, *alike)]
    finished = [row for row in rows if not row["planned_rounds"]]
    comparable = len(finished) > 1 and len({row["data"] for row in finished}) == 1
    best = {}
    for name in SCORES if comparable else ():
        orders = [formats.order(row, name) for row in finished]
        best[name] = None if None in orders else max(orders)  # type: ignore[type-var]

    def cell(row: dict[str, Any], name: str) -> dict[str, Any]:
        order = formats.order(row, name)
        return {
            "text": formats.column(name).text(row), "order": order, "words": name in formats.WORDS,
            "best": order is not None and best.get(name) == order and not row["planned_rounds"],
        }  # fmt: skip

    headers = [{"header": formats.column(name).header, "words": name in formats.WORDS} for name in names]
    return {"columns": headers, "rows": [[cell(row, name) for name in names] for row in rows]}


def _galleries(groups: list[Group], labels: Sequence[Labels]) -> list[dict[str, Any]]:
    """The generated pairs of the first seed of each group that has any."""
    names = {one.data: one.class_names for one in labels}
    with_pairs = sum(len(group.runs[0].pair_rounds) > 0 for group in groups)
    galleries = [
        {
            "label": group.label,
            "run": str(group.runs[0].artifact.ref),
            "sheets": pairs.sheets(group.runs[0], names.get(group.facts["data"], []), with_pairs or 1),
        }
        for group in groups
    ]
    return [gallery for gallery in galleries if gallery["sheets"]]


def _settings(groups: list[Group]) -> list[dict[str, Any]]:
    """Device and settings that apply with their values in each group; `shared` where that is one and the same."""
    devices = [sorted({run.facts["device"] for run in group.runs}) for group in groups]
    chosen = [{**_applying(group), "device": device} for group, device in zip(groups, devices, strict=True)]
    names = dict.fromkeys(name for configured in chosen for name in configured if name != "algorithm")
    table = []
    for name in names:
        values = [_value(configured.get(name)) for configured in chosen]
        if set(values) != {"–"}:
            table.append({"name": name, "values": values, "shared": len(set(values)) == 1})
    return table


def _applying(group: Group) -> dict[str, Any]:
    """What was chosen, without the settings that others leave without a meaning."""
    chosen = configuration(group.runs[0])
    return {name: value for name, value in chosen.items() if name not in NEEDS or NEEDS[name](chosen)}


def _value(value: object) -> str:
    """A setting as the command line would take it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "–" if value is None else str(value)


def _lineage(groups: list[Group], sources: Mapping[tuple[str, str], Artifact | None]) -> list[Source]:
    """Data and latents first, then the runs made from them."""
    runs = [run.artifact for group in groups for run in group.runs]
    seals = {(role, made["ref"]): made["seal"] for run in runs for role, made in run.sources.items()}
    found = []
    for (kind, ref), artifact in sources.items():
        if artifact is None:
            found.append(Source(kind, ref, seals[kind, ref], "–", None, "no longer in the store"))
            continue
        seed, created = artifact.attributes["seed"], artifact.attributes["created"]
        found.append(Source(kind, ref, seals[kind, ref], _settings_line(artifact.settings), seed, created))
    for run in runs:
        made_from = ", ".join(made["ref"] for made in run.sources.values())
        seed, created = run.attributes["seed"], run.attributes["created"]
        found.append(Source("run", str(run.ref), run.attributes["seal"], made_from, seed, created))
    return found


def _settings_line(settings: Mapping[str, Any]) -> str:
    """`dataset digits, partition dirichlet, beta 0.1`: what was set, without what was left empty or off."""
    return ", ".join(f"{name} {_value(value)}" for name, value in settings.items() if value not in (None, False, 0))


def _software(groups: list[Group]) -> list[str]:
    """The distinct sets of library versions that the runs were made with."""
    lines = (run.artifact.attributes["software"] for group in groups for run in group.runs if not group.planned)
    return list(dict.fromkeys(", ".join(f"{name} {version}" for name, version in line.items()) for line in lines))
