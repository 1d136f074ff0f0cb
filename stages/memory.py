"""Memory that PyTorch has freed goes back to the system.

glibc keeps freed blocks for the thread that had them. Activations of many shapes, a model each, leave such holes that it
comes to hold more than all models take. Elsewhere than with glibc these functions do nothing.
"""

from __future__ import annotations

import ctypes
import resource
import sys
from contextlib import suppress
from pathlib import Path

M_ARENA_MAX = -8  # of malloc.h
SHARE = 0.05  # of what is in use may lie free


class Usage(ctypes.Structure):
    """mallinfo2 of malloc.h."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "top")
    ]  # fmt: skip


def share_heap() -> None:
    """Have threads that are not yet running allocate from one heap: what one of them frees serves the others.

    The end of a heap that a thread has for itself is never returned, not by `give_back` either.
    """
    if GLIBC:
        GLIBC.mallopt(M_ARENA_MAX, 1)


def give_back() -> None:
    """Return the free pages if they are many: to get them anew costs ten milliseconds, as much as a step.

    Even to ask takes a millisecond or two, so this is for once a client's turn and once an evaluation.
    """
    if GLIBC:
        usage = GLIBC.mallinfo2()
        if usage.fordblks > SHARE * (usage.uordblks + usage.hblkhd):
            GLIBC.malloc_trim(0)


def watch() -> None:
    """Have `peak` tell the most from now on, where the system can (Linux); elsewhere it tells the most since the start."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """Bytes: the most that this process has held since `watch`."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def glibc() -> ctypes.CDLL | None:
    """The C library, if it is GNU's of 2021 or later."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "mallinfo2"):
        return None
    library.mallinfo2.restype = Usage
    return library


GLIBC = glibc()
