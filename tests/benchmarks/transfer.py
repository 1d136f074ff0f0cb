"""Where and when does the transfer pay? FedKTL with three generators beside training without any.

    python -m tests.benchmarks.transfer FOLDER STORE [--part sound ...] [--rounds 30] [--seeds 0 1 2] [--only ROW ...]

FOLDER holds `cifar10-mini.npz`, as for the anchor, and for --part full `cifar10.npz`. Runs go to STORE; finished ones are not
run again, unfinished ones go on from their checkpoint and shorter ones from their end, so the same command goes on where it was
stopped, and several processes can share the work with --only. `python -m tests.benchmarks.results STORE` keeps what came out.

reference, sound: 20 clients share the partition's 12,000 images. scarce: at most ten images of a class a client, where
rounds are cheap enough to try what the transfer depends on. shots-2, -9, -23: the paper's cloud-edge case, one client.
digits-2, -9: the same with handwritten digits, which the built-in generator has nothing of. digits: ten clients share them.
folder: images of the partition as a folder of PNG files, ten clients of three classes, twenty images of each; folder-dealt:
the same, dealt anew for each seed. full: all 60,000 images by the partition's label counts times five, which are the
published ones to within two images a client and class.
"""

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import stages
from stages import algorithms, presets
from stages.artifacts.store import Store
from stages.generate import generate
from stages.prepare import prepare
from stages.settings import Generate, Prepare, Train
from tests.benchmarks.anchor import write_data

GENERATORS = {
    "trained": "builtin",
    "untrained": "tests.helpers.untrained:make",
    "standin": "tests.helpers.standin:make",
}
WHITENED = {"whitened": "tests.helpers.whitened:trained", "whitened-untrained": "tests.helpers.whitened:untrained"}
BANKS = {
    **{name: (generator, 10_000) for name, generator in (GENERATORS | WHITENED).items()},
    "trained-500": ("builtin", 500),
}
BUILTIN = ("trained", "untrained")  # one network, with its training and without


@dataclass(frozen=True)
class Row:
    """An algorithm, its pairs, and what departs from its part's settings."""

    algorithm: str
    bank: str = "trained"
    pairs: str = "bank"
    per_class: int = 1
    hyper: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """A table: its rows, the data they are trained on, and what departs from the program's settings."""

    data: str
    rows: Mapping[str, Row]
    given: dict[str, Any] = field(default_factory=dict)
    preset: str | None = None
    dealt_anew: bool = False  # for each seed

    def artifact(self, seed: int) -> str:
        """The name of its data."""
        return f"{self.data}-{seed}" if self.dealt_anew else self.data


def several(
    algorithm: str, per_class: int, mu: float = 50.0, etf: bool = True, banks: Iterable[str] = BUILTIN
) -> dict[str, Row]:
    """Several pairs a class, which a client does not learn by heart in a round; without `etf` with cross-entropy."""
    head, hyper = "" if etf else "-learned-head", dict[str, Any](mu=mu, etf=etf)
    return {
        f"{bank}{head}-{per_class}-mu-{mu:g}": Row(algorithm, bank, per_class=per_class, hyper=hyper) for bank in banks
    }


ALL = {
    "local": Row("local"),
    "fedproto": Row("fedproto"),
    "no-transfer": Row("fedktl", hyper={"transfer": False}),
    **{f"{bank}-{pairs}": Row("fedktl", bank, pairs) for bank in GENERATORS for pairs in ("bank", "live")},
    **{f"{bank}-bank": Row("fedktl", bank) for bank in WHITENED},
    **several("fedktl", 100, etf=False),
    "gated": Row("fedktl-gated", per_class=100),
}
BOTH = [f"{bank}-{row}" for bank in BUILTIN for row in ("bank", "learned-head-100-mu-50")]
SCARCE = {
    **ALL,
    **{f"mu-{mu:g}": Row("fedktl", hyper={"mu": mu}) for mu in (1.0, 10.0, 250.0)},
    **{f"lambda-{factor:g}": Row("fedktl", hyper={"lambda_": factor}) for factor in (0.1, 10.0)},
    "scale-16": Row("fedktl", hyper={"scale": 16.0}),
    "median-bandwidth": Row("fedktl", hyper={"mmd_bandwidth": "median"}),
    **{f"both-{name}": replace(ALL[name], hyper=ALL[name].hyper | {"statistics": "both"}) for name in BOTH},
    "untrained-F": Row("fedktl", hyper={"mmd": False, "lambda": 0}),
    "trained-centroids": Row("fedktl", hyper={"centroids": "trained"}),
    "small-bank": Row("fedktl", "trained-500"),
    **several("fedktl", 10),
    **several("fedktl", 100),
    **several("fedktl", 1, etf=False),
    **several("fedktl", 100, 10.0, etf=False, banks=WHITENED),
}
FEW_SHOT = {
    "local": Row("local"),
    "no-transfer": Row("ktl", hyper={"transfer": False}),
    **{f"{bank}-{pairs}": Row("ktl", bank, pairs) for pairs in ("bank", "live") for bank in BUILTIN},
    **several("ktl", 10),
    **several("ktl", 100),
    **several("ktl", 1, etf=False),
    **several("ktl", 100, etf=False),
    "gated": Row("fedktl-gated", per_class=100, hyper={"centroids": "trained"}),  # one client: as ktl has it
    **several("ktl", 100, 10.0, etf=False),
    **several("ktl", 100, 10.0, etf=False, banks=WHITENED),
    **several("ktl", 100, 50.0, etf=False, banks=["whitened"]),
    **several("ktl", 100, 200.0, etf=False, banks=["whitened"]),
}
SHOTS = {2: 20, 9: 5, 23: 2}  # images a class: local epochs, such that a round has about forty steps
FULL = {
    name: ALL.get(name, Row(name)) for name in ("trained-live", "local", "fedproto", "gated", "fd", "fedtgp", "fml")
}
FEW = {f"shots-{shots}": shots for shots in SHOTS} | {f"digits-{shots}": shots for shots in (2, 9)}
FOLDER = Part("folder", ALL, {"local_epochs": 5, "eval_every": 2})
PARTS = {
    "reference": Part("cifar10-mini", ALL, preset="reference"),
    "sound": Part("cifar10-mini", ALL),
    "scarce": Part("scarce", SCARCE, {"local_epochs": 2, "eval_every": 2}),
    "digits": Part("digits", ALL),
    "folder": FOLDER,
    "folder-dealt": replace(FOLDER, dealt_anew=True),
    "full": Part("full", FULL, {"eval_every": 2}),
    **{
        name: Part(name, FEW_SHOT, {"models": "FedAvgCNN", "eval_every": 5, "local_epochs": SHOTS[shots]})
        for name, shots in FEW.items()
    },
}


def make_data(store: Store, folder: Path, part: Part, seed: int) -> None:
    """The recorded partition, its images dealt anew, or all images; what is there already is left alone."""
    if store.versions("data", part.artifact(seed)):
        return
    if part.data == "cifar10-mini":
        write_data(store, folder)
    else:
        settings = {"validation_fraction": 0.0, **dealt(store.root.parent, folder, part.data)}
        prepare(store, part.artifact(seed), Prepare(**settings, seed=seed if part.dealt_anew else 0))


def dealt(scratch: Path, folder: Path, name: str) -> dict[str, Any]:
    """Settings of `prepare` for `name`."""
    if name == "digits":
        return {"dataset": "digits", "clients": 10, "beta": 0.3, "min_samples": 20}
    if name == "full":
        given = {"partition": "counts", "counts": str(counts(scratch, folder))}
        return given | {"dataset": "npz", "source": str(folder / "cifar10.npz"), "clients": 20}
    images = {"dataset": "npz", "source": str(pool(scratch, folder / "cifar10-mini.npz"))}
    if name == "scarce":
        return images | {"few_shot": 10}
    if name == "folder":
        return {
            "dataset": "folder", "source": str(as_folder(Path(images["source"]))), "clients": 10, "image_size": 32,
            "partition": "pathological", "classes_per_client": 3, "few_shot": 20,
        }  # fmt: skip
    of = {"dataset": "digits"} if name.startswith("digits") else images | {"merge": False}  # digits are one set
    return of | {"clients": 1, "partition": "iid", "min_samples": 1, "few_shot": FEW[name]}


def counts(scratch: Path, folder: Path) -> Path:
    """A CSV file of the label counts of all images: five times those of the partition."""
    path = scratch / "full-counts.csv"
    with np.load(folder / "cifar10-mini.npz") as mini:
        table = np.zeros((20, 10), np.int64)
        np.add.at(table, (mini["client"], mini["labels"]), 5)
    np.savetxt(path, table, fmt="%d", delimiter=",")
    return path


def pool(scratch: Path, partition: Path) -> Path:
    """The images of the partition in one file, as `fedktl prepare --dataset npz` reads them."""
    path = scratch / "cifar10-mini-pool.npz"
    if not path.exists():
        with np.load(partition) as mini:
            train, test = mini["split"] == 0, mini["split"] == 1
            images, labels = mini["images"], mini["labels"]
        np.savez(path, x_train=images[train], y_train=labels[train], x_test=images[test], y_test=labels[test])
    return path


def as_folder(images: Path) -> Path:
    """A folder of PNG files, one folder a class, as `fedktl prepare --dataset folder` reads it."""
    top = images.with_suffix("")
    with np.load(images) as arrays:
        for split in () if top.exists() else ("train", "test"):
            for i, (image, label) in enumerate(zip(arrays[f"x_{split}"], arrays[f"y_{split}"], strict=True)):
                path = top / f"class-{label}" / f"{split}-{i:05}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(path)
    return top


def run(store: Store, name: str, part: Part, row: Row, rounds: int, seed: int) -> None:
    """Makes the run, or what is missing of it."""
    if not store.versions("latents", row.bank):
        generator, samples = BANKS[row.bank]
        generate(store, row.bank, Generate(generator=generator, samples=samples))
    base = presets.load(part.preset) if part.preset else None
    given = part.given | {"rounds": rounds, "patience": 0, "checkpoint_every": 5, "workers": 1}
    own: dict[str, Any] = {"algorithm": (row.algorithm,), "data": part.artifact(seed), "seeds": (seed,)}
    own |= {"latents": row.bank, "pairs": row.pairs, "pairs_per_class": row.per_class}
    if row.pairs == "live" and row.bank != "trained":  # code that is not fedktl's must be named to be run
        own["generator"] = BANKS[row.bank][0]
    hyper = [f"{key}={value}" for key, value in row.hyper.items()]
    assigned = algorithms.assigned([row.algorithm], hyper, base.algorithms if base else {})
    (artifact,) = stages.train(store, name, Train.make(base.train if base else {}, given, own), assigned)
    print(name, artifact.ref, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("--part", nargs="+", default=["sound"], choices=PARTS)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--only", nargs="*", help="some of the rows")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    store = Store(asked.store)
    for seed in asked.seeds:
        for name in asked.part:
            make_data(store, asked.folder, PARTS[name], seed)
            for key, row in PARTS[name].rows.items():
                if key in (asked.only or PARTS[name].rows):
                    run(store, f"{name}-{key}-s{seed}", PARTS[name], row, asked.rounds, seed)


if __name__ == "__main__":
    main()
