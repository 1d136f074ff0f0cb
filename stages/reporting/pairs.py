"""The generated images of a run as sheets: one row a round, one column a class."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np

from stages.artifacts.schemas import Run

ROUNDS = 18  # rows of all sheets of a page together, but at most six of a run
LARGEST = 96  # pixels of a picture's side, about what the page gives it
GAP, GREY = 1, 128  # pixels between pictures, and what is there and where there is no picture


@dataclass(frozen=True)
class Sheet:
    """Some of the classes; `picture` is a data URI whose cells lie in the order of `rounds` and `classes`."""

    rounds: list[int]
    classes: list[str]
    columns: int  # cells side by side, of which the last sheet may fill fewer
    picture: str


def sheets(run: Run, class_names: list[str], runs: int = 1) -> list[Sheet]:
    """Sheets of ten classes, or of twenty where there are many; none if no pairs were kept.

    The more runs share a page, the fewer rounds each shows.
    """
    last = len(run.pair_rounds) - 1
    shown_rounds = max(1, min(6, ROUNDS // runs))
    kept = np.unique(np.linspace(last, 0, shown_rounds).round().astype(int)) if last >= 0 else np.zeros(0, int)
    labels = [int(label) for label in np.unique(run.pair_labels[kept]) if label >= 0]
    columns = 10 if len(labels) <= 20 else 20
    rounds = [int(run.pair_rounds[row]) for row in kept]
    found = []
    for start in range(0, len(labels), columns):
        shown = labels[start : start + columns]
        names = [class_names[label] if label < len(class_names) else f"class {label}" for label in shown]
        found.append(Sheet(rounds, names, columns, _jpeg(_grid(run, kept, shown, columns))))
    return found


def _grid(run: Run, kept: np.ndarray, labels: list[int], columns: int) -> np.ndarray:
    """uint8 [height, width, 3]: the picture of each class in each kept round, grey where there was none."""
    cell = min(run.pair_images.shape[-1], LARGEST)
    side = cell + GAP
    sheet = np.full((side * len(kept), side * columns, 3), GREY, dtype=np.uint8)
    for y, row in enumerate(kept):
        for x, label in enumerate(labels):
            found = np.flatnonzero(run.pair_labels[row] == label)
            if len(found):
                picture = _scaled(run.pair_images[row, found[0]], cell)
                sheet[y * side : y * side + cell, x * side : x * side + cell] = picture
    return sheet


def _scaled(image: np.ndarray, side: int) -> np.ndarray:
    """uint8 [3, size, size] as [side, side, 3], averaged down where it is larger."""
    from PIL import Image

    return np.asarray(Image.fromarray(image.transpose(1, 2, 0)).resize((side, side), Image.Resampling.BOX))


def _jpeg(pixels: np.ndarray) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="jpeg", quality=88, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
