"""TensorBoard: event files in a folder a run, below PLACE (default: tensorboard). See them with `tensorboard --logdir PLACE`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages import trackers
from stages.observer import Observer


class Tracker(Observer):
    def __init__(self, place: str):
        from torch.utils.tensorboard import SummaryWriter

        self._folder, self._writer = Path(place or "tensorboard"), SummaryWriter

    def begin_run(self, run: str, facts: Mapping[str, Any], rounds: int) -> None:
        self._events = self._writer(str(self._folder / run), purge_step=rounds + 1 if rounds else None)
        table = "\n".join(f"| {name} | {value} |" for name, value in trackers.parameters(facts).items())
        self._events.add_text("settings", f"| setting | value |\n|---|---|\n{table}")

    def end_round(self, line: Mapping[str, Any]) -> None:
        for name, value in trackers.metrics(line).items():
            self._events.add_scalar(name, value, line["round"])
        self._events.flush()

    def end_run(self, state: str) -> None:
        self._events.close()
