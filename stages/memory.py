"""Returns memory that PyTorch has freed to the system.

glibc keeps freed blocks for the thread that allocated them. The activations of many models have many sizes, and the holes
they leave can add up to more than all models take. Without glibc these functions do nothing.
"""

from __future__ import annotations

import ctypes
import resource
import sys
from contextlib import suppress
from pathlib import Path

M_ARENA_MAX = -8  # of malloc.h
SHARE, SPARE = 0.05, 32 << 20  # of the memory in use may be free; so may as many bytes


class Usage(ctypes.Structure):
    """mallinfo2 of malloc.h."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "top")
    ]  # fmt: skip


def share_heap() -> None:
    """Make all threads started from now on allocate from one heap, so that one can use what another has freed.

    Memory at the end of a thread's own heap would never be returned, not even by `give_back`.
    """
    if GLIBC:
        GLIBC.mallopt(M_ARENA_MAX, 1)


def give_back() -> None:
    """Return free pages if there are many: getting them back costs ten milliseconds, as much as a training step.

    Even the check takes a millisecond or two, so call it once per client's turn and once per evaluation.
    """
    if GLIBC:
        usage = GLIBC.mallinfo2()
        if usage.fordblks > max(SPARE, SHARE * (usage.uordblks + usage.hblkhd)):
            GLIBC.malloc_trim(0)


def watch() -> None:
    """From now on `peak` tells the most since this call, where the system can (Linux); elsewhere since the process started."""
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
    """The C library, if it is glibc of 2021 or later."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "mallinfo2"):
        return None
    library.mallinfo2.restype = Usage
    return library


GLIBC = glibc()
