"""Data sets as arrays in a NumPy archive, named as Keras, MedMNIST and others name them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stages.artifacts.schemas import SPLITS
from stages.data import archives
from stages.data.folders import ROLES, listed, source
from stages.data.images import Dataset, Joined, Pixels, channels_first
from stages.errors import UserError, printable
from stages.settings import Prepare

KINDS = {"x": "x", "images": "x", "y": "y", "labels": "y"}
SLACK = 0.001  # of the range, by which resizing and rounding may overshoot it

Role = tuple[str, str]  # x or y, and the part


def npz(settings: Prepare) -> Dataset:
    """A file with images and labels named x_train and y_train, train_images and train_labels, or the like, and perhaps
    the same for test and validation. Validation images become test images if there are no others, else training images.

    Images are [n, h, w], [n, h, w, 1 or 3], [n, 1 or 3, h, w] or, as in SVHN, [h, w, 3, n], with values that fill 0..255
    or 0..1; labels are whole numbers [n], and every class from 0 to the highest occurs.
    """
    path = source(settings, "an .npz file with x_train, y_train, x_test and y_test")
    arrays, others = archives.plain(path, lambda name: role(name) is not None)
    names = named(arrays, path)
    parts = [part for part in SPLITS if ("x", part) in names]
    if "train" not in parts:
        raise UserError(f"{path} has no x_train or train_images; it holds {inventory([*arrays, *others])}.")
    images, labels, notes = {}, [], []
    for part in parts:
        if ("y", part) not in names:
            raise UserError(
                f"{path} has {names['x', part]} but no labels for it; it holds {inventory([*arrays, *others])}."
            )
        what = f"{names['x', part]} of {path}"
        images[what] = pixels(arrays[names["x", part]], what)
        labels.append(label_array(arrays[names["y", part]], f"{names['y', part]} of {path}", len(images[what])))
    if "validation" in parts:
        counts = (
            "is added to the training images" if "test" in parts else "is used as the test set, since there is no other"
        )
        notes.append(f"{names['x', 'validation']} {counts}.")
    unused = [name for (_, part), name in names.items() if part not in parts]
    if others or unused:
        notes.append(f"Not used from {path.name}: {inventory([*unused, *others])}.")
    scale = scale_of(images)
    together = np.concatenate(labels)
    classes = np.unique(together)
    if classes[0] != 0 or classes[-1] != len(classes) - 1:
        raise UserError(
            f"The labels in {path} are {len(classes)} numbers from {classes[0]} to {classes[-1]}; "
            f"they must be 0..{len(classes) - 1} without gaps."
        )
    return Dataset(
        Joined([Pixels(values, settings.image_size, scale, settings.squeeze) for values in images.values()]),
        together, sum(map(len, labels[:-1])) if len(parts) > 1 else len(together),
        [str(label) for label in classes], str(path), notes=notes,
    )  # fmt: skip


def role(name: str) -> Role | None:
    """What an array is by its name, with the part before or after; without a part it is training."""
    words = name.lower().split("_")
    kinds, parts = [KINDS[word] for word in words if word in KINDS], [ROLES[word] for word in words if word in ROLES]
    if len(kinds) != 1 or len(parts) > 1 or len(kinds) + len(parts) != len(words):
        return None
    return kinds[0], (parts or ["train"])[0]


def named(arrays: dict[str, np.ndarray], path: Path) -> dict[Role, str]:
    """The name of the array in each role; UserError if two share one."""
    names: dict[Role, str] = {}
    for name in arrays:
        its = role(name)
        assert its is not None
        if its in names:
            raise UserError(f"{path} has both {names[its]} and {name}; keep one.")
        names[its] = name
    return names


def inventory(names: list[str]) -> str:
    return listed(printable(name, 40) for name in names) if names else "nothing"


def pixels(values: np.ndarray, what: str) -> np.ndarray:
    """Images [n, ...] in an axis order that `channels_first` knows; UserError for others."""
    if values.dtype.kind not in "biuf" or not values.size:
        raise UserError(
            f"{what} is {values.dtype} {list(values.shape)}; images must be numbers [n, h, w] or [n, h, w, 3]."
        )
    if values.ndim == 4 and [side in (1, 3) for side in values.shape[1:]] == [False, True, False]:
        values = np.moveaxis(values, -1, 0)  # [h, w, 3, n]
    channels_first(values, what)
    return values


def scale_of(images: dict[str, np.ndarray]) -> float:
    """The factor to 0..255: 1 if the values fill that already, 255 if they fill 0..1; UserError if neither is clear."""
    ranges = {what: (float(values.min()), float(values.max())) for what, values in images.items()}
    for what, (low, high) in ranges.items():
        if not np.isfinite([low, high]).all():
            raise UserError(f"{what} holds NaN or infinity; every pixel must be a number.")
    highest = max(high for _, high in ranges.values())
    top = 1 if highest <= 1 + SLACK else 255
    for what, (low, high) in ranges.items():
        alike = (high <= 1 + SLACK) == (top == 1)  # or parts of one file have different scales
        if low < -SLACK * top or high > (1 + SLACK) * top or highest < top / 4 or not alike:
            among = "" if alike else f" while other arrays go to {highest:g}"
            raise UserError(f"{what} goes from {low:g} to {high:g}{among}; the pixels must fill 0..255 or 0..1.")
    return 255 / top


def label_array(values: np.ndarray, what: str, images: int) -> np.ndarray:
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.dtype.kind not in "iu" or values.ndim != 1:
        raise UserError(f"{what} is {values.dtype} {list(values.shape)}; labels must be whole numbers [n].")
    if len(values) != images:
        raise UserError(f"{what} holds {len(values)} labels for {images} images; each image needs one.")
    return values.astype(np.int64)
