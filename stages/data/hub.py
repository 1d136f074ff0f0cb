"""`hf:FOLDER` and `hf:NAME`: a folder saved by the library `datasets`, Parquet files, or with `download` a data set on its hub."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from stages.data.images import Dataset, Joined, unpacked
from stages.errors import UserError, printable
from stages.foreign import reason
from stages.settings import Prepare

LABELS = ("label", "labels", "fine_label", "class", "target")  # columns; the first one found is used
PREFIXES = {"train": ("train",), "test": ("test", "valid", "val", "dev")}  # prefixes of the names of splits and files


def read(settings: Prepare) -> Dataset:
    """Its first column of images and its labels: training images first, then the test set, or else the validation set."""
    place = settings.dataset.removeprefix("hf:")
    shown = printable(place)
    library = imported()
    try:
        found = loaded(library, place, settings.download)
        parts = [part for split in PREFIXES if (part := chosen(found, split)) is not None] or [
            next(iter(found.values()))
        ]
        features = parts[0].features
        column = next(name for name, kind in features.items() if isinstance(kind, library.Image))
        label = next(name for name in LABELS if name in features)
        values = np.concatenate([np.asarray(part[label]) for part in parts])
        names = getattr(features[label], "names", None)
        labels = values
        if names is None:
            kinds, labels = np.unique(values, return_inverse=True)
            names = [str(kind) for kind in kinds]
        raw = library.Image(decode=False)
        images = [
            Encoded(
                part.select_columns(column).cast_column(column, raw),
                column,
                settings.image_size,
                settings.squeeze,
                shown,
            )
            for part in parts
        ]
        labels = labels.astype(np.int64)
    except UserError:
        raise
    except StopIteration:
        raise UserError(
            f"{shown} must have a column of images, and one of labels named {' or '.join(LABELS)}."
        ) from None
    except Exception as error:  # the library passes on whatever its own libraries raise
        raise UserError(f"{shown} can't be read as a data set ({reason(error)}).") from error
    return Dataset(Joined(images), labels, len(parts[0]), list(names), shown)


def imported() -> ModuleType:
    try:
        library = importlib.import_module("datasets")
    except ImportError:
        raise UserError(
            "Data sets named hf:... need the package datasets; install it with: pip install datasets"
        ) from None
    library.disable_progress_bars()
    return library


def loaded(library: ModuleType, place: str, download: bool) -> Mapping[str, Any]:
    """Splits by name. Since version 4 the library runs no code that comes with the data."""
    folder = Path(place).expanduser()
    if not folder.is_dir():
        if not download:
            raise UserError(
                f"There is no folder {printable(place)}; to download a data set of this name from the hub, add `download`."
            )
        named: Mapping[str, Any] = library.load_dataset(place)
        return named
    if files := sorted(map(str, folder.rglob("*.parquet"))):
        by_split: dict[str, list[str]] = {}
        for file in files:
            name = next((s for s, words in PREFIXES.items() if Path(file).name.lower().startswith(words)), "train")
            by_split.setdefault(name, []).append(file)
        split: Mapping[str, Any] = library.load_dataset("parquet", data_files=by_split)
        return split
    found = library.load_from_disk(str(folder))
    return found if isinstance(found, Mapping) else {"train": found}


def chosen(found: Mapping[str, Any], split: str) -> Any | None:
    """The split whose name starts with the earliest possible of its PREFIXES; None without one."""
    names = [name for word in PREFIXES[split] for name in found if name.lower().startswith(word)]
    return found[names[0]] if names else None


@dataclass(frozen=True)
class Encoded:
    """A column of images as encoded files; an image that is only a path to another file is refused."""

    rows: Any
    column: str
    size: int
    squeeze: bool
    shown: str

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        block = np.empty((len(rows), self.size, self.size, 3), np.uint8)
        for at, (row, image) in enumerate(zip(rows.tolist(), self.rows[rows.tolist()][self.column], strict=True)):
            content = (image or {}).get("bytes")
            if content is None:
                raise UserError(f"Image {row} of {self.shown} is not stored in it; save the data set with its images.")
            block[at] = unpacked(partial(BytesIO, content), f"Image {row} of {self.shown}", self.size, self.squeeze)
        return np.moveaxis(block, -1, 1)
