"""Push an artifact to a URL, and pull it from there into another store, whole or not at all.

What lies at the URL is the artifact's Zarr group, file by file, and any Zarr reader opens it. Its root file, which
lists and seals all others, is sent last and read first. FORMAT.md has the rules.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from stages.artifacts import seal
from stages.artifacts.refs import FOLDERS, Ref
from stages.artifacts.remote import Remote
from stages.artifacts.store import Artifact, Store, check
from stages.errors import Interrupted, UserError, printable, unknown
from stages.foreign import LARGEST
from stages.observer import SILENT, Observer

AT_ONCE = 8  # files
MEGABYTE = 10**6
WHOLE = 32 << 20  # bytes of a file that is read once and sent in one request
ROOM = 64 << 20  # bytes of the disk that are left free


def push(store: Store, ref: str | Ref, url: str, observer: Observer = SILENT) -> Remote:
    """Send an artifact to a URL that holds nothing yet, or a part of the same artifact."""
    artifact = store.open(ref)
    remote = Remote(url, create=True)
    if not remote.writable:
        raise UserError(f"{remote} can only be pulled from; push to s3://, gs://, az:// or a folder.")
    manifest = artifact.attributes["manifest"]
    mark = f".pushing-{artifact.attributes['seal'][:32]}"
    there = _there(remote, artifact, mark)
    missing = [name for name, (size, _) in manifest.items() if there.get(name) != size]

    def send(name: str) -> None:
        path = artifact.path / name
        content = path.read_bytes() if manifest[name][0] <= WHOLE else path
        digest = hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else seal.sha256(path)
        if digest != manifest[name][1]:
            raise seal.damaged(path, "is damaged: its checksum differs")
        remote.send(name, content)

    if missing or seal.ROOT not in there:
        remote.send(mark, b"")
        _each(send, missing, manifest, f"pushing {artifact.ref}", observer)
        remote.send(seal.ROOT, artifact.path / seal.ROOT)
    if missing or mark in there or seal.ROOT not in there:
        remote.delete(mark)
    return remote


def _there(remote: Remote, artifact: Artifact, mark: str) -> dict[str, int]:
    """The sizes of the files that an earlier push of this artifact has sent; UserError if there is anything else."""
    foreign = UserError(f"{remote} already holds something else; give a URL that holds nothing.")
    known = {*artifact.attributes["manifest"], seal.ROOT, mark}
    there = {}
    for name, size in remote.listed():
        if name not in known:
            raise foreign
        there[name] = size
    if seal.ROOT in there and _root(remote)[1]["seal"] != artifact.attributes["seal"]:
        raise foreign
    if there and not {seal.ROOT, mark} & set(there):
        raise foreign
    return there


def pull(store: Store, url: str, ref: str, observer: Observer = SILENT) -> Artifact:
    """Write the artifact at a URL to the store, as the next version of a name or, for `NAME@v3`, as that version.

    If a version of that name is the same artifact, nothing is written, and that version is returned.
    """
    remote = Remote(url)
    root, attributes = _root(remote)
    kind = attributes.get("kind")
    if kind not in FOLDERS:
        raise unknown("kind of artifact", printable(str(kind), 40), FOLDERS)
    asked = Ref.parse(ref)
    if asked.kind not in (None, kind):
        raise UserError(f"{remote} is a {kind} artifact; pull it as {asked.name} or {kind}/{asked.name}.")
    wanted = Ref(asked.name, asked.version, kind)
    check(attributes, wanted, str(remote))
    manifest = attributes["manifest"]
    _check_files(manifest, remote)
    for version in store.versions(kind, wanted.name):
        same = Ref(wanted.name, version, kind)
        if wanted.version in (None, version) and _seal(store.path(same)) == attributes["seal"]:
            return store.open(same)
    store.vacant(wanted)

    def gather(group: Path) -> None:
        missing = [name for name, file in manifest.items() if not _arrived(group / name, *file)]
        _check_room(group, sum(manifest[name][0] for name in missing))

        def fetch(name: str) -> None:
            size, digest = manifest[name]
            target = group / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if remote.fetch(name, target, size) != digest:
                raise seal.damaged(f"{remote}/{name}", "is damaged: its checksum differs")

        _each(fetch, missing, manifest, f"pulling {wanted}", observer)
        (group / seal.ROOT).write_bytes(root)

    return store.receive(wanted, attributes, gather)


def _root(remote: Remote) -> tuple[bytes, dict[str, Any]]:
    """The root file's bytes, and the attributes in it; UserError unless its seal is right."""
    raw = remote.read(seal.ROOT, LARGEST)
    return raw, seal.parsed(raw, f"{remote}/{seal.ROOT}")


def _seal(path: Path) -> str | None:
    try:
        return str(seal.attributes(path)["seal"])
    except UserError:
        return None


def _check_files(manifest: dict[str, Any], remote: Remote) -> None:
    """UserError unless the names are those of files that can lie side by side in one folder, and the sizes are sizes."""
    folders = {name[:at] for name in manifest for at, letter in enumerate(name) if letter == "/"}
    for name, (size, _) in manifest.items():
        parts = name.split("/")
        proper = all(part.isprintable() and part not in ("", ".", "..") and "\\" not in part for part in parts)
        fits = all(len(part.encode()) <= 255 for part in parts) and len(parts) <= 32
        if not (proper and fits) or name == seal.ROOT or name in folders or type(size) is not int or size < 0:
            raise UserError(f"{remote} lists a file that no artifact can have, '{printable(name, 60)}'.")


def _check_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size + ROOM > free:
        raise UserError(
            f"{size / MEGABYTE:,.0f} MB are still to come, but the disk of the store has only {free / MEGABYTE:,.0f} MB free."
        )


def _arrived(path: Path, size: int, digest: str) -> bool:
    return path.is_file() and path.stat().st_size == size and seal.sha256(path) == digest


def _each(
    work: Callable[[str], None], names: Iterable[str], manifest: dict[str, Any], task: str, observer: Observer
) -> None:
    """Work on several files at a time; the first failure, or a request to stop, ends it."""
    names = list(names)
    total, left = (sum(manifest[name][0] for name in some) for some in (manifest, names))
    done = total - left
    observer.start(f"{task}, MB", total // MEGABYTE, done // MEGABYTE)
    pool = ThreadPoolExecutor(AT_ONCE, "travel")
    try:
        waiting = {pool.submit(work, name): manifest[name][0] for name in names}
        for each in as_completed(waiting):
            each.result()
            before, done = done, done + waiting[each]
            observer.advance(done // MEGABYTE - before // MEGABYTE)
            if observer.stop_requested():
                raise Interrupted("Stopped; the same command continues with what is missing.")
    finally:
        pool.shutdown(cancel_futures=True)
        observer.finish()
