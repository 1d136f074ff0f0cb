"""A study: runs that differ in algorithm, settings, hyperparameters and seed. What each is called, and what the store has of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from stages.artifacts.refs import LONGEST, checked_name
from stages.artifacts.runs import Kept, identity, kept
from stages.artifacts.store import Store
from stages.engines.plan import RemoteData, RunSpec
from stages.settings import DECISIVE


@dataclass(frozen=True)
class Point:
    """One run of a study."""

    name: str
    spec: RunSpec

    @cached_property
    def identity(self) -> str:
        return identity(self.spec.facts())

    @property
    def place(self) -> tuple[str, bool]:
        """Where it runs, as finished runs record it."""
        return self.spec.settings.engine, isinstance(self.spec.data, RemoteData)


class Study:
    """The points of a study, and what the store has of each.

    Under a `name` of its own, a study's runs are those called so, or NAME-something; else any run of the same identity.
    """

    def __init__(self, store: Store, specs: Sequence[RunSpec], name: str | None):
        self.store, self.name = store, name and checked_name(name)
        different = {identity(spec.facts()): spec for spec in specs}
        self.points = [Point(self._called(spec, list(different.values())), spec) for spec in different.values()]
        self._names: dict[str, set[str]] = {}  # of the runs there were, by identity
        for one in kept(store):
            self._names.setdefault(one.identity, set()).add(one.ref.name)

    def found(self, point: Point) -> list[Kept]:
        """The runs of a point, newest first."""
        names = {point.name, *self._names.get(point.identity, ())}
        same = [one for one in kept(self.store, names) if one.identity == point.identity and self._ours(one.ref.name)]
        return sorted(same, key=lambda one: (one.changed, one.ref.version), reverse=True)

    def best(self, point: Point, again: bool = False) -> Kept | None:
        """The run to use or to resume: the newest that is complete or unfinished, else the longest; None if it must begin.

        With `again`, only an unfinished one.
        """
        found = [one for one in self.found(point) if not (again and one.state == "done")]
        for one in found:
            if one.covers(point.spec.settings) or (one.state != "done" and one.place == point.place):
                return one
        longer = (one for one in found if one.place == point.place and one.facts["settings"].get("keep") != "selected")
        return max(longer, key=lambda one: one.rounds, default=None)

    def _ours(self, name: str) -> bool:
        return self.name is None or name == self.name or name.startswith(f"{self.name}-")

    def _called(self, spec: RunSpec, specs: Sequence[RunSpec]) -> str:
        """The name asked for if there is one run, else one that says what sets it apart."""
        if self.name and len(specs) == 1:
            return self.name
        parts = [self.name, spec.algorithm.name, spec.data.ref.name, *differences(spec, specs), f"s{spec.seed}"]
        name = "-".join(part for part in parts if part)
        name = re.sub(r"[^A-Za-z0-9._-]", ".", name)  # the colon of a user's own algorithm
        if len(name) > LONGEST:
            name = f"{name[: LONGEST - 17]}-{identity(spec.facts())}"
        return checked_name(name)


def differences(spec: RunSpec, specs: Sequence[RunSpec]) -> list[str]:
    """The settings and hyperparameters that are not the same in all runs of this algorithm, as in `lr0.1` and `mu10`."""
    own, *alike = (choices(one) for one in (spec, *specs) if one.algorithm.name == spec.algorithm.name)
    return [f"{name}{shown(own[name])}" for name in own if any(other[name] != own[name] for other in alike)]


def choices(spec: RunSpec) -> dict[str, Any]:
    """What a run may be chosen to differ in, besides its algorithm and seed."""
    settings = spec.settings.as_dict()
    return {name: settings[name] for name in DECISIVE} | spec.hyper.as_dict()


def shown(value: object) -> str:
    """A value in a name."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value).removesuffix(".0")
