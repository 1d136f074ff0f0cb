"""Writers that are killed or race, run by test_killed_writers.py in a process of its own; prints what was seen.

python -m tests.helpers.killed_writers (artifacts|runs|race) FOLDER
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zarr.codecs  # noqa: F401  before the forks, so that they begin at once

from stages.artifacts import seal
from stages.artifacts.partial import Partial, unfinished
from stages.artifacts.store import Artifact, Store

KILLS, WRITERS, EACH = 24, 4, 3


def write(store: Store, value: int) -> None:
    """An artifact that is right only if every number in it is `value`."""
    with store.write("report", "a", {"value": value}, value, {}) as writer:
        for part in range(3):
            writer.array(f"values/{part}", np.full((50, 40), value))


def right(artifact: Artifact) -> bool:
    value = artifact.settings["value"]
    names = artifact.names("values")
    return len(names) == 3 and all((artifact.array(f"values/{name}") == value).all() for name in names)


def forked(task: Callable[[], None]) -> int:
    number = os.fork()
    if number == 0:
        try:
            task()
        finally:
            os._exit(1)
    return number


def killed(task: Callable[[], None], after: float) -> None:
    """Fork, and kill -9 the child after that many seconds."""
    number = forked(task)
    time.sleep(after)
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)


def duration(task: Callable[[], None]) -> float:
    """Seconds that the task takes in a fork of this process."""
    begun = time.monotonic()
    os.waitpid(forked(task), 0)
    return time.monotonic() - begun


def artifacts(store: Store, rng: random.Random) -> dict[str, int]:
    """Kill a process that writes version after version."""

    def forever() -> None:
        while True:
            write(store, os.getpid())

    whole = duration(lambda: write(store, 0))
    known: dict[int, str] = {}
    left = 0
    with store.write("report", "a", {}, 0, {}):  # a live writer, never a left-over
        for _ in range(KILLS):
            killed(forever, rng.uniform(0, 2 * whole))
            found = {version: store.open(f"a@v{version}", thorough=True) for version in store.versions("report", "a")}
            assert all(right(found[version]) for version in found.keys() - known.keys()), (
                "an artifact looks finished and is wrong"
            )
            seals = {version: artifact.attributes["seal"] for version, artifact in found.items()}
            assert seals | known == seals, "an earlier version changed"
            known = seals
            leftovers = store.leftovers()
            assert len(leftovers) <= 1 and all(path.name.startswith(".writing-") for path in leftovers)
            left += len(leftovers)
            for path in leftovers:
                shutil.rmtree(path)
        assert len(list((store.root / "reports" / "a").glob(".writing-*"))) == 1, "not every left-over was found"
    write(store, 1)
    return {"kills": KILLS, "versions": len(known), "leftovers": left}


def runs(store: Store, rng: random.Random) -> dict[str, int]:
    """Kill a process that begins runs, saves checkpoints, publishes and goes on with what it finds."""

    def once() -> None:
        found = unfinished(store)
        partial = Partial.reopen(found[0]) if found else Partial.begin(store, "run", "r", {"settings": {}})
        newest = partial.checkpoint()
        for round in range(rounds(newest) + 1, 6):
            partial.save(round, lambda path, round=round: path.write_text(f"{round} " * 5000))
        with store.write("run", "r", {"value": 5}, 0, {}, version=partial.ref.version) as writer:
            writer.array("values/0", np.full(3, 5))
        partial.discard()

    def forever() -> None:
        while True:
            once()

    def rounds(checkpoint: Path | None) -> int:
        return int(checkpoint.read_text().split()[0]) if checkpoint else 0

    whole = duration(once)
    furthest, left = (0, 0), 0
    for _ in range(KILLS):
        killed(forever, rng.uniform(0, whole))
        versions = store.versions("run", "r")
        assert versions == list(range(1, len(versions) + 1)), "a version was lost"
        for version in versions:
            seal.opened(store.path(store.resolve(f"run/r@v{version}")), thorough=True)
        going = unfinished(store)
        assert len(going) <= 1
        here = (len(versions) + 1, 0)
        for path in going:
            partial = Partial.reopen(path)
            here = (partial.ref.version, rounds(partial.checkpoint()))
            partial.close()
        assert here >= furthest, f"the run went back from {furthest} to {here}"
        furthest = here
        leftovers = store.leftovers()
        left += len(leftovers)
        for path in leftovers:
            shutil.rmtree(path)
        assert unfinished(store) == going
        remaining = {path.name for path in (store.root / "runs" / "r").glob("*")}
        assert remaining <= {".lock", *(f"v{version}.zarr" for version in versions), *(path.name for path in going)}
    return {"kills": KILLS, "versions": len(store.versions("run", "r")), "leftovers": left}


def race(store: Store, rng: random.Random) -> dict[str, int]:
    """Several processes write the same name at once."""

    def some(value: int) -> None:
        for _ in range(EACH):
            write(store, value)
        os._exit(0)

    numbers = [forked(lambda value=value: some(value)) for value in range(WRITERS)]
    assert [os.waitpid(number, 0)[1] for number in numbers] == [0] * WRITERS
    versions = store.versions("report", "a")
    assert versions == list(range(1, WRITERS * EACH + 1))
    found = [store.open(f"a@v{version}", thorough=True) for version in versions]
    assert all(map(right, found))
    assert sorted(artifact.settings["value"] for artifact in found) == sorted(list(range(WRITERS)) * EACH)
    return {"versions": len(versions), "leftovers": len(store.leftovers())}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](Store(sys.argv[2]), random.Random(sys.argv[1]))))
