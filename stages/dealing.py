"""The runs of a study, one after the other in this process, or dealt to several."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

from stages import jobs, trackers
from stages.artifacts.partial import Busy
from stages.engines.engine import Engine, open_engine
from stages.engines.making import DONE, ELSEWHERE, FAILED, STOPPED, THERE, WAITING, Outcome, there, tried
from stages.engines.plan import planned
from stages.engines.study import Point, Study
from stages.errors import Failed, Interrupted, UserError
from stages.observer import Observer, Several


@dataclass(frozen=True)
class Turn:
    """A study, and how its runs are made this time."""

    study: Study
    again: bool
    stop_on_error: bool
    wait: bool
    tell_waiting: Callable[[Sequence[str]], None]

    def missing(self) -> list[Point]:
        """The runs that are to be made."""
        return [point for point in self.study.points if self.again or not there(self.study, point)]

    def ends_with(self, state: str) -> bool:
        """Whether no further run begins after this outcome."""
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
    """The runs, dealt to one process per device; this process only deals them."""
    store, points, missing = plan.store, turn.study.points, [point.name for point in turn.missing()]
    sources = {role: str(source.ref) for role, source in points[0].spec.sources.items()}
    latents = next((str(p.spec.latents.ref) for p in points if p.spec.latents), plan.settings.latents)
    plan = replace(plan, settings=replace(plan.settings, data=sources["data"], latents=latents))
    outcomes = {
        point.name: Outcome(point.name, THERE, store.open(found.ref))
        for point in points
        if point.name not in missing and (found := turn.study.best(point))
    }
    with closing(jobs.Crew(member, plan, devices[: max(1, len(missing))], observer)) as crew:
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
    """What makes a run by its name, or a new version of it, in one of several processes."""
    observer = Several(observer, *trackers.chosen(plan.settings.track, observer.note))
    with open_engine(plan.settings, observer) as engine:
        specs = planned(plan.store, plan.settings, plan.hyper, engine.data, plan.grid)
        whole = Study(plan.store, specs, plan.name)
        points = {point.name: point for point in whole.points}

        def run(name: str, again: bool) -> jobs.Result:
            outcome = tried(whole, points[name], engine, observer, again)
            return jobs.Result(outcome.state, outcome.ref, outcome.reason)

        yield run
