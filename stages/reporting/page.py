"""The page of a report: one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.artifacts.store import Artifact
from stages.reporting import formats, numbers, pairs
from stages.reporting.figures import Labels, Picture, colour
from stages.reporting.rows import Group, configuration

TIMES = ("Seconds/round", "Peak memory")  # columns of the table that have a section of their own


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
) -> str:
    """The page as HTML. `sources` are the data and latents by kind and reference, None for one that is gone."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters.update(seconds=numbers.seconds, memory=numbers.memory, accuracy=formats.accuracy)
    template = environment.from_string(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    return template.render(
        name=name,
        created=created,
        title=_title(rows),
        summary=_summary(groups, rows),
        entries=[
            {"label": group.label, "colour": colour(index), "row": row}
            for index, (group, row) in enumerate(zip(groups, rows, strict=True))
        ],
        table=_table(rows),
        sections=_sections(pictures),
        galleries=_galleries(groups, labels),
        late=any(row["simulated_seconds_per_round"] for row in rows),
        phases=list({phase: None for row in rows for phase in row["seconds_per_round"]}),
        settings=_settings(groups),
        sources=_lineage(groups, sources),
        software=_software(groups),
    )


def _title(rows: list[dict[str, Any]]) -> str:
    algorithms = list(dict.fromkeys(row["algorithm"] for row in rows))
    data = list(dict.fromkeys(row["data"] for row in rows))
    return f"{_listed(algorithms)} on {_listed(data)}"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _summary(groups: list[Group], rows: list[dict[str, Any]]) -> str:
    """One sentence: who is ahead at the last round, by how much on the same data, and what it sends."""
    order = sorted(range(len(rows)), key=lambda index: -rows[index]["last"]["mean"])
    first, row = groups[order[0]], rows[order[0]]
    reached = f"reaches {formats.accuracy(row['last'])} % test accuracy after {row['rounds']} rounds"
    rivals = [index for index in order[1:] if rows[index]["data"] == row["data"]]
    if rivals:
        lead = row["last"]["mean"] - rows[rivals[0]]["last"]["mean"]
        reached += f", {lead:.2f} points above {groups[rivals[0]].label}"
    clients = len(first.facts["architectures"])
    sent = row["upload_floats_per_round"]
    upload = f"together upload {numbers.count(sent)} floats a round" if sent else "upload nothing"
    return f"{first.label} {reached}; its {clients} clients {upload}."


def _table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Headers and cells without the times, and the (row, header) of the best of each accuracy.

    Data and models have columns only where they differ; the title and the settings say them anyhow.
    """
    headers, cells = formats.columns(rows)
    alike = [name for name in ("Data", "Models") if len({line[headers.index(name)] for line in cells}) == 1]
    shown = [column for column, header in enumerate(headers) if header not in (*TIMES, *alike)]
    scores = {
        "Last (%)": "last",
        "Validation-selected (%)": "validation_selected",
        "Best on test (%)": "best_on_test",
        "Worst client (%)": "worst_client",
    }
    best = set()
    comparable = len(rows) > 1 and len({row["data"] for row in rows}) == 1
    for header, score in scores.items():
        values = [value["mean"] if isinstance(value := row[score], dict) else value for row in rows]
        if comparable and None not in values:
            best |= {(index, header) for index, value in enumerate(values) if value == max(values)}
    return {
        "headers": [headers[column] for column in shown],
        "texts": ("Algorithm", "Data", "Models"),
        "rows": [[(headers[column], line[column]) for column in shown] for line in cells],
        "best": best,
    }


def _sections(pictures: Sequence[Picture]) -> list[dict[str, Any]]:
    """Figures as images: what is inside an image can't reach the page, whatever the names in it are."""
    return [
        {
            "title": picture.title,
            "caption": picture.caption,
            "wide": picture.wide,
            "image": "data:image/svg+xml;base64," + base64.b64encode(picture.svg.encode()).decode(),
        }
        for picture in pictures
    ]


def _galleries(groups: list[Group], labels: Sequence[Labels]) -> list[dict[str, Any]]:
    """The generated pairs of the first seed of each group that has any."""
    names = {one.data: one.class_names for one in labels}
    galleries = [
        {
            "label": group.label,
            "run": str(group.runs[0].artifact.ref),
            "sheets": pairs.sheets(group.runs[0], names.get(group.facts["data"], [])),
        }
        for group in groups
    ]
    return [gallery for gallery in galleries if gallery["sheets"]]


def _settings(groups: list[Group]) -> list[dict[str, Any]]:
    """Device and settings but the algorithm with their values in each group; `shared` where that is one and the same."""
    devices = [sorted({run.facts["device"] for run in group.runs}) for group in groups]
    chosen = [{**configuration(group.runs[0]), "device": device} for group, device in zip(groups, devices, strict=True)]
    names = dict.fromkeys(name for configured in chosen for name in configured if name != "algorithm")
    table = []
    for name in names:
        values = [_value(configured.get(name, "–")) for configured in chosen]
        table.append({"name": name, "values": values, "shared": len(set(values)) == 1})
    return table


def _value(value: Any) -> str:
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
    lines = (run.artifact.attributes["software"] for group in groups for run in group.runs)
    return list(dict.fromkeys(", ".join(f"{name} {version}" for name, version in line.items()) for line in lines))
