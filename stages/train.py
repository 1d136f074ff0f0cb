"""Stage three: data and latents -> runs. Which runs a study has, which of them the store has, and how each missing one is made."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stages import jobs, plugins, trackers
from stages.artifacts import partial
from stages.artifacts.partial import Busy, Taken, find_unfinished
from stages.artifacts.refs import Ref
from stages.artifacts.schemas import read_facts
from stages.artifacts.store import Artifact, Store
from stages.artifacts.studies import announced
from stages.engines import playing
from stages.engines.assembly import assemble
from stages.engines.engine import Engine, Local, open_engine
from stages.engines.plan import NAMING, RunSpec, planned, planned_again
from stages.engines.preview import previews
from stages.engines.study import Point, Study
from stages.errors import Failed, Interrupted, UserError, sentence
from stages.observer import SILENT, Observer, Several
from stages.settings import Train

DONE, THERE, FAILED, STOPPED, ELSEWHERE, WAITING = "done", "there already", "failed", "stopped", "elsewhere", "waiting"


@dataclass(frozen=True)
class Outcome:
    """What became of a run of a study: one of the words above. Its artifact if it is there, else why not."""

    name: str
    state: str
    artifact: Artifact | None = None
    error: BaseException | None = None

    @property
    def ref(self) -> str:
        """Of the artifact, or of the run that can be tried again; else empty."""
        return str(self.artifact.ref if self.artifact else getattr(self.error, "ref", ""))

    @property
    def reason(self) -> str:
        return sentence(self.error) if self.error else ""


def train(
    store: Store, name: str | None, settings: Train, hyper: Mapping[str, Mapping[str, Any]], observer: Observer = SILENT,
    again: bool = False,
) -> list[Artifact]:  # fmt: skip
    """The runs of a study; those that are missing are made. `hyper` holds what differs from the defaults, by algorithm.

    Raises UserError for bad input, or once all that can be made is there, for the first run that failed; Interrupted when
    the observer asks to stop.
    """
    outcomes = study(store, name, settings, hyper, observer, again)
    for outcome in sorted(outcomes, key=lambda outcome: outcome.state != STOPPED):
        if outcome.error:
            raise outcome.error
    return [outcome.artifact for outcome in outcomes if outcome.artifact]


def study(
    store: Store, name: str | None, settings: Train, hyper: Mapping[str, Mapping[str, Any]], observer: Observer = SILENT,
    again: bool = False, stop_on_error: bool = False, wait: bool = False,
) -> list[Outcome]:  # fmt: skip
    """Every algorithm with every choice of hyperparameters and every seed. Finished runs are kept, unfinished ones resumed.

    `again` makes a new version of finished ones. A run that fails ends no other, unless `stop_on_error`. With `wait`, runs
    that other processes work on are waited for, and taken over if their process dies. Raises UserError for bad input;
    nothing is written then.
    """
    devices = jobs.places(settings)
    own = replace(settings, device=devices[0])
    watching = Several(observer, *trackers.chosen(settings.track, observer.note))
    with open_engine(own, watching) as engine, announced(store) as tell_waiting:
        whole = Study(store, planned(store, own, hyper, engine.data), name)
        tell_sources(whole, settings, observer)
        turn = Turn(whole, again, stop_on_error, wait, tell_waiting)
        check_algorithms([point.spec for point in turn.missing()])
        if len(devices) > 1 and len(whole.points) > 1:
            outcomes = side_by_side(turn, jobs.Plan(store, name, own, hyper, again, plugins.named()), devices, observer)
        else:
            outcomes = one_by_one(turn, engine, watching)
    if all(one.state == FAILED and not one.ref and one.error for one in outcomes):
        raise next(one.error for one in outcomes if one.error)
    return outcomes


@dataclass(frozen=True)
class Turn:
    """A study, and how it is to be gone through this time."""

    study: Study
    again: bool
    stop_on_error: bool
    wait: bool
    tell_waiting: Callable[[Sequence[str]], None]

    def missing(self) -> list[Point]:
        """The runs that are to be made."""
        return [point for point in self.study.points if self.again or not there(self.study, point)]

    def ends_with(self, state: str) -> bool:
        """Whether no further run begins after one that came to this."""
        return state == STOPPED or (self.stop_on_error and state == FAILED)

    def outcomes(self, found: Mapping[str, Outcome]) -> list[Outcome]:
        return [found.get(point.name) or Outcome(point.name, WAITING) for point in self.study.points]


def one_by_one(turn: Turn, engine: Engine, observer: Observer) -> list[Outcome]:
    """The runs, made by this process."""
    points, missing = turn.study.points, [point.name for point in turn.missing()]
    outcomes: dict[str, Outcome] = {}
    left = list(enumerate(points, 1))
    while left:
        for number, point in left:
            missing = [name for name in missing if name != point.name]
            turn.tell_waiting(missing)
            observer.next_run(number, len(points), len(missing))
            again = turn.again and point.name not in outcomes
            outcomes[point.name] = tried(turn.study, point, engine, observer, again)
            if turn.ends_with(outcomes[point.name].state):
                return turn.outcomes(outcomes)
        before = len(left)
        left = [(n, point) for n, point in left if turn.wait and outcomes[point.name].state == ELSEWHERE]
        if left:
            if before == len(points):
                observer.note(f"Waiting for {len(left)} of {len(points)} runs that other processes are working on.")
            time.sleep(jobs.PAUSE)
    return turn.outcomes(outcomes)


def side_by_side(turn: Turn, plan: jobs.Plan, devices: Sequence[str], observer: Observer) -> list[Outcome]:
    """The runs, dealt to a process a device; this process only deals them."""
    store, points, missing = plan.store, turn.study.points, [point.name for point in turn.missing()]
    sources = {role: str(source.ref) for role, source in points[0].spec.sources.items()}
    latents = next((str(p.spec.latents.ref) for p in points if p.spec.latents), plan.settings.latents)
    plan = replace(plan, settings=replace(plan.settings, data=sources["data"], latents=latents))
    outcomes = {
        point.name: Outcome(point.name, THERE, store.open(found.ref))
        for point in points
        if point.name not in missing and (found := turn.study.best(point))
    }
    with closing(jobs.Crew(plan, devices[: max(1, len(missing))], observer)) as crew:
        results = crew.run(missing, observer, ELSEWHERE, lambda one: turn.ends_with(one.state), turn.tell_waiting)
    for name, result in results.items():
        kind = {STOPPED: Interrupted, ELSEWHERE: Busy}.get(result.state, UserError)
        error = Failed(result.reason, result.ref) if result.ref else kind(result.reason)
        outcomes[name] = (
            Outcome(name, result.state, store.open(result.ref, "run"))
            if result.state in (DONE, THERE)
            else Outcome(name, result.state, error=error)
        )
    return turn.outcomes(outcomes)


@contextmanager
def member(plan: jobs.Plan, observer: Observer) -> Iterator[Callable[[str, bool], jobs.Result]]:
    """What makes a run by its name, and perhaps anew, in one of several processes."""
    observer = Several(observer, *trackers.chosen(plan.settings.track, observer.note))
    with open_engine(plan.settings, observer) as engine:
        whole = Study(plan.store, planned(plan.store, plan.settings, plan.hyper, engine.data), plan.name)
        points = {point.name: point for point in whole.points}

        def run(name: str, again: bool) -> jobs.Result:
            outcome = tried(whole, points[name], engine, observer, again)
            return jobs.Result(outcome.state, outcome.ref, outcome.reason)

        yield run


def check_algorithms(specs: Sequence[RunSpec]) -> None:
    """UserError, before anything is made, if one of several algorithms can't federate these models or has too small a bank."""
    firsts = {spec.algorithm.name: spec for spec in reversed(specs)}
    for spec in firsts.values() if len(firsts) > 1 else ():
        assemble(spec, images=False, alike=True)


def there(whole: Study, point: Point) -> bool:
    """Whether the store has all of this run."""
    found = whole.best(point)
    return found is not None and found.covers(point.spec.settings)


def tell_sources(whole: Study, settings: Train, observer: Observer) -> None:
    """Say what is trained on where nobody said."""
    own = {role: source.ref for point in whole.points for role, source in point.spec.sources.items()}
    newest = [f"{role} {ref}" for role, ref in own.items() if getattr(settings, role) is None]
    if newest:
        observer.note(f"Training on {' and '.join(newest)}, the newest.")


def tried(whole: Study, point: Point, engine: Engine, observer: Observer, again: bool) -> Outcome:
    """One run of a study, found, resumed or made; whatever goes wrong is its outcome."""
    try:
        if observer.stop_requested():
            raise Interrupted(f"Stopped before {point.name}; the same command continues with it.")
        return made(whole, point, engine, observer, again)
    except Busy as error:
        return Outcome(point.name, ELSEWHERE, error=error)
    except (Interrupted, KeyboardInterrupt) as error:
        return Outcome(point.name, STOPPED, error=error)
    except (Exception, SystemExit) as error:
        for each in (error, error.__cause__):  # what their frames hold may be what the next run has no room for
            traceback.clear_frames(each.__traceback__ if each else None)
        return Outcome(point.name, FAILED, error=error)


def made(whole: Study, point: Point, engine: Engine, observer: Observer, again: bool) -> Outcome:
    """The run of a point. Raises Busy if another process is working on it."""
    store = whole.store
    while True:
        found = whole.best(point, again)
        taken = lambda found=found: whole.best(point, again) != found  # noqa: E731
        try:
            if found is None:
                ready = playing.begin(store, point.name, point.spec, engine, taken)
            elif found.covers(point.spec.settings):
                return Outcome(point.name, THERE, store.open(found.ref))
            else:
                from_ = store.open(found.ref) if found.state == "done" else found.path
                ready = playing.resume(store, from_, point.spec.at(found.facts), engine, taken)
        except Taken:  # another process was quicker: look again
            continue
        except UserError:
            if found is None or found.path.exists():
                raise
            continue  # published or removed since
        return Outcome(point.name, DONE, playing.finish(store, ready, engine, observer))


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
    name: str | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """What each run of a study would be and cost, found by a few steps of every architecture; nothing is written."""
    trackers.chosen(settings.track, SILENT.note)
    if settings.federation:
        raise UserError(
            "A dry run needs the data on this machine; leave out `federation`, and name the clients' data with `data`."
        )
    devices = jobs.places(settings)
    settings = replace(settings, device=devices[0], jobs=len(devices))
    whole = Study(store, planned(store, settings, hyper, Local().data), name)
    found = previews([point.spec for point in whole.points], observer)
    return [
        {"run": point.name, "there": there(whole, point), **facts}
        for point, facts in zip(whole.points, found, strict=True)
    ]
