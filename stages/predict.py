"""Image files -> the classes that a trained client gives them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from stages.data.images import Files
from stages.observer import SILENT, Observer
from stages.standalone.client import Client, scores

BATCH = 256  # images decoded at a time


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of an image, and their probabilities: the softmax of the client's scores."""

    image: Path
    classes: list[str]
    probabilities: list[float]


def predict(client: Client, images: Sequence[Path], top: int = 1, observer: Observer = SILENT) -> list[Prediction]:
    """Files of any size and mode, read as `prepare` reads them. UserError names one that is not an image."""
    told = client.description
    files = Files(images, told.image_size, told.squeeze)
    found = []
    observer.start("predicting", len(images))
    for start in range(0, len(images), BATCH):
        rows = np.arange(start, min(start + BATCH, len(images)))
        ranked = scores(client, torch.from_numpy(files[rows])).softmax(1).sort(descending=True)
        for row, values, labels in zip(rows.tolist(), ranked.values.tolist(), ranked.indices.tolist(), strict=True):
            found.append(Prediction(images[row], [told.class_names[label] for label in labels[:top]], values[:top]))
        observer.advance(len(rows))
    observer.finish()
    return found
