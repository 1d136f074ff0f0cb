"""Federations to measure: real CIFAR-10 images if there are any, else made-up ones of the same sizes."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages import algorithms, presets
from stages.artifacts.store import Store
from stages.engines.plan import RunSpec
from stages.settings import Train
from tests.benchmarks.anchor import write_data

LATENT_DIM, BANK = 64, 2000


@dataclass(frozen=True)
class Case:
    """A federation of the public reference's behaviour: batches of 10, fixed order, dropped tail, FedKTL."""

    models: str
    clients: int
    images: int  # training images of a client; a third as many to test on
    real: bool = False  # takes the recorded partition where there is one


CASES = {
    "small": Case("small", 20, 450, real=True),
    "HtFE8": Case("HtFE8", 20, 30),
    "cnn200": Case("CNN", 200, 40),
    "table1": Case("HtFE8", 20, 2250),  # CIFAR-10's 45,000 training images
}
TINY = Case("tests.helpers.toys:narrow", 2, 30)  # a few hundred parameters, BatchNorm and dropout


@contextmanager
def stored(case: Case, folder: Path | None = None):
    """A store with the case's data and a bank, which goes away."""
    with tempfile.TemporaryDirectory() as scratch:
        store = Store(scratch)
        if folder and case.real:
            write_data(store, folder)
        else:
            make_data(store, case)
        make_bank(store)
        yield store


def plan(store: Store, case: Case, **settings) -> RunSpec:
    """FedKTL as the public reference runs it; `settings` override those of `fedktl train`."""
    preset, algorithm = presets.load("reference"), algorithms.get("fedktl")
    hyper = algorithm.Hyper.make(preset.algorithms["fedktl"])
    chosen = Train.make(
        preset.train, {"models": case.models, "pairs": "bank", "device": "cpu", "channels_last": True}, settings
    )
    return RunSpec(algorithm, hyper, chosen, 0, store.newest("data"), store.newest("latents"))


def make_data(store: Store, case: Case, classes: int = 10, per_client: int = 2) -> None:
    """Each class has its own colour, noise on top; client k has the classes k, k + 1, ... of it."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (classes, 3, 1, 1))
    counts = np.zeros((case.clients, classes), np.int64)
    with store.write("data", "made-up", {}, 0, {}) as writer:
        for split, each in (("train", case.images), ("validation", 0), ("test", case.images // 3)):
            client = np.repeat(np.arange(case.clients), each)
            labels = (client + rng.integers(0, per_client, len(client))) % classes
            images = (colours[labels] + rng.integers(-60, 60, (len(labels), 3, 32, 32))).clip(0, 255).astype(np.uint8)
            writer.array(f"{split}/images", images)
            writer.array(f"{split}/labels", labels.astype(np.int64))
            writer.array(f"{split}/offsets", np.arange(case.clients + 1, dtype=np.int64) * each)
            np.add.at(counts, (client, labels), 1)
        writer.array("counts", counts)
        writer.attributes["class_names"] = [str(label) for label in range(classes)]


def make_bank(store: Store) -> None:
    rng = np.random.default_rng(0)
    with store.write("latents", "made-up", {}, 0, {}) as writer:
        writer.array("latents", rng.standard_normal((BANK, LATENT_DIM)).astype(np.float32))
        writer.array("images", rng.integers(0, 256, (BANK, 3, 32, 32), dtype=np.uint8))
        writer.attributes["generator"] = {"family": "made-up"}
