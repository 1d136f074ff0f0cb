"""A run that is not finished, as its newest checkpoint has it: read like a finished one, as far as it has come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from stages.artifacts import partial
from stages.artifacts.refs import Ref
from stages.artifacts.schemas import EVALUATED, RUN, census
from stages.artifacts.store import SCHEMAS, Artifact, Store
from stages.errors import UserError
from stages.foreign import understood

HISTORY = "history/"  # what a checkpoint calls the series of rounds
TRIES = 3  # the process that works on the run replaces its checkpoint now and then


@dataclass(frozen=True, repr=False)
class PartialRun(Artifact):
    """The rounds of a run up to its newest checkpoint. It was not published, so it has no seal."""

    series: Mapping[str, np.ndarray]

    def array(self, name: str, rows: slice = slice(None)) -> np.ndarray:
        return np.asarray(self.series[name][rows])

    def arrays(self, group: str | None = None) -> dict[str, Any]:
        return {path: values for path, values in self.series.items() if group in (None, path.rpartition("/")[0])}

    @property
    def planned(self) -> int:
        """The rounds that are planned."""
        return int(self.settings["rounds"])


def opened(store: Store, path: Path) -> PartialRun | None:
    """The run in the folder of unfinished work; None before its first round is saved. UserError if it is damaged."""
    facts = partial.facts(path)
    for _ in range(TRIES):
        if not partial.progress(path):
            return None
        try:
            saved = partial.newest(path)
            series = _history(saved) if saved else {}
            break
        except FileNotFoundError:
            continue
    else:
        raise UserError(f"The checkpoints of {path} are replaced too quickly to be read; try again.")
    return _as_artifact(store, path, facts, series)


@understood("The checkpoint")
def _history(saved: Path) -> dict[str, np.ndarray]:
    """The series alone; the weights beside them may be large."""
    with safe_open(saved, "numpy") as file:
        return {
            name.removeprefix(HISTORY): file.get_tensor(name) for name in [*file.keys()] if name.startswith(HISTORY)
        }


@understood("What the run records about itself")
def _as_artifact(store: Store, path: Path, facts: dict[str, Any], series: dict[str, np.ndarray]) -> PartialRun:
    told = facts.get("federation", {}).get("census")  # of data that its clients have
    sizes = told["sizes"] if told else census(_data(store, facts["made_from"]["data"])).sizes
    for split in EVALUATED:
        series[f"rounds/{split}_samples"] = np.array(sizes[split], np.int64)
    for part in RUN.values():
        if not part.optional and not part.among(series):
            series[part.path] = part.filled({})
    attributes = {
        "kind": "run", "schema": SCHEMAS["run"], "facts": facts, "seal": "", "software": {}, "created": "not finished",
        **{name: facts[name] for name in ("settings", "seed", "made_from")},
    }  # fmt: skip
    return PartialRun(Ref(path.parent.name, int(path.stem[1:]), "run"), path, attributes, series)


def _data(store: Store, identity: dict[str, str]) -> Artifact:
    found = store.open(identity["ref"], "data")
    if found.identity != identity:
        raise UserError(f"data {found.ref} is not the one this run was made from; restore that one to report it.")
    return found
