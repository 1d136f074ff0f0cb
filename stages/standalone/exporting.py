"""Clients of a run -> folders that predict without it, each checked before it appears."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from stages.artifacts.store import Artifact, Store
from stages.errors import UserError, unknown
from stages.export import appearing
from stages.models.split import parameters
from stages.observer import SILENT, Observer
from stages.standalone import folder as on_disk
from stages.standalone import programs
from stages.standalone.client import Client, scores
from stages.standalone.trained import Clients, Trained, clients


@dataclass(frozen=True)
class Format:
    file: str
    write: Callable[[Client, Path, str], None]
    read: Callable[[Path], Callable[[Tensor], Tensor]]


FORMATS = {
    "safetensors": Format(on_disk.TENSORS, on_disk.write_tensors, lambda path: on_disk.read(path.parent, None)),
    "pt2": Format("model.pt2", programs.write_pt2, programs.read_pt2),
    "onnx": Format("model.onnx", programs.write_onnx, programs.read_onnx),
}


@dataclass(frozen=True)
class Exported:
    """What became of a client."""

    client: int
    folder: Path
    round: int
    right: int  # test images that the files classify correctly
    recorded: int  # and that the run did
    images: int


def export_clients(
    store: Store, run: Artifact, folder: Path, client: int | None = None, weights: str | None = None,
    formats: Sequence[str] = ("safetensors",), observer: Observer = SILENT,
) -> list[Exported]:  # fmt: skip
    """Write a client into a new or empty folder, or without `client` each into one of its own below; all appear, or none.

    The files are read back and classify the client's test images: UserError unless as many are right as the run recorded.
    """
    for name in formats:
        if name not in FORMATS:
            raise unknown("format of a client", name, FORMATS)
    found = clients(store, run, weights)
    everyone = range(len(found)) if client is None else [client]
    done = []
    observer.start("exporting clients", len(everyone))
    with appearing(folder) as draft:
        for number in everyone:
            own = draft / f"client-{number:03d}" if client is None else draft
            own.mkdir(exist_ok=True)
            done.append(export_client(found, number, own, formats, folder / own.name if client is None else folder))
            observer.advance(client=number)
    observer.finish()
    return done


def export_client(run: Clients, number: int, folder: Path, formats: Sequence[str], final: Path) -> Exported:
    found = run[number]
    client, labels = found.client, found.labels
    recorded = 0 if math.isnan(found.accuracy) else round(found.accuracy * len(labels))
    description = on_disk.config(client, about(run, found))
    (folder / on_disk.CONFIG).write_text(description, encoding="utf-8")
    for name in formats:
        form = FORMATS[name]
        form.write(client, folder / form.file, description)
        found_again = scores(form.read(folder / form.file), found.images, parameters(client.model))
        right = int((found_again.argmax(1) == labels).sum())
        if right != recorded:
            raise UserError(
                f"Client {number}'s {form.file} gets {right} of its {len(labels)} test images right, and "
                f"{run.run.ref} recorded {recorded}; nothing was exported. Export where the run was made: other machines round differently."
            )
    return Exported(number, final, run.round, right, recorded, len(labels))


def about(run: Clients, found: Trained) -> dict[str, Any]:
    """What people and other programs want to know of a client."""
    return {
        "input": "float32 [images, 3, size, size], RGB: byte / 127.5 - 1, which is (byte / 255 - mean) / std",
        "mean": [0.5] * 3, "std": [0.5] * 3,
        "output": "scores float32 [images, classes]: the largest is the label's, their softmax are probabilities",
        "scores": found.client.rule, "tensors": groups(found.client),
        "run": run.run.identity, "data": str(run.data.ref), "client": found.number,
        "weights": run.weights, "round": run.round,
        "accuracy": None if math.isnan(found.accuracy) else found.accuracy, "test_images": len(found.labels),
        "licence_of_generator": run.licence,
    }  # fmt: skip


def groups(client: Client) -> list[str]:
    """What the client predicts with: `base`, `head`, `shared.etf`, `download.prototypes` and the like."""
    names = (name.split(".") for name in client.used())
    return sorted({".".join(parts[: 1 if parts[0] in ("base", "head") else 2]) for parts in names})
