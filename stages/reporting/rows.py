"""Runs -> rows: runs that differ only in their seed are one row, with mean and standard deviation over seeds."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.artifacts.partial_run import PartialRun
from stages.artifacts.schemas import Run
from stages.errors import UserError
from stages.reporting import scores
from stages.settings import SOURCES, Train, names

TRAFFIC = ("upload_floats", "download_floats", "upload_bytes", "download_bytes")
OWN = (*SOURCES, "models")  # settings that the run's facts or seed say better
IDLE = names(Train, affects=False)
HOW_LONG = names(Train, affects=True, resumable=True)  # a run lasts: a longer one is the same run


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seed, by seed."""

    runs: list[Run]
    choices: dict[str, Any]  # what sets it apart from groups of the same algorithm, data and models: mu is 10

    @property
    def planned(self) -> int | None:
        """The rounds that its run is to have; None if it is finished."""
        run = self.runs[0].artifact
        return run.planned if isinstance(run, PartialRun) else None

    @property
    def facts(self) -> dict[str, Any]:
        return self.runs[0].facts

    @property
    def variant(self) -> str:
        """Its choices in words, `mu=10, lr=0.1`, and how far an unfinished run is; or nothing."""
        words = [f"{name}={value}" for name, value in self.choices.items()]
        if self.planned:
            seed, rounds = self.runs[0].artifact.attributes["seed"], len(self.runs[0].joined)
            words += [f"seed {seed}", f"round {rounds} of {self.planned}"]
        return ", ".join(words)

    @property
    def label(self) -> str:
        return label(self.facts["algorithm"], self.variant)


def label(algorithm: str, variant: str) -> str:
    """An algorithm with what sets it apart from its like: `fedktl (mu=10)`."""
    return f"{algorithm} ({variant})" if variant else algorithm


def configuration(run: Run) -> dict[str, Any]:
    """What decides a run's result, except its seed: settings and hyperparameters, under the names a user writes."""
    facts = run.facts
    settings = {name: value for name, value in run.artifact.settings.items() if name not in (*OWN, *IDLE)}
    return {**{name: facts[name] for name in ("algorithm", "data", "models", "latents")}, **settings, **facts["hyper"]}


def latest(runs: Iterable[Run]) -> list[Run]:
    """Without the runs that a later one repeats or extends: the same choices and seed; finished `runs`, oldest first."""
    return list({(_key(run, HOW_LONG), run.artifact.attributes["seed"]): run for run in runs}.values())


def _key(run: Run, without: Collection[str] = ()) -> str:
    """The same for runs that differ in their seed alone; an unfinished run is like no other."""
    if isinstance(run.artifact, PartialRun):
        return str(run.artifact.ref)
    chosen = configuration(run).items()
    return json.dumps({name: value for name, value in chosen if name not in without}, sort_keys=True)


def grouped(runs: Iterable[Run]) -> list[Group]:
    """Groups in the order in which their first runs come; UserError if one data reference means two contents."""
    groups: dict[str, list[Run]] = {}
    seals: dict[str, tuple[str, Run]] = {}
    for run in runs:
        data = run.artifact.sources["data"]
        seal, first = seals.setdefault(data["ref"], (data["seal"], run))
        if seal != data["seal"]:
            raise UserError(
                f"Runs {first.artifact.ref} and {run.artifact.ref} name the same data {data['ref']} but were trained on "
                "different contents; report them apart."
            )
        groups.setdefault(_key(run), []).append(run)
    members = [sorted(group, key=lambda run: run.artifact.attributes["seed"]) for group in groups.values()]
    return [Group(group, _choices(group[0], [other[0] for other in members])) for group in members]


def _choices(run: Run, all_runs: list[Run]) -> dict[str, Any]:
    """The values of the choices that are not the same in every run of this algorithm, data and models."""
    own = configuration(run)
    alike = [configuration(other) for other in all_runs]
    alike = [other for other in alike if all(other[name] == own[name] for name in ("algorithm", "data", "models"))]
    return {name: own[name] for name in own if any(other.get(name) != own[name] for other in alike)}


def row(group: Group) -> dict[str, Any]:
    """What the report says of one group, JSON-able.

    Accuracies are in percent; `std` is the sample standard deviation over seeds (ddof=1), None for one seed.
    Traffic is the sum over all clients and, like the seconds, a mean over seeds; simulated seconds are those of a round's
    slowest client; peak memory and epsilon are the highest of any seed. `evaluated_clients`, the fewest of any seed at its
    last evaluation, is None where these are all. `planned_rounds` is None for finished runs.
    """
    facts, runs = group.facts, group.runs
    selected, aucs = [scores.validation_selected(run) for run in runs], [scores.auc(run) for run in runs]
    return {
        **{name: facts[name] for name in ("algorithm", "data", "models")},
        "variant": group.variant,
        "choices": group.choices,
        "runs": [str(run.artifact.ref) for run in runs],
        "seeds": [run.artifact.attributes["seed"] for run in runs],
        "rounds": max(len(run.joined) for run in runs),
        "planned_rounds": group.planned,
        "last": over_seeds([scores.last(run) for run in runs]),
        "validation_selected": None if None in selected else over_seeds(selected),
        "best_on_test": over_seeds([scores.best_on_test(run) for run in runs]),
        "worst_client": _mean(runs, scores.worst_client),
        "spread": _mean(runs, scores.spread),
        "clients": max(run.clients for run in runs),
        "evaluated_clients": _extreme(min, runs, scores.evaluated_clients),
        "auc": None if None in aucs else over_seeds(aucs),
        "auc_spread": None if None in aucs else _mean(runs, scores.auc_spread),
        **{f"{name}_per_round": _mean(runs, lambda run, name=name: _sent(run, name).mean()) for name in TRAFFIC},
        **{f"{name}_total": _mean(runs, lambda run, name=name: _sent(run, name).sum()) for name in TRAFFIC},
        "seconds_per_round": _seconds(runs),
        "simulated_seconds_per_round": _mean(runs, lambda run: run.simulated_seconds.max(axis=1).mean()),
        "epsilon": _extreme(max, runs, lambda run: scores.promised(run, "epsilon")),
        "delta": _extreme(max, runs, lambda run: scores.promised(run, "delta")),
        "peak_memory_bytes": max(int(run.peak_memory.max()) for run in runs),
    }


def _sent(run: Run, name: str) -> np.ndarray:
    """int64 [R]: one kind of traffic, all clients together."""
    values: np.ndarray = getattr(run, name)
    return np.asarray(values.sum(axis=1))


def over_seeds(values: list[Any]) -> dict[str, float | None]:
    """A single seed has no deviation."""
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)) if len(values) > 1 else None}


def _mean(runs: list[Run], measure: Callable[..., Any]) -> float:
    return float(np.mean([measure(run) for run in runs]))


def _extreme(choose: Callable[..., Any], runs: list[Run], measure: Callable[[Run], Any]) -> Any:
    """The largest or smallest of the runs that have a value; None if none has."""
    return choose((found for run in runs if (found := measure(run)) is not None), default=None)


def _seconds(runs: list[Run]) -> dict[str, float]:
    """Mean seconds a round of every phase that any run had."""
    per_run = [scores.seconds_per_round(run) for run in runs]
    phases = {phase: None for seconds in per_run for phase in seconds}
    return {phase: float(np.mean([seconds.get(phase, 0.0) for seconds in per_run])) for phase in phases}
