"""How a stage reports progress. The terminal implements this; without an observer a stage is silent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Observer:
    """Receives progress. A stage may call every method at any time, and each must return quickly."""

    def start(self, task: str, total: int, done: int = 0) -> None:
        """A task of `total` steps starts; `done` of them are already finished (in a resumed run)."""

    def advance(self, steps: int = 1, **facts: object) -> None:
        """`steps` more are done; `facts` are values to show beside the bar, by name."""

    def finish(self) -> None:
        """The current task is finished."""

    def note(self, message: str) -> None:
        """A sentence the user should read; never needed to understand the result."""

    def stop_requested(self) -> bool:
        """True once the user has asked to stop; a long stage then ends at its next safe point."""
        return False

    def next_run(self, number: int, total: int, waiting: int) -> None:
        """Run `number`, from 1, of the `total` runs of a study is made next; `waiting` runs come after it."""

    def lane(self, number: int) -> Observer:
        """The observer of one of several processes that work side by side."""
        return self

    def begin_run(self, run: str, facts: Mapping[str, Any], rounds: int) -> None:
        """A run, by its reference, begins, or continues after `rounds`; `facts` are its settings, hyperparameters, sources."""

    def end_round(self, line: Mapping[str, Any]) -> None:
        """A round of the run is over: its number, 0 for the untrained models, and what was measured, by name."""

    def end_run(self, state: str) -> None:
        """The run is `done`, `stopped` or `failed`."""


SILENT = Observer()


class Several(Observer):
    """Several observers as one."""

    def __init__(self, *observers: Observer):
        self._observers = observers

    def start(self, task: str, total: int, done: int = 0) -> None:
        for observer in self._observers:
            observer.start(task, total, done)

    def advance(self, steps: int = 1, **facts: object) -> None:
        for observer in self._observers:
            observer.advance(steps, **facts)

    def finish(self) -> None:
        for observer in self._observers:
            observer.finish()

    def note(self, message: str) -> None:
        for observer in self._observers:
            observer.note(message)

    def stop_requested(self) -> bool:
        return any(observer.stop_requested() for observer in self._observers)

    def next_run(self, number: int, total: int, waiting: int) -> None:
        for observer in self._observers:
            observer.next_run(number, total, waiting)

    def begin_run(self, run: str, facts: Mapping[str, Any], rounds: int) -> None:
        for observer in self._observers:
            observer.begin_run(run, facts, rounds)

    def end_round(self, line: Mapping[str, Any]) -> None:
        for observer in self._observers:
            observer.end_round(line)

    def end_run(self, state: str) -> None:
        for observer in self._observers:
            observer.end_run(state)
