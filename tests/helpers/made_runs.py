"""Artifacts with numbers chosen by hand, as the prepare, generate and train stages write them."""

from __future__ import annotations

from typing import Any

import numpy as np

from stages.artifacts.store import Artifact, Store

CLASSES = ["zero", "one", "<script>alert(1)</script>"]
ARCHITECTURES = ["CNN", "ResNet-4"]
SETTINGS = {"models": "small", "rounds": 2, "lr": 0.01, "device": "auto", "data": None, "algorithm": ["fedktl"]}
ROW = {
    "algorithm": "fedktl", "data": "digits_10@v1", "models": "small", "variant": "mu=10", "runs": ["a@v1", "b@v2"],
    "seeds": [0, 1], "rounds": 30, "last": {"mean": 84.414, "std": 0.126}, "validation_selected": None,
    "best_on_test": {"mean": 85.0, "std": None}, "worst_client": 61.239, "spread": 7.5,
    "auc": {"mean": 97.126, "std": None}, "auc_spread": 1.5,
    "upload_floats_per_round": 90000.0, "download_floats_per_round": 7168000.0, "upload_bytes_per_round": 360000.0,
    "download_bytes_per_round": 1.2e7, "upload_floats_total": 2.7e6, "download_floats_total": 2.15e8,
    "upload_bytes_total": 10800000.0, "download_bytes_total": 3.6e8,
    "seconds_per_round": {"train": 1.25, "align": 0.5}, "peak_memory_bytes": 3 * 2**29,
}  # fmt: skip


def made_data(
    store: Store, name: str = "digits", class_names: list[str] = CLASSES, counts: Any = None, **settings: Any
) -> Artifact:
    """Without images: a report has no need of them. Two clients and three classes unless told."""
    counts = np.array([[3, 0, 1], [0, 5, 2]]) if counts is None else np.asarray(counts)
    with store.write("data", name, {"dataset": "digits", "beta": 0.1, **settings}, 0, {}) as writer:
        writer.attributes["class_names"] = class_names
        writer.array("counts", counts.astype(np.int64))
    return store.open(writer.ref)


def made_latents(store: Store, name: str = "builtin", family: str = "builtin", weights: str | None = None) -> Artifact:
    settings = {"generator": family, "samples": 4, "weights": weights}
    with store.write("latents", name, settings, 0, {}) as writer:
        writer.attributes["generator"] = {"family": family, "source": weights}
        writer.array("latents", np.zeros((4, 2), np.float32))
    return store.open(writer.ref)


def made_run(
    store: Store, name: str, data: Artifact, latents: Artifact | None = None, *, algorithm: str = "fedktl",
    seed: int = 0, hyper: dict[str, Any] | None = None, settings: dict[str, Any] | None = None,
    architectures: list[str] = ARCHITECTURES, **arrays: Any,
) -> Artifact:  # fmt: skip
    """A run of two rounds by two clients with 1 and 3 test images; `arrays` replaces any of its arrays by path."""
    sources = {"data": data} | ({"latents": latents} if latents else {})
    chosen = SETTINGS | (settings or {}) | {"seeds": [seed]}
    with store.write("run", name, chosen, seed, sources) as writer:
        writer.attributes["facts"] = {
            "algorithm": algorithm, "data": str(data.ref), "latents": str(latents.ref) if latents else None,
            "models": chosen["models"], "architectures": architectures, "parameters": [100] * len(architectures),
            "hyper": hyper or {}, "device": "cpu",
        }  # fmt: skip
        for path, values in (default_arrays() | arrays).items():
            writer.array(path, np.asarray(values))
    return store.open(writer.ref)


def default_arrays() -> dict[str, Any]:
    """Weighted test accuracy 25, 100, 62.5 %; weighted validation accuracy 50, 75, 75 %."""
    return {
        "rounds/evaluated": np.array([0, 1, 2]),
        "rounds/test_accuracy": np.array([[1.0, 0.0], [1.0, 1.0], [0.25, 0.75]]),
        "rounds/validation_accuracy": np.array([[0.5, 0.5], [1.0, 0.5], [0.5, 1.0]]),
        "rounds/test_samples": np.array([1, 3]),
        "rounds/validation_samples": np.array([2, 2]),
        "rounds/joined": np.ones((2, 2), bool),
        "rounds/uploaded": np.ones((2, 2), bool),
        "rounds/upload_floats": np.array([[10, 20], [10, 0]]),
        "rounds/upload_bytes": np.array([[40, 80], [40, 0]]),
        "rounds/download_floats": np.array([[0, 0], [100, 100]]),
        "rounds/download_bytes": np.array([[0, 0], [400, 400]]),
        "rounds/peak_memory": np.array([1024, 2048]),
        "seconds/train": np.array([1.0, 2.0]),
        "seconds/server": np.array([0.5, 0.5]),
        "client_metrics/loss": np.array([[4.0, 2.0], [2.0, np.nan]]),
        "server_metrics/mmd": np.array([2.0, 1.0]),
        "server_metrics/mse": np.array([0.5, 0.25]),
        "pairs/rounds": np.array([1, 2]),
        "pairs/labels": np.array([[0, 2], [1, -1]]),
        "pairs/images": np.arange(2 * 2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 2, 3, 4, 4),
        "pairs/centroids": np.zeros((2, 2), np.float32),
    }
