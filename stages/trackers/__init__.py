"""Trackers of experiments, each an observer on its own package: a run's curves as TensorBoard, MLflow or W&B show them.

A file each with a class `Tracker`, made with the place it writes to; the packages are extras and imported when a run begins.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

from stages.errors import UserError, unknown
from stages.foreign import reason
from stages.observer import Observer

NAMES = ("tensorboard", "mlflow", "wandb")  # of the module in here, the package and the extra


def chosen(track: tuple[str, ...], tell: Callable[[str], None]) -> list[Observer]:
    """The trackers that `track` names, as NAME or NAME=PLACE. UserError for an unknown name or a missing package."""
    found: list[Observer] = []
    for text in track:
        name, _, place = text.partition("=")
        if name not in NAMES:
            raise unknown("tracker", name, NAMES)
        if text.endswith("="):
            raise UserError(f"`track` must name a place after '{name}=', or leave out the '='.")
        if getattr(importlib.util.find_spec(name), "origin", None) is None:  # a folder of that name is not a package
            raise UserError(f"Tracking with {name} needs its package: pip install 'fedktl[{name}]'")
        found.append(Forgiven(name, importlib.import_module(f"stages.trackers.{name}").Tracker, place, tell))
    return found


class Forgiven(Observer):
    """A tracker that may fail: from then on it is told nothing more, and the run continues."""

    def __init__(self, name: str, open: Callable[[str], Observer], place: str, tell: Callable[[str], None]):
        self._name, self._open, self._place, self._tell = name, open, place, tell
        self._tracker: Observer | None = None

    def begin_run(self, run: str, facts: Mapping[str, Any], rounds: int) -> None:
        def begin() -> None:
            self._tracker = self._open(self._place)
            self._tracker.begin_run(run, facts, rounds)

        self._try(begin)

    def end_round(self, line: Mapping[str, Any]) -> None:
        if tracker := self._tracker:
            self._try(lambda: tracker.end_round(line))

    def end_run(self, state: str) -> None:
        if tracker := self._tracker:
            self._try(lambda: tracker.end_run(state))

    def _try(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # others' package, on any disk or network
            self._tracker = None
            self._tell(f"{self._name} no longer tracks this run ({reason(error)}); the run continues.")


def parameters(facts: Mapping[str, Any]) -> dict[str, Any]:
    """A run's settings, and its hyperparameters as `algorithm.name`, in one flat table."""
    hyper = {f"{facts['algorithm']}.{name}": value for name, value in facts["hyper"].items()}
    sources = {role: made["ref"] for role, made in facts["made_from"].items()}
    table = {**facts["settings"], **hyper, **sources, "algorithm": facts["algorithm"], "seed": facts["seed"]}
    return {name: ",".join(map(str, value)) if isinstance(value, list) else value for name, value in table.items()}


def metrics(line: Mapping[str, Any]) -> dict[str, float]:
    """What a round measured, without the round's own number."""
    return {name: value for name, value in line.items() if name != "round" and isinstance(value, (int, float))}
