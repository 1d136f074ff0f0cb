"""Processes of this program's own: started quickly, undisturbed by what asks to stop, and gone with their parent."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from multiprocessing import forkserver, get_context, parent_process, resource_tracker
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess

HEAVY = ["stages.dealing", "stages.engines.workers"]  # what processes run; importing it takes two seconds of PyTorch
ROOM = 70  # bytes of the temporary folder's path that leave enough for a socket's, which has at most 107


@cache
def context() -> BaseContext:
    """How processes start. On Linux a server that has imported PyTorch once, and done nothing else, is forked for each.

    So no fork inherits a lock, a thread or a GPU in use, as forks of this process would. Elsewhere, where system libraries
    do not survive forks, and where the server's socket would have too long a path, each process starts anew.
    """
    if sys.platform != "linux" or len(os.fsencode(tempfile.gettempdir())) > ROOM:
        return get_context("spawn")
    server = get_context("forkserver")
    server.set_forkserver_preload(HEAVY)
    return server


def get_ready() -> None:
    """Start that server now, so that it imports PyTorch while this process does."""
    if context().get_start_method() == "forkserver":
        with undisturbed():
            forkserver.ensure_running()


def started(run: Callable[..., None], *arguments: object, daemon: bool = False) -> BaseProcess:
    """A new process that does `run(*arguments)`."""
    process: BaseProcess = context().Process(target=_live, args=(run, *arguments), daemon=daemon)  # type: ignore[attr-defined]
    with undisturbed():
        process.start()
    return process


@contextmanager
def undisturbed() -> Iterator[None]:
    """A process started within never sees what asks to stop, which comes to all processes of a terminal: its parent handles it."""
    resource_tracker.ensure_running()  # which starting a process would do, and which unblocks signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _live(run: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=_die_with_parent, daemon=True).start()
    run(*arguments)


def _die_with_parent() -> None:
    """End this process when its parent is gone, whatever it is doing."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
