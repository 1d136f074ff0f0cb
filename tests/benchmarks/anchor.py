"""The anchor: FedKTL's accuracy on cifar10-mini beside the curve of the public reference implementation.

    python -m tests.benchmarks.anchor FOLDER [--centroids trained|mean] [--rounds 20] [--seed 0]

FOLDER holds `cifar10-mini.npz` (the partition) and `initial-server-state.npz` (the recorded start). They are not part
of this repository: CIFAR-10 is not ours to ship.
"""

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

import stages
from stages import algorithms, presets
from stages.algorithms import fedktl, fedktl_reference
from stages.artifacts.schemas import read
from stages.artifacts.store import Store
from stages.generate import generate
from stages.observer import Observer
from stages.reporting.scores import accuracy
from stages.settings import Generate, Train

REFERENCE = (
    9.28, 80.48, 81.51, 82.34, 82.34, 82.17, 82.34, 82.47, 81.88, 82.84, 82.47, 81.48, 80.81, 81.58, 81.38, 82.17,
    80.74, 80.25, 79.28, 81.61, 82.24,
)  # fmt: skip


def write_data(store: Store, folder: Path):
    """The recorded partition as a data artifact, rows in the reference's order."""
    with np.load(folder / "cifar10-mini.npz") as mini:
        images = mini["images"].transpose(0, 3, 1, 2)
        labels, client, test = mini["labels"].astype(np.int64), mini["client"], mini["split"] == 1
    counts = np.zeros((20, 10), np.int64)
    np.add.at(counts, (client, labels), 1)
    with store.write("data", "cifar10-mini", {}, 0, {}) as writer:
        for name, wanted in (("train", ~test), ("validation", np.zeros_like(test)), ("test", test)):
            rows = np.flatnonzero(wanted)
            rows = rows[np.argsort(client[rows], kind="stable")]
            writer.array(f"{name}/images", images[rows])
            writer.array(f"{name}/labels", labels[rows])
            offsets = np.cumsum([0, *np.bincount(client[rows], minlength=20)]).astype(np.int64)
            writer.array(f"{name}/offsets", offsets)
        writer.array("counts", counts)
        writer.attributes["class_names"] = [str(label) for label in range(10)]


def recorded_start(folder: Path):
    """FedKTL's `init`, but with the server state that the reference run started from."""
    with np.load(folder / "initial-server-state.npz") as arrays:
        start = {name: torch.from_numpy(arrays[name]) for name in arrays.files}

    def init(hyper, task, rng):
        state, _ = fedktl.init(hyper, task, rng)
        state.transformer.load_state_dict({k[6:]: v for k, v in start.items() if k.startswith("F.mlp.")})
        state.centroids = start["centroids"].float()
        projection = {name: start[f"proj_fc.{name}"] for name in ("weight", "bias")}
        return state, fedktl.Shared(task, F.normalize(start["etf"].float().T), projection)

    return init


class Print(Observer):
    def advance(self, steps=1, **facts):
        print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in facts.items()), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--centroids", default="trained")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    fedktl_reference.ALGORITHM = dataclasses.replace(fedktl_reference.ALGORITHM, init=recorded_start(asked.folder))
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        write_data(store, asked.folder)
        generate(store, "standin", Generate(generator="tests.helpers.standin:make", samples=2000))
        preset = presets.load("reference")
        given = {"rounds": asked.rounds, "seeds": (asked.seed,), "generator": "tests.helpers.standin:make"}
        settings = Train.make(preset.train, given)
        hyper = algorithms.assigned(["fedktl"], [f"centroids={asked.centroids}"], preset.algorithms)
        begun = time.monotonic()
        (artifact,) = stages.train(store, None, settings, hyper, Print())
        seconds = time.monotonic() - begun
        run = read(artifact)
        curve = accuracy(run)
    print("ours     ", " ".join(f"{value:.2f}" for value in curve))
    print("reference", " ".join(f"{value:.2f}" for value in REFERENCE[: len(curve)]))
    print(f"rounds 5..: ours {curve[5:].mean():.2f}, reference {np.mean(REFERENCE[5 : len(curve)]):.2f}")
    print(
        f"{seconds / asked.rounds:.2f} s a round, centroids {asked.centroids}, seed {asked.seed}, torch {torch.__version__}"
    )


if __name__ == "__main__":
    main()
