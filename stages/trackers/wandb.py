"""Weights & Biases: a run of the project `fedktl`, kept in PLACE/wandb (default: ./wandb) and sent nowhere.

`wandb sync` sends it, or the variable WANDB_MODE=online from the start.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages import trackers
from stages.observer import Observer


class Tracker(Observer):
    def __init__(self, place: str):
        import wandb

        self._package, self._folder = wandb, Path(place or ".")

    def begin_run(self, run: str, facts: Mapping[str, Any], rounds: int) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)  # else the package would choose another
        quiet = self._package.Settings(silent=True, console="off")
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        self._run = self._package.init(
            project=os.environ.get("WANDB_PROJECT", "fedktl"), dir=str(self._folder), mode=mode, name=run,
            config=trackers.parameters(facts), settings=quiet,
        )  # fmt: skip

    def end_round(self, line: Mapping[str, Any]) -> None:
        self._run.log(trackers.metrics(line), step=line["round"])

    def end_run(self, state: str) -> None:
        self._run.summary["state"] = state
        self._run.finish(exit_code=0 if state == "done" else 1)
