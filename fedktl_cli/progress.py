"""How far a stage is: a bar for each run on a terminal, lines through a pipe."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any

from stages.observer import Observer
from stages.reporting.numbers import count, duration

if TYPE_CHECKING:
    from fedktl_cli.terminal import Terminal

MINUTE = 60.0  # seconds between two lines of one task
WIDE = 80  # columns that have room for a long bar


class Study:
    """How long the runs of a command will take, from the rounds that were played so far."""

    def __init__(self) -> None:
        self.waiting = 0  # runs still to begin
        self.going: dict[int, tuple[int, int]] = {}  # rounds left and in all of the runs in progress, by observer
        self._rounds, self._seconds = 0, 0.0

    def played(self, rounds: int, seconds: float) -> None:
        self._rounds, self._seconds = self._rounds + rounds, self._seconds + seconds

    def left(self) -> float | None:
        """Seconds; None before the first round, or if no further run is waiting."""
        if not (self._rounds and self.going and self.waiting):
            return None
        begun = sum(left for left, _ in self.going.values())
        planned = max(planned for _, planned in self.going.values())
        return (begun + self.waiting * planned) * self._seconds / self._rounds / len(self.going)


class Progress(Observer):
    """Progress without a screen: a line at a run's beginning and end and one a minute, or one a step under --verbose."""

    def __init__(self, terminal: Terminal, study: Study | None = None):
        self.terminal, self.study, self._place = terminal, study or Study(), ""
        self._stop = self._stoppable = False
        self._task, self._run = "", ""
        self._done = self._total = 0
        self._began = self._marked = self._told = 0.0

    def interrupt(self, signum: int, frame: FrameType | None) -> None:
        if self._stop or not self._stoppable:
            raise KeyboardInterrupt
        self._stop = True
        self.note("Stopping at the next safe point; press Ctrl-C again to stop at once.")

    def stop_requested(self) -> bool:
        self._stoppable = True  # a stage that asks can stop cleanly
        return self._stop

    def next_run(self, number: int, total: int, waiting: int) -> None:
        self._place, self.study.waiting = f"run {number} of {total}" if total > 1 else "", waiting

    def lane(self, number: int) -> Observer:
        return Progress(self.terminal, self.study)

    def begin_run(self, run: str, facts: Mapping[str, Any], rounds: int) -> None:
        self._run, self._began, self._reached = run, time.monotonic(), ""
        planned = facts["settings"]["rounds"]
        begins = f"continues after round {rounds} of {planned}" if rounds else f"begins, {planned} rounds"
        self.line(": ".join(filter(None, [self._place, f"{run} {begins}"])))

    def end_round(self, line: Mapping[str, Any]) -> None:
        if "accuracy/test" in line:
            self._reached = f", accuracy {line['accuracy/test']:.2f}%"

    def end_run(self, state: str) -> None:
        self.study.going.pop(id(self), None)
        self.line(f"{self._run} is {state} after {duration(time.monotonic() - self._began)}{self._reached}")
        self._run = self._place = ""

    def start(self, task: str, total: int, done: int = 0) -> None:
        self._task, self._total, self._done = task, total, done
        self._marked = self._told = time.monotonic()
        if self._run:
            self.study.going[id(self)] = total - done, total

    def advance(self, steps: int = 1, **facts: object) -> None:
        self._done += steps
        now = time.monotonic()
        if self._run:
            self.study.going[id(self)] = self._total - self._done, self._total
            self.study.played(steps, now - self._marked)
        self._marked = now
        words = f"{self._run or self._task} {self._done}/{self._total}   {in_words(facts)}".rstrip()
        if self.terminal.verbose:
            self.note(words)
        elif now - self._told >= MINUTE:
            self._told = now
            self.line("   ".join(filter(None, [words, self.study_left()])))

    def study_left(self) -> str:
        left = self.study.left()
        return "" if left is None else f"study {duration(left)} left"

    def line(self, text: str) -> None:
        """A line for those who see no bar."""
        self.note(text)

    def note(self, message: str) -> None:
        self.terminal.say(message)


class Screen:
    """The bars of all tasks in progress, one below the other, and below them the last facts of each."""

    def __init__(self, console: Any):
        self._console = console
        self._live: Any = None
        self._bars: Any = None
        self._words: dict[int, str] = {}

    def open(self, task: str, total: int, done: int) -> int:
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        if self._live is None:
            columns = (
                TextColumn("{task.description}", markup=False), BarColumn(24 if self._console.width >= WIDE else 8),
                MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
            )  # fmt: skip
            self._bars = Bars(*columns, console=self._console)
            self._live = Live(self._bars, console=self._console, refresh_per_second=8)
            self._live.start()
        number: int = self._bars.add_task(task, total=total, completed=done)
        self._words[number] = ""
        return number

    def draw(self, number: int, steps: int, words: str) -> None:
        from rich.console import Group
        from rich.text import Text

        self._bars.advance(number, steps)
        self._words[number] = words
        self._live.update(Group(self._bars, *(Text(each, style="dim") for each in self._words.values() if each)))

    def close(self, number: int) -> None:
        """The last bar stays on the screen."""
        if len(self._words) > 1:
            self._bars.remove_task(number)
            del self._words[number]
        elif self._live:
            self._live.stop()
            self._live, self._words = None, {}


class LiveProgress(Progress):
    """A bar with time left, and the facts of the last step below it."""

    def __init__(self, terminal: Terminal, study: Study | None = None, screen: Screen | None = None):
        super().__init__(terminal, study)
        self._screen = screen or Screen(terminal.err)
        self._bar: int | None = None

    def lane(self, number: int) -> Observer:
        return LiveProgress(self.terminal, self.study, self._screen)

    def start(self, task: str, total: int, done: int = 0) -> None:
        self.finish()
        super().start(task, total, done)
        self._bar = self._screen.open(task, total, done)
        self._draw(0, {})

    def advance(self, steps: int = 1, **facts: object) -> None:
        super().advance(steps, **facts)
        self._draw(steps, facts)

    def _draw(self, steps: int, facts: Mapping[str, Any]) -> None:
        if self._bar is not None:
            words = "   ".join(filter(None, [self._place, self.study_left(), in_words(facts)]))
            self._screen.draw(self._bar, steps, words)

    def finish(self) -> None:
        if self._bar is not None:
            self._screen.close(self._bar)
            self._bar = None

    def line(self, text: str) -> None:
        """The bar says it."""


def in_words(facts: Mapping[str, Any]) -> str:
    """`accuracy 81.2%  loss 3.10  up 100  down 62.7k floats`."""
    words = []
    for name, value in facts.items():
        if name == "accuracy":
            words.append(f"accuracy {value:.2f}%")
        elif name.startswith("floats"):
            words.append(f"{name.removeprefix('floats_')} {count(value)} floats")
        else:
            words.append(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}")
    return "   ".join(words)
