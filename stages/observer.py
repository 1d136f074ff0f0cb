"""How a stage tells what it is doing. The terminal implements this; without one a stage is silent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Observer:
    """Receives progress. Every method may be called from the stage at any time and must return quickly."""

    def start(self, task: str, total: int, done: int = 0) -> None:
        """A task of `total` steps begins, `done` of which lie behind already (a resumed run)."""

    def advance(self, steps: int = 1, **facts: object) -> None:
        """`steps` more are done; `facts` are what is worth showing beside the bar, by name."""

    def finish(self) -> None:
        """The task begun last is over."""

    def note(self, message: str) -> None:
        """A sentence the user should read; never needed to understand the result."""

    def stop_requested(self) -> bool:
        """True once the user asked to stop; a long stage then ends at its next safe point."""
        return False

    def begin_run(self, run: str, facts: Mapping[str, Any], rounds: int) -> None:
        """A run, by its reference, begins, or goes on after `rounds`; `facts` are its settings, hyperparameters, sources."""

    def end_round(self, line: Mapping[str, Any]) -> None:
        """A round of the run is over: its number, 0 for the untrained models, and what was measured, by name."""

    def end_run(self, state: str) -> None:
        """The run is `done`, `stopped` or `failed`."""


SILENT = Observer()


class Several(Observer):
    """Observers that are all told everything."""

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

    def begin_run(self, run: str, facts: Mapping[str, Any], rounds: int) -> None:
        for observer in self._observers:
            observer.begin_run(run, facts, rounds)

    def end_round(self, line: Mapping[str, Any]) -> None:
        for observer in self._observers:
            observer.end_round(line)

    def end_run(self, state: str) -> None:
        for observer in self._observers:
            observer.end_run(state)
