"""When a checkpoint is due: what a kill may lose is bounded in time, and so is what checkpoints cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOSS = 300.0  # seconds of work that a kill may cost, or one round
OFTEN = 30.0  # seconds from one checkpoint to the next, at least ...
SHARE = 0.03  # ... and the part of the time that checkpoints may take, unless LOSS asks for more


class Pace:
    """Told of every round and every checkpoint, it says after a round whether a checkpoint is due.

    With `every`, one is also due after that many rounds, however little time has passed.
    """

    def __init__(self, every: int | None, now: Callable[[], float] = time.monotonic):
        self._every, self._now = every, now
        self._saved = self._ended = now()
        self._cost = 0.0

    def due(self, rounds: int) -> bool:
        """After a round, `rounds` in all: whether to save now what another round might lose."""
        ended = self._now()
        last, self._ended = ended - self._ended, ended
        since = ended - self._saved
        if self._every and rounds % self._every == 0:
            return True
        return since + last + self._cost > LOSS or (not self._every and since >= max(OFTEN, self._cost / SHARE))

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Around a checkpoint."""
        begun = self._now()
        yield
        self._saved = self._ended = self._now()
        self._cost = self._saved - begun
