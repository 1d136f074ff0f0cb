"""The folder of one name in a store: which versions it holds, published or in progress, and who holds their locks."""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from stages.errors import UserError

UNFINISHED = re.compile(r"\.(writing|removed)-[0-9a-f]{32}|v[1-9][0-9]*\.partial")


def entries(folder: Path) -> list[Path]:
    """The paths in a folder of the store, sorted; none if there is no such folder. UserError if it can't be read."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(
            f"{folder} can't be read ({error.strerror}); give another store, or permission to read this one."
        ) from error


def numbers(folder: Path, suffix: str) -> list[int]:
    matches = (re.fullmatch(rf"v([1-9][0-9]*)\.{suffix}", path.name) for path in entries(folder))
    return sorted(int(match[1]) for match in matches if match)


def taken(folder: Path) -> list[int]:
    """The numbers of versions published or in progress.

    Who begins one holds `name_lock` until its `run.json` is there, so a folder without that was left by a killed process. If
    it has a checkpoint nevertheless, it is damaged, and its number is not free.
    """
    partial = ((number, folder / f"v{number}.partial") for number in numbers(folder, "partial"))
    begun = (number for number, path in partial if (path / "run.json").exists() or any(path.glob("checkpoint-*")))
    return sorted({*numbers(folder, "zarr"), *begun})


def next_version(folder: Path) -> int:
    """One above every version published or in progress. Hold `name_lock` from here until the number is taken."""
    return max(taken(folder), default=0) + 1


def name_lock(folder: Path) -> FileLock:
    return FileLock(folder / ".lock")


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A hidden folder, locked as long as its writer runs so that `gc` can tell it from an abandoned one."""
    hidden = folder / f".writing-{uuid.uuid4().hex}"
    lock = FileLock(hidden / "lock")
    try:
        with name_lock(folder):
            hidden.mkdir()
            lock.acquire()
        yield hidden
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        lock.release()


@contextmanager
def resumed(folder: Path, key: str) -> Iterator[Path]:
    """Like `scratch`, but the hidden folder is named by a key of 32 hexadecimal digits, and outlives an exception."""
    hidden = folder / f".writing-{key}"
    lock = FileLock(hidden / "lock")
    try:
        with name_lock(folder):
            hidden.mkdir(exist_ok=True)
            lock.acquire(timeout=0)
        yield hidden
        shutil.rmtree(hidden, ignore_errors=True)
    except Timeout:
        raise UserError(f"Another process is writing the same artifact to {folder}; wait for it.") from None
    finally:
        lock.release()


def resumable(path: Path) -> bool:
    """Whether this is the folder of unfinished work that can be resumed, or is in progress."""
    is_run = path.suffix == ".partial" and UNFINISHED.fullmatch(path.name)
    return bool(is_run) and (path / "run.json").exists() and not path.with_suffix(".zarr").exists()


def erase(path: Path) -> None:
    """Delete a folder. It is renamed first, so that nothing half deleted looks whole. Hold `name_lock`.

    What can't be deleted yet, such as a lock file still open on NFS, is left for `gc` to remove.
    """
    doomed = path.with_name(f".removed-{uuid.uuid4().hex}")
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def unlocked(path: Path) -> bool:
    """Whether the folder exists and no process holds its lock."""
    lock = path / "lock"
    if lock.exists():
        try:
            with FileLock(lock, timeout=0):
                pass
        except Timeout:
            return False
    return path.exists()
