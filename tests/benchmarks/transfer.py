"""Where and when does the transfer pay? FedKTL with three generators beside training without any.

    python -m tests.benchmarks.transfer FOLDER STORE [--part reference|sound|few-shot] [--rounds 30] [--seeds 0 1 2]

FOLDER holds `cifar10-mini.npz`, as for the anchor. Runs go to STORE; those that are there already are not run again, so
the same command goes on where it was stopped, and several processes can share the work with --only. The table of all
runs found is printed at the end.
"""

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stages import algorithms, presets
from stages import train as stage
from stages.artifacts.kinds import read
from stages.artifacts.store import Store
from stages.generate import generate
from stages.prepare import prepare
from stages.reporting import formats
from stages.reporting.rows import over_seeds
from stages.settings import Generate, Prepare, Train
from tests.benchmarks.anchor import write_data

GENERATORS = {"trained": "builtin", "untrained": "tests.untrained:make", "standin": "tests.standin:make"}
SHOTS = {2: 20, 9: 5, 23: 2}  # images a class: local epochs, such that a round has about forty steps
LAST = 5  # evaluations whose mean is the accuracy reported


@dataclass(frozen=True)
class Cell:
    """One row of a table: an algorithm, its pairs, and what departs from the part's settings."""

    algorithm: str
    generator: str = "trained"
    pairs: str = "bank"
    per_class: int = 1
    hyper: dict[str, Any] = field(default_factory=dict)


CELLS = {
    "local": Cell("local"),
    "fedproto": Cell("fedproto"),
    "no-transfer": Cell("fedktl", hyper={"transfer": False}),
    **{f"{g}-{pairs}": Cell("fedktl", g, pairs) for g in GENERATORS for pairs in ("bank", "live")},
    **{f"{g}-bank-10": Cell("fedktl", g, per_class=10, hyper={"mu": 10.0}) for g in ("trained", "untrained")},
}
FEW_SHOT = {
    "local": Cell("local"),
    "no-transfer": Cell("ktl", hyper={"transfer": False}),
    **{f"{g}-bank": Cell("ktl", g) for g in ("trained", "untrained")},
    **{f"{g}-live": Cell("ktl", g, "live") for g in ("trained", "untrained")},
    **{f"{g}-bank-10": Cell("ktl", g, per_class=10, hyper={"mu": 10.0}) for g in ("trained", "untrained")},
}


def prepare_all(store: Store, folder: Path) -> None:
    """The partition, the same images for a single client with few shots, and a bank from each generator."""
    if not store.versions("data", "cifar10-mini"):
        write_data(store, folder)
    file = folder / "cifar10-mini.npz"
    if not all(store.versions("data", f"shots-{shots}") for shots in SHOTS):
        pool = store.root.parent / "cifar10-mini-pool.npz"
        with np.load(file) as mini:
            part = {name: mini["split"] == i for i, name in enumerate(("train", "test"))}
            arrays = {
                f"{a}_{p}": mini[b][rows] for p, rows in part.items() for a, b in (("x", "images"), ("y", "labels"))
            }
            np.savez(pool, **arrays)
        for shots in SHOTS:
            given = {"clients": 1, "partition": "iid", "merge": False, "few_shot": shots, "validation_fraction": 0.0}
            settings = Prepare(dataset="npz", source=str(pool), min_samples=1, **given)
            prepare(store, f"shots-{shots}", settings)
    for name, generator in GENERATORS.items():
        if not store.versions("latents", name):
            generate(store, name, Generate(generator=generator, samples=10_000))


def run(store: Store, name: str, cell: Cell, given: dict[str, Any], preset: str | None, seed: int) -> None:
    if store.versions("run", name):
        return
    base = presets.load(preset) if preset else None
    own = {"algorithm": (cell.algorithm,), "latents": cell.generator, "pairs": cell.pairs, "seeds": (seed,)}
    live = {"generator": GENERATORS[cell.generator]} if cell.pairs == "live" and cell.generator != "trained" else {}
    settings = Train.make(base.train if base else {}, given | own | live | {"pairs_per_class": cell.per_class})
    given_hyper = [f"{key}={value}" for key, value in cell.hyper.items()]
    hyper = algorithms.assigned([cell.algorithm], given_hyper, base.algorithms if base else {})
    stage.train(store, name, settings, hyper)
    print(name, *(f"{value:.2f}" for value in accuracy(store, name)), flush=True)


def accuracy(store: Store, name: str) -> tuple[float, float]:
    """Percent of all test images: mean of the last evaluations, and the best."""
    found = read(store.open(name, "run"))
    curve = found.test_accuracy @ found.test_samples / found.test_samples.sum() * 100
    return float(curve[-LAST:].mean()), float(curve.max())


def table(store: Store, prefix: str, cells: dict[str, Cell], seeds: list[int]) -> None:
    print(f"\n| {prefix} | last {LAST} evaluations | best on test | seeds |\n|---|---|---|---|")
    for cell in cells:
        names = [f"{prefix}-{cell}-s{seed}" for seed in seeds]
        found = [accuracy(store, name) for name in names if store.versions("run", name)]
        if found:
            columns = " | ".join(formats.accuracy(over_seeds(list(scores))) for scores in zip(*found, strict=True))
            print(f"| {cell} | {columns} | {len(found)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("--part", default="reference", choices=("reference", "sound", "few-shot"))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--only", nargs="*", help="some of the rows")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    store = Store(asked.store)
    prepare_all(store, asked.folder)
    few = asked.part == "few-shot"
    cells = FEW_SHOT if few else CELLS
    parts = [f"shots-{shots}" for shots in SHOTS] if few else [asked.part]
    for seed in asked.seeds:
        for part in parts:
            given = {"data": part if few else "cifar10-mini", "rounds": asked.rounds, "patience": 0}
            if few:
                epochs = SHOTS[int(part.removeprefix("shots-"))]
                given |= {"models": "FedAvgCNN", "eval_every": 5, "local_epochs": epochs}
            for name, cell in cells.items():
                if name in (asked.only or cells):
                    preset = "reference" if asked.part == "reference" else None
                    run(store, f"{part}-{name}-s{seed}", cell, given, preset, seed)
    for part in parts:
        table(store, part, cells, asked.seeds)


if __name__ == "__main__":
    main()
