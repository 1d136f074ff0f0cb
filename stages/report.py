"""Stage four: runs -> a table, figures and a page to read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from stages.artifacts import partial, partial_run, schemas, seal
from stages.artifacts.partial_run import PartialRun
from stages.artifacts.refs import Ref
from stages.artifacts.schemas import Run
from stages.artifacts.store import Artifact, Store, software
from stages.errors import UserError, printable
from stages.observer import SILENT, Observer
from stages.reporting import figures, formats, page, paper, tidy
from stages.reporting.figures import Labels
from stages.reporting.rows import grouped, latest, row
from stages.settings import Report


def report(store: Store, name: str, settings: Report, observer: Observer = SILENT) -> Artifact:
    """Write the report artifact `name` of the chosen runs, and its page as a plain file beside it.

    The artifact's `rows` attribute is the table as JSON. A report made before of the same runs is returned as it is.
    UserError if there are no runs, or if they contradict each other.
    """
    runs = read(chosen(store, settings.runs, settings.unfinished), observer)
    if not settings.runs:
        runs = latest(runs)
    groups = grouped(runs)
    choices = [name for group in groups for name in group.choices]
    columns = formats.chosen_columns(settings.columns, choices) if settings.columns else []
    pending = unfinished(store, runs)
    finished = [run.artifact for run in runs if not isinstance(run.artifact, PartialRun)]
    chosen_so = {
        "runs": [str(run.ref) for run in finished], "columns": columns,
        "unfinished": [f"{one['run']} ({one['done']}, {one['state']})" for one in pending],
        "drawn": [f"{run.artifact.ref} (round {len(run.joined)})" for run in runs if run.artifact not in finished],
    }  # fmt: skip
    made_from = {f"run-{number}": run for number, run in enumerate(finished)}
    sources = lineage(store, runs)
    if made := _made_before(store, name, chosen_so, made_from):
        return made
    rows = [row(group) for group in groups]
    labels = [label_counts(data) for (kind, _), data in sources.items() if kind == "data" and data]
    pictures = figures.pictures(groups, labels)
    with store.write("report", name, chosen_so, None, made_from) as writer:
        html = page.render(
            name, writer.attributes["created"], groups, rows, pictures, labels, sources, columns, pending
        )
        writer.attributes["rows"] = rows
        writer.array("page", _bytes(html))
        for picture in pictures:
            writer.array(f"figures/{picture.name}", _bytes(picture.svg))
        artifact = writer.publish()
    lay_beside(store, artifact.ref, html)
    return artifact


def unfinished(store: Store, runs: list[Run]) -> list[dict[str, Any]]:
    """The runs on the same data that are in progress, stopped or failed, with how far they are and why, also those that are `drawn`."""
    data, found = [run.artifact.sources.get("data") for run in runs], []
    drawn = {str(run.artifact.ref) for run in runs}
    for path in partial.unfinished(store):
        try:
            facts = partial.facts(path)
        except UserError:  # damaged, which `train --resume` reports
            continue
        if facts.get("made_from", {}).get("data") in data:
            failed = partial.failure(path)
            done = (
                f"{failed['rounds'] if failed else partial.progress(path)} of {facts['settings'].get('rounds')} rounds"
            )
            ref = f"{path.parent.name}@{path.stem}"
            found.append({
                "run": ref, "drawn": ref in drawn, "algorithm": facts["algorithm"], "seed": facts["seed"],
                "done": done, "state": "failed" if failed else "unfinished", "why": failed["sentence"] if failed else "",
            })  # fmt: skip
    return found


def _made_before(store: Store, name: str, settings: dict[str, Any], made_from: dict[str, Artifact]) -> Artifact | None:
    """The newest report of that name, its page beside it, if it is of the same runs and by the same program."""
    if not store.versions("report", name):
        return None
    made = store.open(name, "report")
    identities = {role: run.identity for role, run in made_from.items()}
    if (made.settings, made.sources, made.attributes["software"]) != (settings, identities, software()):
        return None
    if not page_path(store, made.ref).exists():
        lay_beside(store, made.ref, schemas.read(made).page)
    return made


def tidy_table(
    store: Store, runs: Iterable[str] = (), observer: Observer = SILENT, unfinished: bool = False
) -> tidy.Columns:
    """The numbers of runs (default: all of the newest data) in long form, for other tools; nothing is written."""
    found = read(chosen(store, runs, unfinished), observer)
    return tidy.table(found if runs else latest(found))


def beside_paper(store: Store, table: str, runs: Iterable[str] = (), observer: Observer = SILENT) -> dict[str, Any]:
    """A table of the FedKTL paper as JSON, each cell with what the runs (default: all in the store) measured.

    Which run belongs to which cell follows from what the run, its data and its latents record. Nothing is written.
    UserError for an unknown table.
    """
    cells = paper.cells(table)
    artifacts = chosen(store, runs) if runs else [store.open(ref) for ref in store.refs("run")]
    recorded = {artifact.ref: paper.recorded(artifact, sources(store, artifact)) for artifact in artifacts}
    fitting = [artifact for artifact in artifacts if any(cell.fits(recorded[artifact.ref]) for cell in cells)]
    return paper.compared(table, [(run, recorded[run.artifact.ref]) for run in read(fitting, observer)])


def sources(store: Store, run: Artifact) -> dict[str, Artifact]:
    """What a run was made from, by kind, as far as the store still has it."""
    found = {}
    for kind, made in run.sources.items():
        ref = Ref.parse(made["ref"])
        if ref.version in store.versions(kind, ref.name) and (source := store.open(ref, kind)).identity == made:
            found[kind] = source
    return found


def chosen(store: Store, refs: Iterable[str], unfinished: bool = False) -> list[Artifact]:
    """The named runs, each once; without names all runs of the newest data artifact, oldest first, the unfinished last."""
    if refs:
        return list({run.ref: run for run in (_named(store, ref, unfinished) for ref in refs)}.values())
    data = store.newest("data")
    runs = [store.open(ref) for ref in store.refs("run")]
    runs.sort(key=lambda run: (run.attributes["created"], run.ref.name, run.ref.version))
    made = [run for run in [*runs, *(_going(store) if unfinished else ())] if run.sources.get("data") == data.identity]
    if not made:
        raise UserError(
            f"No run was made from {data.ref}, the newest data; train on it with `fedktl train`, or name the runs to report."
        )
    return made


def _going(store: Store) -> list[Artifact]:
    """The unfinished runs that have done a round; one that can't be read is left out: `train --resume` reports it."""
    found: list[Artifact] = []
    for path in partial.unfinished(store):
        with suppress(UserError):
            if run := partial_run.opened(store, path):
                schemas.read_facts(run)
                found.append(run)
    return found


def _named(store: Store, text: str, unfinished: bool) -> Artifact:
    """The run that a reference refers to; UserError for one that is not finished, unless it may be `unfinished`."""
    going = partial.find_unfinished(store, Ref.parse(text))
    if going is None:
        return store.open(store.resolve(text, "run"))
    if unfinished and (run := partial_run.opened(store, going)):
        return run
    done = partial.progress(going)
    draw = "; `unfinished` draws them" if done else ""
    raise UserError(f"{text} is not finished ({done} rounds are done{draw}); finish it with `resume={text}`.")


def read(artifacts: list[Artifact], observer: Observer) -> list[Run]:
    observer.start("reading runs", len(artifacts))
    runs = []
    for artifact in artifacts:
        runs.append(schemas.read_run(artifact))
        observer.advance(run=str(artifact.ref))
    observer.finish()
    return runs


def lineage(store: Store, runs: list[Run]) -> dict[tuple[str, str], Artifact | None]:
    """What the runs were made from, by kind and reference; None for an artifact that was removed.

    UserError if a reference now names a different artifact than the one that a run was made from.
    """
    found: dict[tuple[str, str], Artifact | None] = {}
    for run in runs:
        for kind, made in run.artifact.sources.items():
            ref = Ref.parse(made["ref"])
            if ref.version not in store.versions(kind, ref.name):
                found[kind, made["ref"]] = None
                continue
            source = store.open(ref, kind)
            if source.identity != made:
                raise UserError(
                    f"Run {run.artifact.ref} was made from a different {made['ref']} than the {kind} in {store.root}; "
                    "put the original back, or remove this one to report without it."
                )
            found[kind, made["ref"]] = source
    return dict(sorted(found.items()))


def label_counts(data: Artifact) -> Labels:
    """Only the counts and names, since a report does not need the images."""
    counts, names = schemas.read_counts(data)
    return Labels(str(data.ref), [printable(name, 60) for name in names], counts)


def page_path(store: Store, ref: Ref) -> Path:
    """Where the page of a report lies as a plain HTML file."""
    return store.path(ref).with_suffix(".html")


def lay_missing(store: Store) -> list[Path]:
    """Write the pages that killed processes did not get to, for intact reports; returns their paths."""
    laid = []
    for ref in store.refs("report"):
        if not page_path(store, ref).exists():
            try:
                html = schemas.read_report(store.open(ref)).page
            except UserError:  # damaged, which `verify` reports
                continue
            lay_beside(store, ref, html)
            laid.append(page_path(store, ref))
    return laid


def lay_beside(store: Store, ref: Ref, html: str) -> None:
    """Write the page beside its artifact, by one rename."""
    path = page_path(store, ref)
    draft = path.with_suffix(".draft")
    with store.writable(path.parent):
        draft.write_text(html, encoding="utf-8")
        seal.sync(draft)
        os.replace(draft, path)


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), dtype=np.uint8)
