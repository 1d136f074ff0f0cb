"""Label counts from a file: a PFLlib config.json, or a CSV."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from stages import foreign
from stages.errors import UserError

COUNTS_KEY = "Size of samples for labels in clients"
CONFIG_KEYS = ("num_clients", "num_classes", "non_iid", "balance", "partition", COUNTS_KEY, "alpha", "batch_size")
LARGEST = 10**9  # a count; sums of them stay within int64


def read_counts(path: Path, classes: int) -> np.ndarray:
    """int64 [clients, classes] from a PFLlib config (.json) or from a CSV without a header, one row per client."""
    counts = counts_of(read_config(path), path, classes) if path.suffix == ".json" else read_csv(path)
    if counts.shape[1] != classes:
        raise UserError(
            f"{path} counts {counts.shape[1]} classes, but the images have {classes}; give one column per class."
        )
    wrong = counts[(counts < 0) | (counts > LARGEST)]
    if len(wrong):
        raise UserError(f"{path} holds the count {wrong[0]}; counts must be in 0..{LARGEST}.")
    return counts


def read_csv(path: Path) -> np.ndarray:
    def table(raw: bytes) -> np.ndarray:
        with warnings.catch_warnings(action="ignore"):  # about an empty file
            # NumPy before 2.3 would read 1.5 as 1
            return np.loadtxt(io.BytesIO(raw), np.int64, delimiter=",", ndmin=2, converters=int)

    counts = foreign.parsed(path, "a table of whole numbers", table)
    if not counts.size:
        raise UserError(f"{path} is empty; give one row of counts per client.")
    return counts


def read_config(path: Path) -> dict[str, Any]:
    """The content of a PFLlib config.json."""
    config = foreign.parsed(path, "a PFLlib config.json", json.loads)
    if not isinstance(config, dict):
        raise UserError(f"{path} is not a PFLlib config.json: it is not a table of names and values.")
    return config


def counts_of(config: dict[str, Any], path: Path, classes: int) -> np.ndarray:
    """int64 [clients, classes] from a config's lists of [class, count], one list per client."""
    clients = config.get(COUNTS_KEY)
    if not isinstance(clients, list) or not clients:
        raise UserError(f"{path} has no list '{COUNTS_KEY}' with one entry per client.")
    counts = np.zeros((len(clients), classes), np.int64)
    for client, pairs in enumerate(clients):
        try:
            for label, count in pairs:
                if not (type(label) is type(count) is int and 0 <= label < classes):
                    raise ValueError
                counts[client, label] += count
        except (TypeError, ValueError, OverflowError):
            raise UserError(
                f"{path}: the entry of client {client} in '{COUNTS_KEY}' must be a list of [class, count] "
                f"with classes in 0..{classes - 1}."
            ) from None
    return counts
