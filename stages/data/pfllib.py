"""Partitions in PFLlib's and HtFLlib's layout: train/0.npz, test/0.npz, ..., config.json.

Each .npz holds, pickled under `data`, {'x': float32 [n, channels, h, w] in [-1, 1], 'y': int64 [n]}.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from stages.artifacts.schemas import Data, Split
from stages.data.archives import array, pickled, write_pickled
from stages.data.counts import CONFIG_KEYS, COUNTS_KEY, read_config
from stages.data.folders import listed, source
from stages.data.images import Dataset, Joined, Pixels
from stages.errors import UserError, printable
from stages.settings import Prepare

NAMES = {"dirichlet": "dir", "pathological": "pat", "extended-dirichlet": "exdir"}
PIECE = 1024  # images turned into another type at once

Shares = list[tuple[np.ndarray, np.ndarray]]  # per client the row numbers of its train and of its test images


def read(settings: Prepare) -> tuple[Dataset, Shares]:
    """All clients' images, and each client's rows, in the order of the files."""
    root = source(settings, "a folder with train/0.npz, test/0.npz, ... and config.json")
    config = read_config(root / "config.json")
    clients = _count(config, root, "num_clients")
    parts, labels, darkest = [], [], 1.0
    for path in (root / split / f"{client}.npz" for split in ("train", "test") for client in range(clients)):
        pixels, its_labels, low = _client(path)
        parts.append(Pixels(pixels, settings.image_size, squeeze=settings.squeeze))
        labels.append(its_labels)
        darkest = min(darkest, low)
    if darkest >= 0:
        raise UserError(f"No pixel in {root} is below 0; images must be normalised to -1..1, as PFLlib does it.")
    ends = np.cumsum([len(part) for part in parts])
    rows = np.split(np.arange(ends[-1]), ends[:-1])
    together = np.concatenate(labels)
    if config.get("num_classes") is None:  # as in the config.json for MNIST that PFLlib once shipped
        classes = 1 + int(together.max(initial=0))
    else:
        classes = _count(config, root, "num_classes")
    names = [str(label) for label in range(classes)]
    more = [name for name in config if name not in CONFIG_KEYS]
    notes = [f"Not used from config.json: {listed(printable(name, 40) for name in more)}."] if more else []
    dataset = Dataset(Joined(parts), together, int(ends[clients - 1]), names, str(root), notes=notes)
    return dataset, list(zip(rows[:clients], rows[clients:], strict=True))


def _count(config: dict[str, Any], root: Path, name: str) -> int:
    value = config.get(name)
    if type(value) is not int or not 1 <= value <= 100_000:
        raise UserError(
            f"{root / 'config.json'} has {name} {printable(repr(value), 40)}; it must be a whole number above 0."
        )
    return value


def _client(path: Path) -> tuple[np.ndarray, np.ndarray, float]:
    """Images uint8 [n, channels, h, w] and labels int64 [n] of one file, and its lowest pixel before conversion."""
    content = pickled(path, "data")
    if not isinstance(content, dict) or not {"x", "y"} <= set(content):
        raise UserError(f"{path} does not hold 'x' and 'y'; it was not made by PFLlib.")
    x, y = (array(content[name], f"'{name}' in {path}") for name in ("x", "y"))
    if x.dtype.kind != "f" or x.ndim != 4 or x.shape[1] not in (1, 3) or y.dtype.kind not in "iu" or y.ndim != 1:
        raise UserError(f"{path} holds x {x.dtype} {x.shape} and y {y.dtype} {y.shape}, not images and their labels.")
    if len(x) != len(y):
        raise UserError(f"{path} holds {len(x)} images but {len(y)} labels; each image needs one.")
    low, high = (float(x.min()), float(x.max())) if x.size else (1.0, 1.0)
    if not (low >= -1.001 and high <= 1.001):
        raise UserError(f"The pixels in {path} go from {low:g} to {high:g}; they must be normalised to -1..1.")
    pixels = np.empty(x.shape, np.uint8)
    for start in range(0, len(x), PIECE):
        piece = slice(start, start + PIECE)
        pixels[piece] = np.rint((x[piece] * 0.5 + 0.5) * 255).clip(0, 255)
    return pixels, y.astype(np.int64), low


def export_pfllib(data: Data, folder: Path) -> None:
    """Write a data artifact so that PFLlib and HtFLlib (with NumPy 1.26 or newer) read it; validation images go into train/."""
    settings = data.artifact.settings
    rule = settings.get("partition") if settings.get("dataset") != "pfllib" else None  # otherwise it is unknown
    config = {
        "num_clients": data.clients, "num_classes": data.classes, "non_iid": rule != "iid", "balance": False,
        "partition": NAMES.get(rule or ""),
        COUNTS_KEY: [[[int(label), int(row[label])] for label in np.flatnonzero(row)] for row in data.counts],
        "alpha": settings.get("beta"), "batch_size": 10,
    }  # fmt: skip
    try:
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder} is not empty; give a new folder.")
        for split, parts in (("train", (data.train, data.validation)), ("test", (data.test,))):
            (folder / split).mkdir(parents=True)
            for client in range(data.clients):
                write_pickled(folder / split / f"{client}.npz", "data", _record(parts, client))
        (folder / "config.json").write_text(json.dumps(config))
    except OSError as error:
        raise UserError(f"{folder} can't be written ({error.strerror or error}).") from error


def _record(parts: tuple[Split, ...], client: int) -> dict[str, np.ndarray]:
    images = np.concatenate([part.images[part.rows(client)] for part in parts])
    labels = np.concatenate([part.labels[part.rows(client)] for part in parts])
    return {"x": (images.astype(np.float32) / 255 - 0.5) / 0.5, "y": labels}
