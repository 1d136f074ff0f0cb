"""Seconds by phase. Code marks its phases with `phase(name)`; the round loop collects them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

TURN = "turn"  # the time in a client's turn outside any phase


class Clock:
    """Adds up seconds per phase; time in a nested phase counts only for the inner one."""

    def __init__(self, synchronise: Callable[[], None] = lambda: None, now: Callable[[], float] = time.perf_counter):
        self.seconds: dict[str, float] = {}
        self.whole: dict[str, float] = {}  # by phase, those of the phases nested in it included
        self._now = now
        self._synchronise = synchronise  # waits for the device, so that a phase is charged for its own work
        self._open: list[str] = []
        self._since = 0.0

    def _charge(self) -> None:
        self._synchronise()
        now = self._now()
        if self._open:
            self.seconds[self._open[-1]] = self.seconds.get(self._open[-1], 0.0) + now - self._since
        self._since = now

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self._charge()
        begun = self._since
        self._open.append(name)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()
            self.whole[name] = self.whole.get(name, 0.0) + self._since - begun


_current: ContextVar[Clock | None] = ContextVar("clock", default=None)


@contextmanager
def collecting(clock: Clock) -> Iterator[Clock]:
    """Within this block, `phase` charges its time to `clock`."""
    token = _current.set(clock)
    try:
        yield clock
    finally:
        _current.reset(token)


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Mark a phase; does nothing unless a clock is collecting."""
    clock = _current.get()
    if clock is None:
        yield
    else:
        with clock.phase(name):
            yield


def charge(name: str, seconds: float) -> None:
    """Charge a phase with seconds that passed in another one; negative ones take them off that."""
    clock = _current.get()
    if clock is not None:
        clock.seconds[name] = clock.seconds.get(name, 0.0) + seconds


@contextmanager
def side_by_side(source: str) -> Iterator[list[Mapping[str, float]]]:
    """A block in the phase `source` whose turns run side by side; append the seconds of each turn to the list it gives.

    The block's time is divided among the phases in proportion to their seconds in all turns; `TURN` stays with `source`.
    """
    turns: list[Mapping[str, float]] = []
    begun = time.perf_counter()
    yield turns
    for name, part in divided(time.perf_counter() - begun, source, turns).items():
        charge(source, -part)
        charge(name, part)


def divided(elapsed: float, source: str, turns: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """A time by phase, in proportion to the seconds in all turns that filled it; `TURN`, and what no turn accounts for, goes to `source`."""
    spent: dict[str, float] = {}
    for name, seconds in ((name, seconds) for turn in turns for name, seconds in turn.items()):
        spent[name] = spent.get(name, 0.0) + seconds
    parts = {name: elapsed * seconds / (sum(spent.values()) or 1.0) for name, seconds in spent.items() if name != TURN}
    return {**parts, source: parts.get(source, 0.0) + elapsed - sum(parts.values())}
