"""Stage one: images -> data, dealt to clients and divided into training, validation and test."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stages.artifacts.schemas import SPLITS
from stages.artifacts.store import Artifact, Store
from stages.artifacts.writer import Writer
from stages.data import datasets, pfllib
from stages.data.images import Dataset
from stages.data.shares import ClientRows, dealt_out, split
from stages.observer import SILENT, Observer
from stages.randomness import Rng
from stages.settings import Prepare


def prepare(store: Store, name: str, settings: Prepare, observer: Observer = SILENT) -> Artifact:
    """Write a data artifact: per split images uint8 [n, 3, size, size], labels and offsets; counts; class names.

    For a `pfllib` source the settings of the partition are not used: it already has clients.
    Which of its images client k trains and tests on depends only on (seed, k) and on what it was dealt.
    """
    rng = Rng(settings.seed)
    if settings.dataset == "pfllib":
        dataset, dealt = pfllib.read(settings)
    else:
        dataset = datasets.read(settings)
        dealt = dealt_out(dataset, settings, rng)
    for note in dataset.notes:
        observer.note(note)
    shares = [split(dataset, *rows, settings, rng, client) for client, rows in enumerate(dealt)]
    resolved = replace(settings, clients=len(shares))  # a partition from a file has its own number
    if resolved != settings:
        observer.note(f"The partition has {len(shares)} clients.")
    with store.write("data", name, resolved.as_dict(), settings.seed, {}) as writer:
        writer.attributes["class_names"] = dataset.class_names
        write(writer, dataset, shares, observer)
        return writer.publish()


def write(writer: Writer, dataset: Dataset, shares: list[ClientRows], observer: Observer) -> None:
    """Write the images split by split, with one chunk in memory at a time."""
    counts = np.zeros((len(shares), dataset.classes), np.int64)
    observer.start("writing images", sum(len(getattr(share, part)) for share in shares for part in SPLITS))
    for part in SPLITS:
        piles = [getattr(share, part) for share in shares]
        rows, sizes = np.concatenate(piles), [len(pile) for pile in piles]
        labels = dataset.labels[rows]
        np.add.at(counts, (np.repeat(np.arange(len(shares)), sizes), labels), 1)
        images = writer.empty(f"{part}/images", (len(rows), 3, dataset.images.size, dataset.images.size), "uint8")
        step = writer.chunk_rows(f"{part}/images")
        for start in range(0, len(rows), step):
            block = rows[start : start + step]
            images[start : start + len(block)] = dataset.images[block]
            observer.advance(len(block))
        writer.array(f"{part}/labels", labels)
        writer.array(f"{part}/offsets", np.cumsum([0, *sizes], dtype=np.int64))
    writer.array("counts", counts)
    observer.finish()
