"""The store: `<root>/<kind folder>/<name>/v3.zarr`, written once, published by one rename, never changed."""

from __future__ import annotations

import errno
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages import memory
from stages.artifacts import seal
from stages.artifacts.folders import (
    UNFINISHED,
    entries,
    erase,
    name_lock,
    next_version,
    numbers,
    resumable,
    resumed,
    scratch,
    taken,
    unlocked,
)
from stages.artifacts.refs import FOLDERS, IDENTITY, NAME, Ref, checked_name
from stages.artifacts.writer import Source, Writer, library, opened
from stages.errors import UserError, unknown
from stages.foreign import reason

if TYPE_CHECKING:
    import numpy as np
    import zarr

SCHEMAS = {"data": 1, "latents": 1, "run": 1, "report": 1}
ATTRIBUTES: dict[str, tuple[type, ...]] = {  # of every kind, besides what the seal needs
    "settings": (dict,), "made_from": (dict,), "seed": (int, type(None)), "software": (dict,), "created": (str,),
}  # fmt: skip
LIBRARIES = ("fedktl", "torch", "torchvision", "numpy", "zarr")
LOCKLESS = {errno.ENOLCK, errno.ENOTSUP}  # from a file system without flock, such as NFS without its lock daemon
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}  # errors that may come without a file name


@dataclass(frozen=True)
class Artifact:
    """A published artifact whose files were found intact. `attributes` are those of its root group."""

    ref: Ref
    path: Path
    attributes: dict[str, Any]

    def __repr__(self) -> str:
        return f"<{self.kind} {self.ref} in {str(self.path)!r}>"

    @property
    def kind(self) -> str:
        return str(self.attributes["kind"])

    @property
    def settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = self.attributes["settings"]
        return settings

    @property
    def sources(self) -> dict[str, dict[str, str]]:
        """The identities of what it was made from, by role; UserError if they are not recorded as such."""
        made_from: dict[str, dict[str, str]] = self.attributes["made_from"]
        for made in made_from.values():
            if not isinstance(made, dict) or not all(isinstance(made.get(key), str) for key in IDENTITY):
                raise UserError(f"{self.path} does not record what it was made from; make the artifact again.")
        return made_from

    @property
    def identity(self) -> dict[str, str]:
        """What other artifacts record about this one: its kind, reference and seal."""
        return {"kind": self.kind, "ref": str(self.ref), "seal": self.attributes["seal"]}

    @cached_property
    def group(self) -> zarr.Group:
        try:
            return opened(self.path, "r")
        except Exception as error:
            raise seal.damaged(self.path, f"can't be opened ({reason(error)})") from error

    @cached_property
    def _chunks(self) -> Counter[str]:
        """How many chunks each array has."""
        names = (name.removesuffix("/c").partition("/c/") for name in self.attributes["manifest"])
        return Counter(array for array, *_ in names)

    def __contains__(self, name: str) -> bool:
        return self._member(name) is not None

    @cached_property
    def _members(self) -> dict[str, zarr.Array[Any] | zarr.Group | None]:
        return {}

    def _member(self, name: str) -> zarr.Array[Any] | zarr.Group | None:
        """Read once: an artifact does not change, and Zarr takes milliseconds to read metadata."""
        if name not in self._members:
            try:
                self._members[name] = self.group.get(name)
            except Exception as error:  # Zarr may raise anything on bytes from strangers
                raise seal.damaged(self.path / name, f"can't be read ({reason(error)})") from error
        return self._members[name]

    def array(self, name: str, rows: slice = slice(None)) -> np.ndarray:
        """An array, or some of its rows, in memory; UserError if it or a chunk is missing, or a checksum fails."""
        import numpy as np

        found = self._array(name)
        if self._chunks[name] != found.nchunks:  # Zarr would fill the gap
            raise seal.damaged(self.path / name, f"has {self._chunks[name]} chunks instead of {found.nchunks}")
        try:
            return np.asarray(found[rows] if found.ndim else found[...])
        except Exception as error:
            raise seal.damaged(self.path / name, f"can't be read ({reason(error)})") from error

    def _array(self, name: str) -> zarr.Array[Any]:
        found: Any = self._member(name)
        if isinstance(found, library().Array):
            array: zarr.Array[Any] = found
            return array
        raise UserError(f"{self.path} has no array '{name}'; make the artifact again.")

    def shape(self, name: str) -> tuple[int, ...]:
        """An array's shape, without reading it; UserError if there is no such array."""
        return self._array(name).shape

    def names(self, group: str) -> list[str]:
        """The arrays of an inner group, sorted; none if there is no such group."""
        return [path.rpartition("/")[2] for path in self.arrays(group)]

    def arrays(self, group: str | None = None) -> dict[str, zarr.Array[Any]]:
        """Every array, or every one directly in a group, by path, sorted; only metadata is read."""
        zarr = library()

        listed = (path.rpartition("/") for path in self.attributes["manifest"])
        paths = sorted(path for path, _, file in listed if file == seal.ROOT)
        members = {path: self._member(path) for path in paths if group in (None, path.rpartition("/")[0])}
        return {path: member for path, member in members.items() if isinstance(member, zarr.Array)}


class Store:
    """All artifacts in one folder. Reading never creates anything."""

    def __init__(self, root: Path | str):
        self.root = Path(root)
        memory.share_heap()  # before Zarr starts its threads

    def __repr__(self) -> str:
        return f"<store in {str(self.root)!r}>"

    def folder(self, kind: str, name: str) -> Path:
        return self.root / FOLDERS[kind] / checked_name(name)

    def versions(self, kind: str, name: str) -> list[int]:
        """Published versions, oldest first."""
        return numbers(self.folder(kind, name), "zarr")

    def names(self, kind: str) -> list[str]:
        folder = self.root / FOLDERS[kind]
        return [path.name for path in entries(folder) if NAME.fullmatch(path.name)]

    def refs(self, kind: str) -> Iterator[Ref]:
        """Every published version of a kind."""
        for name in self.names(kind):
            for version in self.versions(kind, name):
                yield Ref(name, version, kind)

    def resolve(self, ref: str | Ref, kind: str | None = None) -> Ref:
        """The full reference (kind, name, version) for `ref`; the UserError suggests similar names."""
        ref = Ref.parse(ref) if isinstance(ref, str) else ref
        wanted = kind or ref.kind
        if kind and ref.kind and kind != ref.kind:
            raise UserError(f"{ref.kind}/{ref} is a {ref.kind} artifact, but a {kind} artifact is needed.")
        among = [wanted] if wanted else list(FOLDERS)
        kinds = [k for k in among if self.versions(k, ref.name)]
        if not kinds:
            names = {name for k in among for name in self.names(k) if self.versions(k, name)}
            if not names:
                raise UserError(f"There is no {wanted or ''} artifact in {self.root} yet.".replace("  ", " "))
            raise unknown(f"{wanted or ''} artifact".strip(), ref.name, names)
        if len(kinds) > 1:
            raise UserError(f"'{ref}' names several artifacts: {', '.join(f'{k}/{ref}' for k in kinds)}.")
        versions = self.versions(kinds[0], ref.name)
        version = ref.version or versions[-1]
        if version not in versions:
            raise UserError(f"{ref.name} has no version {version}; there is v{', v'.join(map(str, versions))}.")
        return Ref(ref.name, version, kinds[0])

    def path(self, ref: Ref) -> Path:
        assert ref.kind is not None
        return self.folder(ref.kind, ref.name) / f"v{ref.version}.zarr"

    def open(self, ref: str | Ref, kind: str | None = None, thorough: bool = False) -> Artifact:
        """The artifact, checked: all its files are there (and unchanged, if `thorough`), and its schema is known."""
        full = self.resolve(ref, kind)
        assert full.kind is not None
        attributes = seal.opened(self.path(full), thorough)
        check(attributes, full, self.path(full))
        return Artifact(full, self.path(full), attributes)

    def newest(self, kind: str) -> Artifact:
        """The most recently published artifact of a kind."""
        refs = list(self.refs(kind))
        if not refs:
            maker = {"data": "prepare", "latents": "generate", "run": "train", "report": "report"}[kind]
            raise UserError(f"There is no {kind} artifact in {self.root} yet; make one with `fedktl {maker}`.")
        return self.open(max(refs, key=lambda ref: (self.path(ref).stat().st_mtime_ns, ref.version)))

    @contextmanager
    def write(
        self, kind: str, name: str, settings: Mapping[str, Any], seed: int | None,
        made_from: Mapping[str, Source], version: int | None = None,
    ) -> Iterator[Writer]:  # fmt: skip
        """Write the next version of `kind/name` inside a `with`; it appears, whole, on `publish`, at the latest at the end.

        On an exception nothing is left behind. `version` is a number that was reserved earlier (a run's).
        """
        folder = self.folder(kind, name)
        attributes = {
            "kind": kind, "schema": SCHEMAS[kind], "settings": dict(settings), "seed": seed,
            "made_from": {role: source.identity for role, source in made_from.items()},
            "software": {**software()}, "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }  # fmt: skip

        def move(group: Path) -> Artifact:
            with name_lock(folder):
                return self._place(group, Ref(name, version or next_version(folder), kind))

        with self.writable(folder), scratch(folder) as hidden:
            writer = Writer(hidden / "group", attributes, move)
            yield writer
            writer.publish()

    def receive(self, ref: Ref, attributes: Mapping[str, Any], gather: Callable[[Path], None]) -> Artifact:
        """Publish an artifact made elsewhere, once `gather` has put all its files into the group it is given.

        On an exception the group stays hidden, and the next attempt for the same artifact is given it again.
        """
        assert ref.kind is not None
        folder = self.folder(ref.kind, ref.name)
        with self.writable(folder), resumed(folder, attributes["seal"][:32]) as hidden:
            group = hidden / "group"
            group.mkdir(exist_ok=True)
            gather(group)
            seal.sync_all(group)
            seal.opened(group)
            with name_lock(folder):
                return self._place(group, self.vacant(ref))

    def vacant(self, ref: Ref) -> Ref:
        """`ref` with the number of the next version, or with its own if no version or unfinished work has that."""
        assert ref.kind is not None
        folder = self.folder(ref.kind, ref.name)
        if ref.version in taken(folder):
            raise UserError(f"{ref} is already there; leave out the version to get the next one.")
        return Ref(ref.name, ref.version or next_version(folder), ref.kind)

    def _place(self, group: Path, ref: Ref) -> Artifact:
        """Make a whole group appear. Hold `name_lock`."""
        os.utime(group)  # `newest` goes by the time of publishing
        group.rename(self.path(ref))
        seal.sync(self.path(ref).parent)
        return Artifact(ref, self.path(ref), seal.attributes(self.path(ref)))

    @contextmanager
    def writable(self, folder: Path) -> Iterator[None]:
        """Turn what the disk refuses into a sentence about the store; other errors pass through."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            if error.errno in LOCKLESS:
                raise UserError(
                    f"The disk of the store {self.root} can't lock files ({error.strerror}), and locks keep two writers "
                    "apart; keep the store on another disk."
                ) from error
            if not _concerns(error, self.root):
                raise
            raise UserError(f"The store {self.root} can't be written ({error.strerror or error}).") from error

    def remove(self, ref: Ref) -> None:
        """Delete one published version, and what lies beside it with the same number."""
        path = self.path(ref)
        with self.writable(path.parent), name_lock(path.parent):
            path.with_suffix(".html").unlink(missing_ok=True)
            for doomed in (path.with_suffix(".partial"), path):
                if doomed.exists():
                    erase(doomed)

    def leftovers(self) -> list[Path]:
        """Folders that killed writers left behind: nobody holds their lock, and nothing can be resumed from them."""
        found = []
        for path in (path for kind in FOLDERS.values() for name in entries(self.root / kind) for path in entries(name)):
            if UNFINISHED.fullmatch(path.name):
                with self.writable(path.parent), name_lock(path.parent):  # a writer holds it until its folder is locked
                    if path.is_dir() and not resumable(path) and unlocked(path):
                        found.append(path)
        return sorted(found)


def check(attributes: Mapping[str, Any], ref: Ref, shown: Path | str) -> None:
    """UserError unless these are the attributes of an artifact of the kind in `ref` that this program can read."""
    assert ref.kind is not None
    found, schema = attributes.get("kind"), attributes.get("schema")
    if found != ref.kind:
        raise UserError(f"{shown} says it is '{found}'; it lies in the folder of another kind.")
    if type(schema) is not int or schema < 1:
        raise UserError(f"{shown} has no schema version; make the artifact again.")
    if schema > (known := SCHEMAS[ref.kind]):
        raise UserError(
            f"{ref} has {found} schema {schema}, but this fedktl reads schemas up to {known}; install a newer version."
        )
    for name, wanted in ATTRIBUTES.items():
        if not isinstance(attributes.get(name, ...), wanted):
            raise UserError(f"{shown} does not record its {name} properly; make the artifact again.")


@cache
def software() -> dict[str, str]:
    """Versions of Python and of the libraries that shape a result."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _concerns(error: OSError, root: Path) -> bool:
    """Whether the disk or a file of the store caused the error, rather than something else that a stage reads."""
    named = [Path(os.fsdecode(name)).absolute() for name in (error.filename, error.filename2) if name]
    inside = any(path.is_relative_to(root.absolute()) or root.absolute().is_relative_to(path) for path in named)
    return inside or error.errno in DISK
