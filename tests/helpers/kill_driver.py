"""Forks each stage again and again and kills it with -9 at a random moment.

Goes on until KILLS children of each were killed at work; those that had finished before do not count. Prints both numbers
by stage as one JSON line. One process does it for all stages, because starting it takes longer than most of the kills.
"""

import json
import os
import random
import signal
import time

import stages
from stages.artifacts.schemas import read
from stages.artifacts.store import Store
from stages.generate import generate
from stages.prepare import prepare
from stages.report import figures, report
from stages.settings import Generate, Prepare, Report, Train
from tests.helpers.toy_runs import QUICK

PLAN = Train.make(QUICK, {"data": "toy", "latents": "bank", "rounds": 4, "checkpoint_every": 1})
HYPER = {"fedktl": {"server_epochs": 2}}


STAGES = {
    "prepare": lambda store: prepare(
        store,
        "killed",
        Prepare(dataset="tests.helpers.toys:halves", clients=4, beta=1.0, min_samples=10, image_size=16),
    ),
    "generate": lambda store: generate(
        store, "killed", Generate(generator="tests.helpers.toys:linear", samples=100, batch_size=20, image_size=16)
    ),
    "train": lambda store: stages.train(store, "killed", PLAN, HYPER, again=True),  # goes on with what was killed
    "report": lambda store: report(store, "killed", Report(runs=("finished",), columns=other_columns(store))),
}


def other_columns(store: Store) -> tuple[str, ...]:
    """Not those of the newest report, which else would be there already."""
    return ("algorithm", "last")[: 1 + len(store.versions("report", "killed")) % 2]


def child(stage: str, store: Store) -> int:
    """Fork; the child runs the stage silently and exits."""
    number = os.fork()
    if number == 0:
        code = 1
        try:
            STAGES[stage](store)
            code = 0
        finally:
            os._exit(code)
    return number


def tortured(stage: str, store: Store, kills: int) -> dict[str, int]:
    """How many children were killed at work, and how many had finished before."""
    rng = random.Random(stage)
    STAGES[stage](store)  # what is imported on first use is imported now, and not again by every child
    begun = time.monotonic()
    STAGES[stage](store)
    whole = time.monotonic() - begun
    outcome, checked = {"killed": 0, "finished": 0}, set()
    while outcome["killed"] < kills and outcome["finished"] < 3 * kills:
        number = child(stage, store)
        time.sleep(rng.uniform(0, 0.8 * whole))
        os.kill(number, signal.SIGKILL)
        _, status = os.waitpid(number, 0)
        outcome["killed" if os.WIFSIGNALED(status) else "finished"] += 1
        for ref in {ref for kind in ("data", "latents", "run", "report") for ref in store.refs(kind)} - checked:
            read(store.open(ref, thorough=True))  # whatever looks finished is whole
            checked.add(ref)
    return outcome


def main(store: Store, kills: int) -> None:
    """Run in a process of its own, which has one thread."""
    figures.pictures = lambda *groups_and_labels: []  # drawing takes most of a report's time, and writes nothing
    print(json.dumps({stage: tortured(stage, store, kills) for stage in STAGES}))
