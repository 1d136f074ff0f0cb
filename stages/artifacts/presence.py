"""Signs of life: files that say which process is at work on something, for processes of this machine and of others."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from stages.errors import UserError
from stages.foreign import parsed

BEAT = 10.0  # seconds from one sign to the next
STALE = 120.0  # seconds without a sign after which a process of another machine counts as gone


class Presence:
    """A file with this process, its machine and `facts`, touched every few seconds until `close`, which removes it."""

    def __init__(self, path: Path, **facts: object):
        self.path = path
        self._me: dict[str, Any] = {"host": socket.gethostname(), "process": os.getpid(), "since": int(time.time())}
        self.tell(**facts)
        self._closed = threading.Event()
        threading.Thread(target=self._beat, name="presence", daemon=True).start()

    def tell(self, **facts: object) -> None:
        """Change the facts."""
        self._me |= facts
        draft = self.path.with_suffix(".draft")
        draft.write_text(json.dumps(self._me))
        os.replace(draft, self.path)

    def _beat(self) -> None:
        while not self._closed.wait(BEAT):
            with suppress(OSError):  # on a disk that is gone for a while the next one may succeed
                os.utime(self.path)

    def stands(self) -> bool:
        """False once another process has given this one up, because it showed no sign of life for too long."""
        return _read(self.path) == self._me

    def close(self) -> None:
        self._closed.set()
        with suppress(OSError):
            if self.stands():
                self.path.unlink()


def present(path: Path) -> dict[str, Any] | None:
    """The process that is at work: `host`, `process`, `since` (seconds since 1970) and facts; None if there is none left.

    One that was killed is known to be gone at once on its own machine, and on others once its signs of life stop.
    """
    found = _read(path)
    if found is None:
        return None
    try:
        heard = time.time() - path.stat().st_mtime < STALE
    except OSError:
        return None
    return found if heard and (found["host"] != socket.gethostname() or _alive(found["process"])) else None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = parsed(path, "a sign of life", json.loads, largest=1 << 20)
        whole = all(type(found[name]) is kind for name, kind in (("host", str), ("process", int), ("since", int)))
    except (UserError, KeyError, TypeError):
        return None
    return found if whole else None


def _alive(process: int) -> bool:
    if process <= 0:  # to the system these are groups
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is somebody else's
        pass
    return True
