"""Unfinished work: `<name>/v3.partial` holds `run.json` and what is done so far, so that the work can be resumed.

A run keeps its newest checkpoint there; a bank being rendered keeps all its pieces.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from stages import foreign
from stages.artifacts import seal
from stages.artifacts.folders import entries, erase, name_lock, next_version, resumable
from stages.artifacts.presence import Presence, present
from stages.artifacts.refs import FOLDERS, Ref
from stages.artifacts.store import Store
from stages.errors import UserError, printable

FAILURE = "failure.json"
HOLDER = "holder.json"
LOOK = 0.2  # seconds for which a process that only looks whether a lock is free may hold it
CHECKPOINT = re.compile(r"checkpoint-([0-9]{6,})-([0-9a-f]{16})\.safetensors")


class Busy(UserError):
    """Another process is working on it."""


class Taken(Exception):
    """Another process was first."""


@dataclass
class Partial:
    """A folder that this process holds locked until `close`."""

    ref: Ref
    path: Path
    facts: dict[str, Any]  # run.json: settings, seed, identities of what the artifact is made from
    _hold: Hold

    @classmethod
    def begin(
        cls, store: Store, kind: str, name: str, facts: Mapping[str, Any], taken: Callable[[], bool] = lambda: False
    ) -> Partial:
        """Reserve the next version of `kind/name`. Raises Taken if, with the name locked, it is `taken`."""
        folder = store.folder(kind, name)
        with store.writable(folder), name_lock(folder):
            if taken():
                raise Taken
            version = next_version(folder)
            path = folder / f"v{version}.partial"
            if path.exists():  # of a process that was killed here
                erase(path)
            path.mkdir()
            begun = cls(Ref(name, version, kind), path, {}, Hold(path))
            begun.record(facts)
        return begun

    @classmethod
    def reopen(cls, path: Path) -> Partial:
        """Resume unfinished work. Raises Busy if another process is working on it, UserError if its facts can't be read."""
        hold = Hold(path)
        try:
            found = facts(path)
        except UserError:
            hold.release()
            raise
        kind = next(kind for kind, folder in FOLDERS.items() if folder == path.parent.parent.name)
        return cls(Ref(path.parent.name, int(path.stem[1:]), kind), path, found, hold)

    def record(self, facts: Mapping[str, Any]) -> None:
        """Write down what this is from now on; an earlier failure is forgotten."""
        self.facts = dict(facts)
        _replace(self.path / "run.json", lambda file: file.write_text(_sealed(self.facts)))
        (self.path / FAILURE).unlink(missing_ok=True)

    def fail(self, sentence: str) -> None:
        """Write down why the work stopped."""
        why = {
            "sentence": sentence,
            "rounds": progress(self.path),
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        _replace(self.path / FAILURE, lambda file: file.write_text(_sealed(why)))

    def save(self, number: int, write: Callable[[Path], None], alone: bool = True) -> Path:
        """Add a checkpoint by one rename; if it is to stand `alone`, delete the earlier ones. Its name carries its digest.

        `number` orders the checkpoints: rounds done, or the first row of a piece.
        """
        if not self._hold.stands():
            raise Busy(
                f"Another machine has taken over {self.path}, because this process gave no sign of life for too long."
            )
        draft = self.path / "checkpoint.draft"
        try:
            write(draft)
        except SafetensorError as error:  # how it reports that the disk refuses a write
            raise OSError(errno.EIO, str(error), str(draft)) from error
        seal.sync(draft)
        target = self.path / f"checkpoint-{number:06d}-{seal.sha256(draft)[:16]}.safetensors"
        os.replace(draft, target)
        seal.sync(self.path)
        for _, older in _saved(self.path) if alone else ():
            if older != target:
                older.unlink()
        return target

    def whole(self) -> dict[int, Path]:
        return whole(self.path)

    def checkpoint(self) -> Path | None:
        return newest(self.path)

    def close(self) -> None:
        self._hold.release()

    def discard(self) -> None:
        """Remove the folder: the work is published, or nothing in it is worth keeping."""
        with name_lock(self.path.parent):
            if self.path.exists():
                erase(self.path)
        self.close()


def unfinished(store: Store, kind: str = "run") -> list[Path]:
    """Folders of all work of a kind that can be resumed, or is in progress."""
    paths = (path for name in entries(store.root / FOLDERS[kind]) for path in entries(name))
    return [path for path in paths if resumable(path)]


def find_unfinished(store: Store, ref: Ref, kind: str = "run") -> Path | None:
    """The folder of the unfinished work that `ref` refers to; None if it refers to a published version, or to nothing."""
    folder = store.folder(kind, ref.name)
    numbers = {int(path.stem[1:]): path for path in unfinished(store, kind) if path.parent == folder}
    newest = max([*numbers, *store.versions(kind, ref.name)], default=None)
    return numbers.get(ref.version or newest or 0)


def facts(path: Path) -> dict[str, Any]:
    """What unfinished work says of itself, whether or not a process is working on it; UserError if that is missing or damaged."""
    try:
        return foreign.parsed(path / "run.json", "the facts of unfinished work", _unsealed)
    except UserError:
        raise seal.damaged(path / "run.json", "is missing or damaged") from None


def failure(path: Path) -> dict[str, Any] | None:
    """Why the work stopped: `sentence`, `rounds` done by then, `time`; None if it did not fail."""
    try:
        return foreign.parsed(path / FAILURE, "why the work failed", _unsealed)
    except UserError:  # only a note: the work continues without it
        return None


def checkpoints(path: Path) -> dict[int, Path]:
    """The checkpoint files in a folder, by number, ascending."""
    return dict(_saved(path))


def whole(path: Path) -> dict[int, Path]:
    """The checkpoints whose content matches the digest in their name, by number, ascending."""
    return {number: file for number, file in _saved(path) if file.stem.endswith(seal.sha256(file)[:16])}


def newest(path: Path) -> Path | None:
    """The newest intact checkpoint; None before the first is saved, UserError if all are damaged."""
    found, intact = checkpoints(path), whole(path)
    if found and not intact:
        raise seal.damaged(found[max(found)], "is damaged")
    return intact[max(intact)] if intact else None


def progress(path: Path) -> int:
    """The newest checkpoint's number; 0 before the first."""
    return max(checkpoints(path), default=0)


def _saved(path: Path) -> list[tuple[int, Path]]:
    """Every checkpoint file, ascending; a number appears twice if one was damaged and saved again with other bytes."""
    matches = [(CHECKPOINT.fullmatch(file.name), file) for file in entries(path)]
    return sorted((int(match[1]), file) for match, file in matches if match and file.is_file())


class Hold:
    """This process's hold on a folder: its lock, and a sign of life for machines that the lock may not reach."""

    def __init__(self, path: Path):
        """Raises Busy if another process has it."""
        self._lock = FileLock(path / "lock")
        try:
            path.stat()  # FileLock would create the folder
            self._lock.acquire(timeout=LOOK)
            if (other := present(path / HOLDER)) and other["host"] != socket.gethostname():
                raise Busy(f"Process {other['process']} on {printable(other['host'], 60)} is working on {path}.")
            self._sign = Presence(path / HOLDER)
        except Timeout:
            raise Busy(f"Another process is working on {path}; wait for it, or stop it.") from None
        except OSError as error:
            self._lock.release()
            raise UserError(
                f"{path} can't be locked ({error.strerror}); resuming needs permission to write there."
            ) from error
        except Busy:
            self._lock.release()
            raise

    def stands(self) -> bool:
        """False if this process gave no sign of life for so long that another machine took over."""
        return self._sign.stands()

    def release(self) -> None:
        self._sign.close()
        self._lock.release()


def _sealed(facts: object) -> str:
    """The text of run.json: the facts and a digest of them."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, allow_nan=False).encode()).hexdigest()
    return json.dumps({"facts": facts, "sha256": digest}, indent=1)


def _unsealed(text: bytes) -> dict[str, Any]:
    """The facts in a run.json whose digest is right."""
    facts = json.loads(text)["facts"]
    if not isinstance(facts, dict) or text != _sealed(facts).encode():
        raise ValueError("its digest differs")
    return facts


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    draft = path.with_suffix(".draft")
    write(draft)
    seal.sync(draft)
    os.replace(draft, path)
    seal.sync(path.parent)
