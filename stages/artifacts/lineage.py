"""What an artifact was made from, all the way back, and whether each source is still there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from stages.artifacts.refs import FOLDERS, IDENTITY, Ref
from stages.artifacts.store import Store
from stages.errors import UserError


@dataclass(frozen=True)
class Node:
    """An artifact in a lineage.

    `state` is `whole`, `damaged`, `missing`, `replaced` (the reference now names another artifact) or `circular`;
    only a whole one has sources, and `note` says what is wrong with the others.
    """

    ref: str
    kind: str | None
    state: str
    note: str = ""
    created: str | None = None  # UTC
    seal: str | None = None  # as recorded by what was made from it
    sources: dict[str, Node] = field(default_factory=dict)  # by role: data, latents, ...

    def __str__(self) -> str:
        name = f"{self.kind}/{self.ref}" if self.kind else self.ref
        return f"{name}, {self.state}: {self.note}" if self.note else f"{name}, made {self.created}"

    def as_dict(self) -> dict[str, Any]:
        """The tree as JSON-able values."""
        return {**vars(self), "sources": {role: node.as_dict() for role, node in self.sources.items()}}


def lineage(store: Store, ref: str | Ref) -> Node:
    """The tree of sources of `ref`; UserError only if `ref` itself names no artifact."""
    full = store.resolve(ref)
    return _trace(store, {"kind": full.kind, "ref": str(full)}, frozenset())


def _trace(store: Store, made: Any, above: frozenset[Ref]) -> Node:
    """`made` is what an artifact recorded about a source; it can be anything if others wrote the artifact."""
    kind, text, seal = map(made.get, IDENTITY) if isinstance(made, dict) else [None] * 3
    if not isinstance(text, str) or not isinstance(seal, str | None) or kind not in (None, *FOLDERS):
        return Node("?", None, "damaged", "What was recorded about it is not a reference.")
    try:
        ref = store.resolve(text, kind)
    except UserError as error:
        return Node(text, kind, "missing", str(error), seal=seal)
    if ref in above:
        return Node(text, ref.kind, "circular", "It is recorded as a source of itself.", seal=seal)
    try:
        attributes = store.open(ref).attributes
    except UserError as error:
        return Node(text, ref.kind, "damaged", str(error), seal=seal)
    created = str(attributes.get("created"))
    if seal not in (None, attributes["seal"]):
        return Node(text, ref.kind, "replaced", "This reference now names another artifact.", created, seal)
    sources = {role: _trace(store, source, above | {ref}) for role, source in attributes["made_from"].items()}
    return Node(text, ref.kind, "whole", "", created, attributes["seal"], sources)
