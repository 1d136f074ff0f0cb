"""Studies in progress in a store: which runs each has still to begin."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from stages.artifacts.folders import entries
from stages.artifacts.presence import Presence, present
from stages.artifacts.refs import NAME
from stages.artifacts.store import Store

SIGN = ".study-"


@contextmanager
def announced(store: Store) -> Iterator[Callable[[Sequence[str]], None]]:
    """Within this block other processes see which runs are still to begin: the names last given to the function it yields.

    In a store that can't be written they see nothing; nothing else differs.
    """
    sign: Presence | None = None
    with suppress(OSError):
        for path in signs(store):
            if present(path) is None:  # of a process that was killed
                path.unlink()

    def tell(names: Sequence[str]) -> None:
        nonlocal sign
        if not names and not sign:
            return  # a single run announces itself
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
    found = (present(path) for path in signs(store))
    lists = (sign.get("waiting") for sign in found if sign)
    names = (name for each in lists if isinstance(each, list) for name in each)
    return list(dict.fromkeys(name for name in names if isinstance(name, str) and NAME.fullmatch(name)))


def signs(store: Store) -> list[Path]:
    return [path for path in entries(store.root) if path.name.startswith(SIGN) and path.suffix == ".json"]
