"""How fast an artifact of 1 GB travels, beside plain copies of the same bytes over the same connection.

python -m tests.benchmarks.travel FOLDER s3://bucket/prefix     push and pull; AWS_* in the environment
python -m tests.benchmarks.travel FOLDER http://host/prefix     pull; the server shows FOLDER
"""

from __future__ import annotations

import shutil
import sys
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import obstore

from stages.artifacts import seal
from stages.artifacts.remote import Remote
from stages.artifacts.store import Store
from stages.artifacts.travel import AT_ONCE, pull, push

IMAGES = 325_000  # of 3 x 32 x 32 random bytes
TIMES = 3


def made(store: Store) -> None:
    if store.versions("data", "big"):
        return
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, 3, 32, 32), dtype=np.uint8)
    with store.write("data", "big", {}, 0, {}) as writer:
        writer.array("train/images", images)


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main(folder: Path, url: str) -> None:
    store = Store(folder / "store")
    made(store)
    group = store.path(store.resolve("big"))
    names = [name for name, _ in seal.files(group)]
    size = sum((group / name).stat().st_size for name in names)
    one = folder / "one"
    if not one.exists():
        one.write_bytes(b"".join((group / name).read_bytes() for name in names))

    def side_by_side(work: Callable[[str], object]) -> None:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(work, names))

    def copied_here(remote: Remote, name: str) -> None:
        target = folder / "copy" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            for piece in obstore.get(remote._store, name).stream(min_chunk_size=1 << 20):
                file.write(piece)

    def synced(name: str) -> None:
        seal.sync(folder / "copy" / name)

    for _ in range(TIMES):
        place = f"{url}/{uuid.uuid4().hex}"
        times: dict[str, float] = {}
        if Remote(url).writable:
            plain, single = Remote(f"{place}/plain"), Remote(f"{place}/single")
            times["push"] = seconds(lambda: push(store, "big", f"{place}/big"))  # noqa: B023
            times["plain upload of the files"] = seconds(lambda: side_by_side(lambda n: plain.send(n, group / n)))  # noqa: B023
            times["plain upload of one file"] = seconds(lambda: single.send("one", one))  # noqa: B023
            source, whole = f"{place}/big", single
        else:
            source, whole = f"{url}/{group.relative_to(folder).as_posix()}", Remote(url)
        there = Remote(source)
        shutil.rmtree(folder / "arrived", ignore_errors=True)
        times["pull"] = seconds(lambda: pull(Store(folder / "arrived"), source, "big"))  # noqa: B023
        shutil.rmtree(folder / "arrived")
        shutil.rmtree(folder / "copy", ignore_errors=True)
        times["plain download of the files"] = seconds(lambda: side_by_side(lambda n: copied_here(there, n)))  # noqa: B023
        times["and synced"] = times["plain download of the files"] + seconds(lambda: side_by_side(synced))
        times["plain download of one file"] = seconds(lambda: copied_here(whole, "one"))  # noqa: B023
        shutil.rmtree(folder / "copy")
        print(
            f"{size / 1e6:.0f} MB", {name: f"{size / 1e6 / took:.0f} MB/s" for name, took in times.items()}, flush=True
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
