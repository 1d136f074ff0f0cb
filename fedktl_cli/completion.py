"""What a shell completes: names of artifacts, algorithms, models and presets. Nothing heavy is imported for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from stages.artifacts.refs import FOLDERS

Completion = Callable[[Any, str], list[str]]


def artifacts(*kinds: str) -> Completion:
    """Names of the artifacts of these kinds, or of all; after an `@` their versions, unfinished ones too."""

    def complete(ctx: Any, incomplete: str) -> list[str]:
        name, at, _ = incomplete.rpartition("@")
        folders = [_store(ctx) / FOLDERS[kind] for kind in kinds or FOLDERS]
        if at:
            paths = (
                path
                for folder in folders
                for path in (folder / name).glob("v*.*")
                if path.suffix in (".zarr", ".partial")
            )
            return _starting(incomplete, (f"{name}@{path.stem}" for path in paths))
        return _starting(incomplete, (path.name for folder in folders for path in folder.glob("[!.]*")))

    return complete


def algorithms(ctx: Any, incomplete: str) -> list[str]:
    from stages.algorithms import NAMES

    return _starting(incomplete, NAMES)


def models(ctx: Any, incomplete: str) -> list[str]:
    from stages.models.groups import GROUPS, NAMES

    return _starting(incomplete, (*GROUPS, *NAMES))


def presets(ctx: Any, incomplete: str) -> list[str]:
    from stages import presets

    return _starting(incomplete, presets.names())


def choices(known: Iterable[str]) -> Completion:
    """One of a setting's choices."""
    return lambda ctx, incomplete: _starting(incomplete, known)


def _store(ctx: Any) -> Path:
    """The store that the command line so far names."""
    return Path(ctx.find_root().params.get("store") or os.environ.get("FEDKTL_STORE") or "artifacts")


def _starting(incomplete: str, names: Iterable[str]) -> list[str]:
    return sorted({name for name in names if name.startswith(incomplete)})


SETTINGS = {  # completions of settings by name, besides those that have choices
    "algorithm": algorithms, "models": models, "data": artifacts("data"), "latents": artifacts("latents"),
}  # fmt: skip
