"""Everything in a store, published or unfinished, and what a reference or a pattern picks of it."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from stages.artifacts.partial import Partial, unfinished
from stages.artifacts.refs import FOLDERS, Ref
from stages.artifacts.store import Store
from stages.errors import UserError


@dataclass(frozen=True)
class Entry:
    ref: Ref  # with kind and version
    path: Path
    finished: bool

    def __str__(self) -> str:
        return f"{self.ref.kind}/{self.ref}"

    @property
    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    def remove(self, store: Store) -> None:
        """UserError if another process is working on it."""
        if self.finished:
            store.remove(self.ref)
        else:
            Partial.reopen(self.path).discard()

    def matches(self, pattern: str) -> bool:
        """Whether a pattern fits the name, alone or with the version, below the kind or its folder."""
        kind, slash, rest = pattern.rpartition("/")
        assert self.ref.kind is not None
        if slash and kind not in (self.ref.kind, FOLDERS[self.ref.kind]):
            return False
        return any(fnmatchcase(name, rest) for name in (self.ref.name, str(self.ref)))


def listed(store: Store) -> list[Entry]:
    """By kind and name, older versions first."""
    found = []
    for kind in FOLDERS:
        entries = [Entry(ref, store.path(ref), True) for ref in store.refs(kind)]
        for path in unfinished(store, kind):
            entries.append(Entry(Ref(path.parent.name, int(path.stem[1:]), kind), path, False))
        found += sorted(entries, key=lambda entry: (entry.ref.name, entry.ref.version))
    return found


def find(store: Store, text: str) -> Entry:
    """What a reference refers to, the newest version where it names none; UserError if there is no such thing."""
    wanted = Ref.parse(text)
    fitting = [
        entry for entry in listed(store)
        if entry.ref.name == wanted.name
        and wanted.kind in (None, entry.ref.kind)
        and wanted.version in (None, entry.ref.version)
    ]  # fmt: skip
    if fitting and not fitting[-1].finished:
        return fitting[-1]
    full = store.resolve(wanted)
    return Entry(full, store.path(full), True)


def picked(store: Store, patterns: list[str]) -> list[Entry]:
    """What references and patterns with `*` and `?` refer to, each once; UserError for one that refers to nothing."""
    found: dict[str, Entry] = {}
    entries = listed(store)
    for pattern in patterns:
        if not set("*?[") & set(pattern):
            its = [find(store, pattern)]
        elif not (its := [entry for entry in entries if entry.matches(pattern)]):
            raise UserError(f"Nothing in {store.root} fits '{pattern}'; `fedktl artifacts list` shows what there is.")
        found |= {str(entry): entry for entry in its}
    return list(found.values())


def outdated(store: Store, keep: int, patterns: list[str]) -> list[Entry]:
    """Published versions except the newest `keep` of each name, among those that fit the patterns, or among all."""
    by_name: dict[tuple[str | None, str], list[Entry]] = {}
    for entry in picked(store, patterns) if patterns else listed(store):
        by_name[entry.ref.kind, entry.ref.name] = []
    for entry in listed(store):
        if entry.finished and (entry.ref.kind, entry.ref.name) in by_name:
            by_name[entry.ref.kind, entry.ref.name].append(entry)
    return [entry for versions in by_name.values() for entry in versions[: max(0, len(versions) - keep)]]
