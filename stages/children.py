"""Processes that this one starts: what comes to a terminal is not for them, and they end with their parent."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process, resource_tracker
from os import _exit


@contextmanager
def undisturbed() -> Iterator[None]:
    """A process started within never sees what asks to stop, which comes to all processes of a terminal: its parent handles it."""
    resource_tracker.ensure_running()  # which starting a process would do, and which unblocks signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def die_with_parent() -> None:
    """End this process when its parent is gone, whatever it is doing."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    _exit(1)
