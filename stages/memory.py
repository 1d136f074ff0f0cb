"""Memory that PyTorch has freed goes back to the system.

glibc keeps freed blocks for the thread that had them. Activations of many shapes, a model each, leave such holes that it
comes to hold more than all models take. Elsewhere than with glibc these functions do nothing.
"""

from __future__ import annotations

import ctypes
import sys

M_ARENA_MAX = -8  # of malloc.h


def share_heap() -> None:
    """Have threads that are not yet running allocate from one heap: what one of them frees serves the others."""
    call("mallopt", M_ARENA_MAX, 1)


def give_back() -> None:
    """Return every free page. It takes a millisecond, and the pages' return as much again: once a client's turn."""
    call("malloc_trim", 0)


def call(function: str, *arguments: int) -> None:
    if sys.platform == "linux" and hasattr(LIBC, function):
        getattr(LIBC, function)(*arguments)


LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
