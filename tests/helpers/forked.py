"""Processes that start in a tenth of a second: forks of the server of `stages.processes`, which has imported PyTorch."""

import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from stages import processes

ROOT = Path(__file__).parents[2]


class Forked:
    """A function in a process of its own, with signals as after a shell's start; what it prints goes to files in the folder."""

    def __init__(self, folder: Path, function: Callable[..., None], *arguments: Any, **environment: str):
        self._files = [folder / f"{function.__name__}.{stream}" for stream in ("out", "err")]
        for file in self._files:
            file.write_bytes(b"")
        self._process = processes.started(_alone, self._files, environment, function, arguments)

    @property
    def out(self) -> str:
        return self._files[0].read_text()

    @property
    def err(self) -> str:
        return self._files[1].read_text()

    def wait(self, seconds: float = 60) -> int:
        """The exit code."""
        self._process.join(seconds)
        assert self._process.exitcode is not None, self.err
        return self._process.exitcode

    def until(self, pattern: str, seconds: float = 60) -> None:
        """Wait for it on standard error."""
        deadline = time.monotonic() + seconds
        while not re.search(pattern, self.err):
            assert self._process.is_alive() and time.monotonic() < deadline, self.err
            time.sleep(0.02)

    def send(self, number: int) -> None:
        assert self._process.pid
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        self._process.kill()
        self._process.join()


def _alone(files: list[Path], environment: dict[str, str], function: Callable[..., None], arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w", 1, "utf-8"), os.fdopen(2, "w", 1, "utf-8")
    os.fsync = lambda handle: None  # as where the tests run (conftest.py)
    os.environ |= environment
    os.chdir(ROOT)
    torch.set_num_threads(1)
    function(*arguments)


def program(*words: str) -> None:
    """The program as its script starts it."""
    from fedktl_cli.main import run

    sys.argv = ["fedktl", *words]
    run()
