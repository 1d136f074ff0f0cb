"""The manifest and seal that make a damaged artifact recognisable.

The root `zarr.json` lists every other file with its size and SHA-256, and carries a digest of itself,
so a changed, truncated, empty or missing file is found and named. Standard library only, so that listing a store stays fast.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from stages.errors import UserError
from stages.foreign import LARGEST

ROOT = "zarr.json"
STRAYS = ("._*", ".DS_Store", ".nfs*", ".smb*", ".cifs*", ".fuse_hidden*", "Thumbs.db", "desktop.ini")
SEAL = re.compile(rb'\n  "seal": "\w*"')  # of the root file's attributes: deeper ones are indented further
SYNCS = 8  # files at a time, which a file system writes down together
UNSYNCABLE = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}  # what CIFS, VirtualBox and sshfs answer for a folder


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Everything below `folder` that is not a folder as (posix path inside it, path); links are not followed."""
    for place, folders, names in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        inside = Path(place).relative_to(folder).as_posix()
        for name in (*names, *links):
            yield (name if inside == "." else f"{inside}/{name}"), Path(place, name)


def stray(name: str) -> bool:
    """Whether file systems or desktops leave such a file behind on their own."""
    return any(fnmatchcase(name.rpartition("/")[2], pattern) for pattern in STRAYS)


def _document(document: dict[str, Any], seal: str) -> bytes:
    attributes = {**document["attributes"], "seal": seal}
    return json.dumps({**document, "attributes": attributes}, indent=1, sort_keys=True, allow_nan=False).encode()


def _unsealed(text: bytes) -> bytes:
    """A root file's text with an empty seal, which is quicker than writing the document out again."""
    return SEAL.sub(b'\n  "seal": ""', text, count=1)


def close(folder: Path, attributes: dict[str, Any]) -> None:
    """Write `attributes`, the manifest and the seal into the group's root and sync every file to disk."""
    manifest = {
        name: [path.stat().st_size, sha256(path)] for name, path in files(folder) if name != ROOT and not stray(name)
    }
    document = json.loads((folder / ROOT).read_bytes())
    document["attributes"] = {**attributes, "manifest": manifest}
    (folder / ROOT).write_bytes(_document(document, hashlib.sha256(_document(document, "")).hexdigest()))
    sync_all(folder)


def sync_all(folder: Path) -> None:
    """Sync a folder and everything in it."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(SYNCS) as pool:
        list(pool.map(sync, [folder, *folder.rglob("*")]))


def sync(path: Path) -> None:
    """Make what was written to a file, or the entries of a folder, survive a power cut, as far as the disk allows."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if not (path.is_dir() and error.errno in UNSYNCABLE):
            raise
    finally:
        os.close(handle)


def opened(folder: Path, thorough: bool = False) -> dict[str, Any]:
    """The root attributes of an intact artifact; UserError names the first file that is not as written.

    Sizes and every array's metadata are always checked, chunks and surplus files only if `thorough`.
    The manifest may come from anyone, so only files inside `folder` are ever read.
    """
    attributes = _root(folder / ROOT)
    present = dict(files(folder))
    for name, (size, digest) in attributes["manifest"].items():
        _check(folder, name, present, size, digest if thorough or name.endswith(f"/{ROOT}") else None)
    for name in sorted(set(present) - set(attributes["manifest"]) - {ROOT}):
        if thorough and not stray(name):
            raise damaged(folder / name, "does not belong to the artifact")
        _plain(present[name], present[name])  # Zarr may open it even so
    return attributes


def attributes(folder: Path) -> dict[str, Any]:
    """The root attributes of an artifact whose seal is right; its other files are not looked at."""
    return _root(folder / ROOT)


def _root(path: Path) -> dict[str, Any]:
    """The attributes in a root file whose seal matches."""
    _plain(path, path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise damaged(path, f"can't be read ({error.strerror})") from error
    return parsed(raw, path)


def parsed(raw: bytes, shown: Path | str) -> dict[str, Any]:
    """The attributes in the bytes of a root file whose seal matches."""
    try:
        document = json.loads(raw)
        attributes: dict[str, Any] = document["attributes"]
        seal, manifest = attributes["seal"], attributes["manifest"]
        listed = all(isinstance(size, int) and isinstance(digest, str) for size, digest in manifest.values())
        whole = raw == _document(document, seal) and hashlib.sha256(_unsealed(raw)).hexdigest() == seal
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise damaged(shown, "is damaged") from None
    if not (listed and whole):
        raise damaged(shown, "is damaged")
    return attributes


def _check(folder: Path, name: str, present: dict[str, Path], size: int, digest: str | None) -> None:
    """UserError if the file is missing, has another size or, if a digest is given, other content."""
    shown = Path(f"{folder}/{name}")
    if name not in present:
        raise damaged(shown, "is missing")
    if (found := _plain(present[name], shown)) != size:
        raise damaged(shown, f"has {found} bytes instead of {size}")
    if digest is None:
        return
    try:
        differs = sha256(present[name]) != digest
    except OSError as error:
        raise damaged(shown, f"can't be read ({error.strerror})") from error
    if differs:
        raise damaged(shown, "is damaged: its checksum differs")


def _plain(path: Path, shown: Path) -> int:
    """The size of a plain file; UserError for anything else, for a missing file, and for metadata too large to be genuine."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        raise damaged(shown, "is missing") from None
    except OSError as error:
        raise damaged(shown, f"can't be read ({error.strerror})") from error
    if not stat.S_ISREG(found.st_mode):
        raise damaged(shown, "is not a plain file")
    if path.name == ROOT and found.st_size > LARGEST:
        raise damaged(shown, f"has {found.st_size} bytes, too many for metadata")
    return found.st_size


def damaged(path: Path | str, what: str) -> UserError:
    return UserError(f"{path} {what}. Restore it from a copy, or make the artifact again.")
