"""Seconds of a round over real nodes on this machine, beside those of the same clients in one process.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.nodes FOLDER [--clients 3] [--rounds 10]

FedProto with the 4-layer CNN on made-up images, 24 for training and 16 for the accuracies of each client: next to
nothing to compute, so what is left is what the federation costs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

import numpy as np

import stages
from stages.artifacts.schemas import read
from stages.artifacts.store import Store
from stages.settings import Train
from tests.helpers.federations import Terminals, deal

PLAN = {"algorithm": ("fedproto",), "models": "CNN", "round_timeout": 600.0}


def seconds(run) -> list[float]:
    """Of each round, all phases but the last evaluation, which no other round follows."""
    phases = {name: run.group[f"seconds/{name}"][:] for name in run.names("seconds")}
    return [
        round(float(sum(values[place] for values in phases.values())), 2)
        for place in range(len(phases["evaluation"]) - 1)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=10)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    deal(asked.folder, asked.clients, size=32)
    settings = Train.make(PLAN, {"rounds": asked.rounds, "data": "toy"})
    (near,) = stages.train(Store(asked.folder / "all"), "near", settings, {})
    terminals = Terminals(asked.folder)
    try:
        port = terminals.up()
        time.sleep(5)
        for client in range(asked.clients):
            terminals.join(port, client)
        command = ["--algorithm", "fedproto", "--models", "CNN", "--rounds", asked.rounds, "--name", "far"]
        begun = time.monotonic()
        assert terminals.train(port, *command).wait() == 0, terminals.log("train")
        whole = time.monotonic() - begun
    finally:
        for name in list(terminals.running):
            terminals.end(name)
    far = Store(asked.folder / "server").open("far")
    assert np.array_equal(read(near).test_accuracy, read(far).test_accuracy)
    print(f"{whole:.1f} s in all, load {os.getloadavg()[0]:.1f}; of each round")
    for name, run in (("one process", near), ("nodes", far)):
        print(f"{name:12} median {statistics.median(seconds(run)):.2f}", *seconds(run))


if __name__ == "__main__":
    main()
