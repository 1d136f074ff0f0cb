"""A check for users' own tests: whether an algorithm follows the contract in stages.algorithms.contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stages.algorithms.common.records import rebuilt, tensors
from stages.algorithms.contract import AnyAlgorithm
from stages.artifacts.store import Artifact, Store
from stages.engines import checkpoint, rounds
from stages.engines.assembly import assemble
from stages.engines.federation import State
from stages.engines.local import in_process
from stages.engines.plan import RunSpec
from stages.errors import UserError
from stages.observer import SILENT
from stages.settings import Train

CLASSES, LATENT_DIM, SIDE = 4, 8, 16
IMAGES = {"train": 12, "validation": 4, "test": 6}  # of a client
# what differs between two runs of different lengths
MEASURED = ("history/seconds/", "history/rounds/peak_memory", "history/pairs/")


def check_algorithm(
    algorithm: AnyAlgorithm, hyper: Mapping[str, Any] | None = None, clients: int = 3, models: str = "resnet4"
) -> None:
    """Run two rounds among a few clients with a few images each, on the CPU of this process; takes seconds.

    Every other upload is lost. Raises UserError if a message is not a dataclass of tensors, a client reports no loss, the
    scores of an image are not float32 numbers, one per class, or a run resumed after its first round differs from an
    uninterrupted one. What the algorithm's own functions raise is passed on.
    """
    settings = {
        "models": models,
        "feature_dim": 16,
        "batch_size": 6,
        "join_ratio": 0.7,
        "drop_rate": 0.5,
        "device": "cpu",
    }
    own = algorithm.Hyper.make(hyper or {})
    with TemporaryDirectory() as folder:
        store = Store(Path(folder))
        data, bank = toy_data(store, clients), toy_bank(store)

        def played(count: int, earlier: State | None = None) -> State:
            plan = RunSpec(watched(algorithm), own, Train.make(settings, {"rounds": count}), 0, data, bank)
            federation, state = assemble(plan)
            if earlier is not None:
                checkpoint.unpack(state, checkpoint.pack(earlier), algorithm, federation.device)
            rounds.run(federation, state, in_process(federation, state.clients), SILENT, lambda state: None)
            return state

        whole, resumed = (checkpoint.pack(state) for state in (played(2), played(2, played(1))))
    for name in sorted(whole.keys() | resumed.keys()):
        if not name.startswith(MEASURED) and not alike(whole.get(name), resumed.get(name)):
            raise UserError(
                f"{algorithm.name}: {name} differs between a run resumed after round 1 and an uninterrupted one; what persists "
                "must be in client.private, the server's state or the download, and randomness must come from rng."
            )


def alike(one: Tensor | None, other: Tensor | None) -> bool:
    return one is not None and other is not None and torch.equal(one.nan_to_num(), other.nan_to_num())


def watched(algorithm: AnyAlgorithm) -> AnyAlgorithm:
    """The algorithm with checks on what its functions return."""
    watch = Watch(algorithm)
    servers: dict[str, Any] = {
        name: partial(watch.served, function, name)
        for name in ("server_update", "paired_server_update")
        if (function := getattr(algorithm, name)) is not None
    }
    return replace(algorithm, init=watch.init, client_update=watch.client_update, predict=watch.predict, **servers)


@dataclass(frozen=True)
class Watch:
    """The functions of an algorithm, each followed by checks on what it returned. Any breach is a UserError."""

    algorithm: AnyAlgorithm

    def init(self, *arguments: Any) -> Any:
        return self.several(self.algorithm.init, "init", "server state, shared", *arguments)

    def client_update(self, *arguments: Any) -> Any:
        found = self.several(self.algorithm.client_update, "client_update", "upload, metrics", *arguments)
        self.message(found[0], "an upload")
        self.reported(found[1], "a client's metrics")
        self.must("loss" in found[1], "a client's metrics must hold its loss")
        return found

    def served(self, function: Callable[..., Any], name: str, *arguments: Any) -> Any:
        found = self.several(function, name, "state, download, metrics", *arguments)
        self.message(found[1], "a download")
        kind = self.algorithm.Download or type(None)
        right = found[1] is None or isinstance(found[1], kind)
        self.must(right, f"a download must be a {kind.__name__}, its Download")
        self.reported(found[2], "the server's metrics")
        return found

    def predict(self, *arguments: Any) -> Tensor:
        scores = self.algorithm.predict(*arguments)
        kind, shape = (getattr(scores, name, None) for name in ("dtype", "shape"))
        right = isinstance(scores, Tensor) and (kind, shape) == (torch.float32, (len(arguments[-1]), CLASSES))
        self.must(right, f"predict must return float32 [B, {CLASSES}], not {kind} {list(shape or ())}")
        usable = (scores < torch.inf).all() and scores.isfinite().any(1).all()  # a comparison with NaN is false
        self.must(bool(usable), "predict must return numbers, or -inf for a class that an image can't have")
        return scores

    def several(self, function: Callable[..., Any], name: str, parts: str, *arguments: Any) -> tuple[Any, ...]:
        found: tuple[Any, ...] = function(*arguments)
        self.must(isinstance(found, tuple) and len(found) == parts.count(",") + 1, f"{name} must return ({parts})")
        return found

    def message(self, found: Any, what: str) -> None:
        if found is None:
            return
        self.must(is_dataclass(found) and not isinstance(found, type), f"{what} must be a dataclass or None")
        for name, part in vars(found).items():
            values = list(part.values()) if isinstance(part, Mapping) else [part]
            flat = all(isinstance(value, Tensor) for value in values)
            self.must(flat, f"{what}'s {name} must be a tensor or a mapping of tensors, not {type(part).__name__}")
        names = tensors(rebuilt(type(found), tensors(found))).keys()
        self.must(names == tensors(found).keys(), f"{what} can't be rebuilt from its tensors")

    def reported(self, metrics: Any, what: str) -> None:
        scalars = isinstance(metrics, Mapping) and all(isinstance(v, Tensor) and v.ndim == 0 for v in metrics.values())
        self.must(scalars, f"{what} must be a mapping of scalar tensors")

    def must(self, kept: bool, sentence: str) -> None:
        if not kept:
            raise UserError(f"{self.algorithm.name}: {sentence}.")


def toy_data(store: Store, clients: int) -> Artifact:
    """Client k has no image of class k mod 4; every class has its own colour, plus noise."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (CLASSES, 3, 1, 1))
    counts = np.zeros((clients, CLASSES), np.int64)
    with store.write("data", "toy", {}, 0, {}) as writer:
        for split, each in IMAGES.items():
            own = [np.delete(np.arange(CLASSES), client % CLASSES) for client in range(clients)]
            labels = np.concatenate([np.resize(classes, each) for classes in own])
            noise = rng.integers(-40, 40, (len(labels), 3, SIDE, SIDE))
            writer.array(f"{split}/images", (colours[labels] + noise).clip(0, 255).astype(np.uint8))
            writer.array(f"{split}/labels", labels)
            writer.array(f"{split}/offsets", np.arange(clients + 1) * each)
            np.add.at(counts, (np.arange(clients).repeat(each), labels), 1)
        writer.array("counts", counts)
        writer.attributes["class_names"] = [str(label) for label in range(CLASSES)]
        return writer.publish()


def toy_bank(store: Store) -> Artifact:
    rng = np.random.default_rng(0)
    with store.write("latents", "bank", {}, 0, {}) as writer:
        writer.array("latents", rng.standard_normal((40, LATENT_DIM)).astype(np.float32))
        writer.array("images", rng.integers(0, 256, (40, 3, SIDE, SIDE), dtype=np.uint8))
        writer.attributes["generator"] = {"family": "made up"}
        return writer.publish()
