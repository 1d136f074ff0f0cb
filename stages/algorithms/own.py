"""A user's own algorithm, `package.module:ALGORITHM`; what its functions raise becomes a sentence."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import partial
from typing import Any

from stages import plugins
from stages.algorithms.contract import Algorithm, AnyAlgorithm
from stages.errors import UserError


def load(path: str) -> AnyAlgorithm:
    """The algorithm at the path, which is its name from then on: a run is resumed by it."""
    found = plugins.attribute(path, "algorithm")
    if not isinstance(found, Algorithm):
        raise UserError(f"'{path}' is a {type(found).__name__}, not a stages.algorithms.contract.Algorithm.")
    parts = {field.name: getattr(found, field.name) for field in fields(found)}
    guarded: dict[str, Any] = {
        name: partial(plugins.called, f"'{path}' failed in {name}", part)
        for name, part in parts.items()
        if callable(part) and not isinstance(part, type)
    }
    return replace(found, name=path, **guarded)
