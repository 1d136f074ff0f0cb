"""The generated images of a run as sheets: one row a round, one column a class."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np

from stages.artifacts.schemas import Run

ROUNDS = 6  # rounds shown at most
WIDTH = 1000  # pixels of a sheet, about what the page gives it
GAP = 4
PAPER = 238  # grey of the cells without a picture


@dataclass(frozen=True)
class Sheet:
    """Some of the classes; `png` is a data URI whose cells lie in the order of `rounds` and `classes`."""

    rounds: list[int]
    classes: list[str]
    columns: int  # cells side by side, of which the last sheet may fill fewer
    png: str


def sheets(run: Run, class_names: list[str]) -> list[Sheet]:
    """Sheets of ten classes, or of twenty where there are many; none if no pairs were kept."""
    last = len(run.pair_rounds) - 1
    kept = np.unique(np.linspace(0, last, ROUNDS).round().astype(int)) if last >= 0 else np.zeros(0, int)
    labels = [int(label) for label in np.unique(run.pair_labels[kept]) if label >= 0]
    columns = 10 if len(labels) <= 20 else 20
    rounds = [int(run.pair_rounds[row]) for row in kept]
    found = []
    for start in range(0, len(labels), columns):
        shown = labels[start : start + columns]
        names = [class_names[label] if label < len(class_names) else f"class {label}" for label in shown]
        found.append(Sheet(rounds, names, columns, _png(_grid(run, kept, shown, columns))))
    return found


def _grid(run: Run, kept: np.ndarray, labels: list[int], columns: int) -> np.ndarray:
    """uint8 [height, width, 3]: the picture of each class in each kept round, grey where there was none."""
    side = WIDTH // columns
    cell = side - GAP
    sheet = np.full((side * len(kept), side * columns, 3), 255, dtype=np.uint8)
    for y, row in enumerate(kept):
        for x, label in enumerate(labels):
            found = np.flatnonzero(run.pair_labels[row] == label)
            picture = _scaled(run.pair_images[row, found[0]], cell) if len(found) else PAPER
            sheet[y * side : y * side + cell, x * side : x * side + cell] = picture
    return sheet


def _scaled(image: np.ndarray, side: int) -> np.ndarray:
    """uint8 [3, size, size] as [side, side, 3]: small pictures keep their pixels, large ones are averaged down."""
    from PIL import Image

    method = Image.Resampling.NEAREST if image.shape[-1] <= side else Image.Resampling.BOX
    return np.asarray(Image.fromarray(image.transpose(1, 2, 0)).resize((side, side), method))


def _png(pixels: np.ndarray) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
