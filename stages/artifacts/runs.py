"""The runs of a store, finished or not: which run each is, and how far it has come. No array is read, nothing heavy imported."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.artifacts import partial, seal
from stages.artifacts.folders import taken
from stages.artifacts.refs import Ref
from stages.artifacts.store import Store
from stages.errors import UserError
from stages.settings import DECISIVE, Train

OFF = {"clip": 0.0, "noise": 0.0}  # hyperparameters that did not always exist: runs of before are as if they were off


def identity(facts: Mapping[str, Any]) -> str:
    """A digest of what decides a run's result: algorithm, hyperparameters, settings, seed, and the contents of its sources.

    `facts` are what a run records, finished or not. How many rounds it has is not part of it.
    """
    settings = Train().as_dict() | facts["settings"]
    decisive = {
        "algorithm": facts["algorithm"], "hyper": _plain(OFF | facts["hyper"]), "seed": facts["seed"],
        "settings": _plain({name: settings[name] for name in DECISIVE}),
        "pretrained": facts.get("pretrained", settings["pretrained"]),
        "sources": {role: source["seal"] for role, source in facts["made_from"].items()},
    }  # fmt: skip
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """1 and 1.0 are the same value."""
    return {name: float(value) if type(value) is int else value for name, value in values.items()}


@dataclass(frozen=True)
class Kept:
    """A run of the store: `state` is "done", "unfinished" or "failed", whether or not a process is working on it."""

    ref: Ref
    path: Path  # v3.zarr, or v3.partial
    facts: Mapping[str, Any]
    identity: str
    rounds: int  # done; of an unfinished run, those of its newest checkpoint
    changed: int  # when, in nanoseconds
    state: str
    failure: Mapping[str, Any] | None = None  # `sentence`, `rounds`, `time`

    @property
    def place(self) -> tuple[str, bool]:
        """Which engine runs it, and whether its clients keep their models; it can be resumed nowhere else."""
        return self.facts["settings"].get("engine", "local"), "weights" in self.facts.get("federation", {})

    def covers(self, wanted: Train) -> bool:
        """Whether it is done and has all the rounds that are wanted, or ran out of patience before."""
        had = self.facts["settings"]
        early = self.rounds < had["rounds"] and 0 < wanted.patience <= had["patience"]
        return self.state == "done" and (self.rounds >= wanted.rounds or early)


def kept(store: Store, among: Collection[str] | None = None) -> Iterator[Kept]:
    """Every run of the store, or of some names, by name and version; what can't be read is left out."""
    for name in store.names("run") if among is None else sorted(among):
        folder = store.folder("run", name)
        for number in taken(folder):
            try:
                yield _one(folder, Ref(name, number, "run"))
            except (UserError, OSError, KeyError, TypeError, AttributeError, ValueError):
                continue


def _one(folder: Path, ref: Ref) -> Kept:
    """UserError, or whatever else foreign facts lead to, for what can't be read."""
    path = folder / f"v{ref.version}.zarr"
    if path.exists():
        facts = seal.attributes(path)["facts"]
        rounds, failure, state = int(facts.get("rounds", facts["settings"]["rounds"])), None, "done"
    else:
        path = path.with_suffix(".partial")
        facts, rounds, failure = partial.facts(path), partial.progress(path), partial.failure(path)
        state = "failed" if failure else "unfinished"
    return Kept(ref, path, facts, identity(facts), rounds, path.stat().st_mtime_ns, state, failure)
