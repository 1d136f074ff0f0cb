"""One run of a study: found, resumed or made, and what became of it."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from stages.artifacts.partial import Busy, Taken
from stages.artifacts.store import Artifact
from stages.engines import playing
from stages.engines.engine import Engine
from stages.engines.study import Point, Study
from stages.errors import Interrupted, UserError, sentence
from stages.observer import Observer

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


def there(whole: Study, point: Point) -> bool:
    """Whether the store has all of this run."""
    found = whole.best(point)
    return found is not None and found.covers(point.spec.settings)


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
        for each in (error, error.__cause__):  # their frames may hold memory that the next run needs
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
