"""The folders of one name in a store: what lies in them, under which number, and who holds them locked."""

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
    """What a folder of the store holds, sorted; nothing if there is no such folder, UserError if it may not be read."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(
            f"{folder} can't be read ({error.strerror}); give another store, or the right to read this one."
        ) from error


def numbers(folder: Path, suffix: str) -> list[int]:
    matches = (re.fullmatch(rf"v([1-9][0-9]*)\.{suffix}", path.name) for path in entries(folder))
    return sorted(int(match[1]) for match in matches if match)


def next_version(folder: Path) -> int:
    """One above every version published or under way. Hold `name_lock` from here to the claim."""
    return max([0, *numbers(folder, "zarr"), *numbers(folder, "partial")]) + 1


def name_lock(folder: Path) -> FileLock:
    return FileLock(folder / ".lock")


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A hidden folder, locked while its writer lives so that `gc` can tell it from a left-over one."""
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


def resumable(path: Path) -> bool:
    """Whether this is the folder of a run that can go on, or is going on."""
    is_run = path.suffix == ".partial" and UNFINISHED.fullmatch(path.name)
    return bool(is_run) and (path / "run.json").exists() and not path.with_suffix(".zarr").exists()


def erase(path: Path) -> None:
    """Delete a folder; one rename comes first, so that nothing half deleted looks whole. Hold `name_lock`.

    What can't go yet, such as a lock still held on NFS, is left over, and `gc` removes it.
    """
    doomed = path.with_name(f".removed-{uuid.uuid4().hex}")
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def unlocked(path: Path) -> bool:
    """Whether the folder is there and no process holds its lock."""
    lock = path / "lock"
    if lock.exists():
        try:
            with FileLock(lock, timeout=0):
                pass
        except Timeout:
            return False
    return path.exists()
