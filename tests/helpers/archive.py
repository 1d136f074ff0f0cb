"""Small artifacts of each kind with numbers that are known by heart.

Run as `python -m tests.helpers.archive` once per schema version: it writes the store below
tests/artifacts/archive that must open for ever. The tests use its functions for fresh artifacts, too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save

from stages.artifacts.refs import Ref
from stages.artifacts.store import SCHEMAS, Artifact, Store

CLASS_NAMES = ["circle", "square", "star"]
PAGE = "<!doctype html><title>Report</title><p>Über 62.5 %</p>"
ROWS = [{"algorithm": "fedktl", "last": {"mean": 62.5, "std": 0.0}, "worst_client": 25.0, "validation_selected": None}]


def ramp(*shape: int, dtype: str = "uint8") -> np.ndarray:
    """0, 1, 2, ... in that shape."""
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape)


def write_data(store: Store, name: str = "shapes") -> Artifact:
    """Two clients and three classes; every image counts its pixels on from the one before."""
    with store.write("data", name, {"dataset": "folder", "partition": "iid", "beta": 0.1}, 7, {}) as writer:
        writer.attributes["class_names"] = CLASS_NAMES
        writer.array("counts", np.array([[3, 1, 0], [0, 1, 2]]))
        for split, labels, offsets in (
            ("train", [0, 0, 2, 2], [0, 2, 4]), ("validation", [1], [0, 1, 1]), ("test", [0, 1], [0, 1, 2])
        ):  # fmt: skip
            writer.array(f"{split}/images", ramp(len(labels), 3, 4, 4))
            writer.array(f"{split}/labels", np.array(labels))
            writer.array(f"{split}/offsets", np.array(offsets))
    return published(store, writer)


def write_latents(store: Store, name: str = "bank") -> Artifact:
    with store.write("latents", name, {"generator": "builtin", "samples": 3}, 7, {}) as writer:
        writer.attributes["generator"] = {"family": "builtin", "training": "untrained", "seed": 0}
        writer.array("latents", ramp(3, 2, dtype="float32") / 4)
        writer.array("images", ramp(3, 3, 4, 4))
    return published(store, writer)


def write_run(store: Store, data: Artifact, latents: Artifact, name: str = "fedktl-shapes-s7") -> Artifact:
    """Two rounds, all three states evaluated, two clients; the second round's upload of client 1 was lost."""
    arrays = {
        "rounds/evaluated": np.array([0, 1, 2]),
        "rounds/test_accuracy": np.array([[1.0, 0.0], [1.0, 1.0], [0.25, 1.0]]),
        "rounds/validation_accuracy": np.array([[0.0, np.nan], [1.0, np.nan], [0.5, np.nan]]),
        "rounds/test_samples": np.array([1, 1]),
        "rounds/validation_samples": np.array([1, 0]),
        "rounds/joined": np.array([[True, True], [True, True]]),
        "rounds/uploaded": np.array([[True, True], [True, False]]),
        "rounds/upload_floats": np.array([[6, 6], [6, 0]]),
        "rounds/upload_bytes": np.array([[40, 40], [40, 0]]),
        "rounds/download_floats": np.array([[0, 0], [150, 150]]),
        "rounds/download_bytes": np.array([[0, 0], [624, 624]]),
        "rounds/peak_memory": np.array([1 << 30, 1 << 31]),
        "seconds/local training": np.array([1.5, 2.0]),
        "seconds/evaluation": np.array([0.25, 0.5]),
        "client_metrics/loss": np.array([[4.0, 2.0], [3.0, np.nan]]),
        "server_metrics/mmd": np.array([2.0, 1.0]),
        "server_metrics/mse": np.array([0.5, 0.25]),
        "pairs/rounds": np.array([1, 2]),
        "pairs/labels": np.array([[0, 1, 2], [0, 2, -1]]),
        "pairs/images": ramp(2, 3, 3, 4, 4).astype(np.uint8),
        "pairs/centroids": ramp(3, 2, dtype="float32"),
        "checkpoint": blob(rounds=np.array(2)),
        **{f"clients/{client:03d}": blob(weight=np.full((2, 3), client, np.float32)) for client in range(2)},
    }
    settings = {"algorithm": ["fedktl"], "rounds": 2, "lr": 0.01, "models": "small", "seeds": [7]}
    with store.write("run", name, settings, 7, {"data": data, "latents": latents}) as writer:
        writer.attributes["facts"] = {
            "algorithm": "fedktl", "hyper": {"mu": 50.0, "lambda": 1.0}, "data": str(data.ref),
            "latents": str(latents.ref), "models": "small", "architectures": ["CNN", "ResNet-4"],
            "parameters": [6, 6], "device": "cpu",
        }  # fmt: skip
        for path, values in arrays.items():
            writer.array(path, values)
    return published(store, writer)


def write_report(store: Store, run: Artifact, name: str = "report") -> Artifact:
    with store.write("report", name, {"runs": [str(run.ref)]}, None, {"run-0": run}) as writer:
        writer.attributes["rows"] = ROWS
        writer.array("page", np.frombuffer(PAGE.encode(), np.uint8))
        writer.array("figures/accuracy", np.frombuffer(b"<svg/>", np.uint8))
    return published(store, writer)


def write_all(store: Store) -> dict[str, Artifact]:
    data, latents = write_data(store), write_latents(store)
    run = write_run(store, data, latents)
    return {"data": data, "latents": latents, "run": run, "report": write_report(store, run)}


def write(store: Store, name: str = "a", value: int = 0, kind: str = "report", **more) -> Ref:
    """An array of one value, where only the store matters."""
    with store.write(kind, name, {"value": value}, 0, {}, **more) as writer:
        writer.array("values", np.full((3, 2), value))
    return writer.ref


def everything(store: Store) -> list[str]:
    """The paths in a store except its locks."""
    return sorted(str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.name != ".lock")


def blob(**tensors: np.ndarray) -> np.ndarray:
    return np.frombuffer(save(tensors), np.uint8)


def published(store: Store, writer) -> Artifact:
    assert writer.ref is not None
    return store.open(writer.ref)


if __name__ == "__main__":
    root = Path(__file__).parents[1] / "artifacts" / "archive" / f"schema-{max(SCHEMAS.values())}"
    assert not root.exists(), f"{root} was written before and stays as it is"
    write_all(Store(root))
    for lock in root.rglob(".lock"):
        lock.unlink()
