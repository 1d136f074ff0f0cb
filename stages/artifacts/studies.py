"""Studies that are going on in a store: which runs each has still to begin."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from stages.artifacts.folders import entries
from stages.artifacts.presence import Presence, present
from stages.artifacts.refs import NAME
from stages.artifacts.store import Store

SIGN = ".study-"


@contextmanager
def announced(store: Store) -> Iterator[Callable[[Sequence[str]], None]]:
    """While this block lasts others can see which runs are waited for: those that the function it gives was told last.

    Where the store can't be written they can't, and nothing else is different.
    """
    sign: Presence | None = None

    def tell(names: Sequence[str]) -> None:
        nonlocal sign
        with suppress(OSError):
            sign = sign or Presence(store.root / f"{SIGN}{uuid.uuid4().hex}.json")
            sign.tell(waiting=list(names))

    try:
        yield tell
    finally:
        if sign:
            sign.close()


def waiting(store: Store) -> list[str]:
    """Names of runs that studies of living processes have still to begin."""
    signs = (present(path) for path in entries(store.root) if path.name.startswith(SIGN) and path.suffix == ".json")
    lists = (sign.get("waiting") for sign in signs if sign)
    names = (name for found in lists if isinstance(found, list) for name in found)
    return list(dict.fromkeys(name for name in names if isinstance(name, str) and NAME.fullmatch(name)))
