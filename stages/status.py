"""What the runs of a store are doing, read from their files alone, so that looking disturbs no run and needs nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stages.artifacts import round_log
from stages.artifacts.partial import HOLDER
from stages.artifacts.presence import present
from stages.artifacts.runs import Kept, kept
from stages.artifacts.store import Store
from stages.artifacts.studies import waiting

RECENT = 10  # rounds from which a run's pace is taken


@dataclass(frozen=True)
class Status:
    """A run of the store, or one that a study in progress has still to begin."""

    run: str
    state: str  # waiting, running, stopped, failed, done
    rounds: int = 0
    planned: int | None = None
    accuracy: float | None = None  # on test images after the last evaluated round, in percent
    seconds: float | None = None  # a round
    left: float | None = None  # seconds until it is done, of a run that is not
    host: str | None = None  # of the process that works on it, as the next two
    process: int | None = None
    since: int | None = None  # seconds since 1970
    why: str | None = None  # it failed


def status(store: Store) -> list[Status]:
    """Runs that are there, by name and version, then those that are waited for."""
    found = [_of(one) for one in kept(store)]
    return found + [Status(name, "waiting") for name in waiting(store)]


def _of(one: Kept) -> Status:
    planned = int(one.facts["settings"]["rounds"])
    if one.state == "done":
        summary = one.facts.get("summary", {})
        return Status(
            str(one.ref), "done", one.rounds, planned, _number(summary, "accuracy"), _number(summary, "seconds")
        )
    holder = present(one.path / HOLDER) or {}
    lines = round_log.read(one.path)
    rounds = max(one.rounds, lines[-1]["round"]) if lines and holder else one.rounds
    accuracies = [line for line in lines if line["round"] <= rounds and "accuracy/test" in line]
    paces = list(_seconds(line for line in lines[-RECENT:] if line["round"]))
    seconds = sum(paces) / len(paces) if paces else None
    state = "running" if holder else "failed" if one.failure else "stopped"
    return Status(
        str(one.ref), state, rounds, planned, _number(accuracies[-1], "accuracy/test") if accuracies else None, seconds,
        None if seconds is None else max(0, planned - rounds) * seconds,
        holder.get("host"), holder.get("process"), holder.get("since"),
        str(one.failure["sentence"]) if one.failure and not holder else None,
    )  # fmt: skip


def _seconds(lines: Iterator[Mapping[str, Any]]) -> Iterator[float]:
    """What each round took, over all phases."""
    for line in lines:
        phases = [_number(line, name) for name in line if name.startswith("seconds/")]
        yield sum(seconds for seconds in phases if seconds is not None)


def _number(facts: Mapping[str, Any], name: str) -> float | None:
    """A number from a file that may be anyone's."""
    value = facts.get(name)
    return float(value) if isinstance(value, (int, float)) and abs(value) < 1e15 else None  # NaN is not below it
