"""Stage three, the story: data and latents -> runs. Plan the runs of a study, make those that are missing, say what became of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stages import jobs, plugins, trackers
from stages.artifacts import partial
from stages.artifacts.partial import find_unfinished
from stages.artifacts.refs import Ref
from stages.artifacts.schemas import read_facts
from stages.artifacts.store import Artifact, Store
from stages.artifacts.studies import announced
from stages.dealing import Turn, one_by_one, side_by_side
from stages.engines import playing
from stages.engines.assembly import assemble
from stages.engines.engine import Local, check_engine, open_engine
from stages.engines.making import FAILED, STOPPED, Outcome, there
from stages.engines.plan import NAMING, RunSpec, planned, planned_again
from stages.engines.preview import previews
from stages.engines.study import Study
from stages.errors import UserError
from stages.observer import SILENT, Observer, Several
from stages.settings import Train


def train(
    store: Store, name: str | None, settings: Train, hyper: Mapping[str, Mapping[str, Any]], observer: Observer = SILENT,
    again: bool = False, grid: Mapping[str, Any] | None = None,
) -> list[Artifact]:  # fmt: skip
    """The runs of a study; those that are missing are made. `hyper` holds what differs from the defaults, by algorithm.

    `grid` are settings with several values, as hyperparameters may have them: every combination is a run.

    Raises UserError for bad input, or once all that can be made is there, for the first run that failed; Interrupted when
    the observer asks to stop.
    """
    outcomes = study(store, name, settings, hyper, observer, again, grid=grid)
    for outcome in sorted(outcomes, key=lambda outcome: outcome.state != STOPPED):
        if outcome.error:
            raise outcome.error
    return [outcome.artifact for outcome in outcomes if outcome.artifact]


def study(
    store: Store, name: str | None, settings: Train, hyper: Mapping[str, Mapping[str, Any]], observer: Observer = SILENT,
    again: bool = False, stop_on_error: bool = False, wait: bool = False, grid: Mapping[str, Any] | None = None,
) -> list[Outcome]:  # fmt: skip
    """Every algorithm with every choice of settings, hyperparameters and seed. Finished runs are kept, unfinished ones resumed.

    `again` makes a new version of finished ones. A run that fails does not end the others, unless `stop_on_error`. With `wait`, runs
    that other processes work on are waited for, and taken over if their process dies. Raises UserError for bad input;
    nothing is written then.
    """
    devices = jobs.places(settings)
    own = replace(settings, device=devices[0])
    watching = Several(observer, *trackers.chosen(settings.track, observer.note))
    with open_engine(own, watching) as engine, announced(store) as tell_waiting:
        whole = Study(store, planned(store, own, hyper, engine.data, grid), name)
        tell_sources(whole, settings, observer)
        turn = Turn(whole, again, stop_on_error, wait, tell_waiting)
        check_algorithms([point.spec for point in turn.missing()])
        if len(devices) > 1 and len(whole.points) > 1:
            plan = jobs.Plan(store, name, own, hyper, grid, again, plugins.named())
            outcomes = side_by_side(turn, plan, devices, observer)
        else:
            outcomes = one_by_one(turn, engine, watching)
    if all(one.state == FAILED and not one.ref and one.error for one in outcomes):
        raise next(one.error for one in outcomes if one.error)
    return outcomes


def check_algorithms(specs: Sequence[RunSpec]) -> None:
    """UserError, before anything is made, if one of several kinds of runs can't be assembled, for example because its bank is too small."""
    firsts = {(spec.algorithm.name, spec.settings): spec for spec in reversed(specs)}
    for spec in firsts.values() if len(firsts) > 1 else ():
        assemble(spec, images=False, alike=True)


def tell_sources(whole: Study, settings: Train, observer: Observer) -> None:
    """Name the data and latents that the user did not."""
    own = {role: source.ref for point in whole.points for role, source in point.spec.sources.items()}
    newest = [f"{role} {ref}" for role, ref in own.items() if getattr(settings, role) is None]
    if newest:
        observer.note(f"Training on {' and '.join(newest)}, the newest.")


def resume(store: Store, ref: str, changes: Mapping[str, Any], observer: Observer = SILENT) -> Artifact:
    """Continue an unfinished run, or a finished one for more rounds (which makes its next version).

    Code that the run names is loaded only if `changes` name it, too, in `algorithm`, `models` or `generator`.
    """
    wanted = Ref.parse(ref)
    path = find_unfinished(store, wanted)
    source = path or store.open(wanted, "run")
    facts = partial.facts(source) if isinstance(source, Path) else read_facts(source)
    with plugins.only(*map(changes.get, NAMING)):
        spec = planned_again(store, facts, changes)
        if isinstance(source, Artifact) and spec.settings.rounds <= (
            done := facts.get("rounds", facts["settings"]["rounds"])
        ):
            raise UserError(f"{source.ref} has finished its {done} rounds; to continue, give more `rounds`.")
        observer = Several(observer, *trackers.chosen(spec.settings.track, observer.note))
        with open_engine(spec.settings, observer) as engine:
            return playing.finish(store, playing.resume(store, source, spec, engine), engine, observer)


def dry_run(
    store: Store, settings: Train, hyper: Mapping[str, Mapping[str, Any]], observer: Observer = SILENT,
    name: str | None = None, grid: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """What each run of a study would be and cost, found by a few steps of every architecture; nothing is written."""
    trackers.chosen(settings.track, SILENT.note)
    if settings.federation:
        raise UserError(
            "A dry run needs the data on this machine; leave out `federation`, and name the clients' data with `data`."
        )
    check_engine(settings)
    devices = jobs.places(settings)
    settings = replace(settings, device=devices[0], jobs=len(devices))
    whole = Study(store, planned(store, settings, hyper, Local().data, grid), name)
    found = previews([point.spec for point in whole.points], observer)
    return [
        {"run": point.name, "there": there(whole, point), **facts}
        for point, facts in zip(whole.points, found, strict=True)
    ]
