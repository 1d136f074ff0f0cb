"""Public data sets through torchvision's readers, which give whole arrays or lists of files here, never single samples."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.data.folders import Remarks, of_files, source
from stages.data.images import Dataset, Joined, Pixels
from stages.errors import UserError
from stages.foreign import reason
from stages.settings import Prepare

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Public:
    """How torchvision reads a data set."""

    reader: str  # a class of torchvision.datasets
    layout: str  # what `source` must hold
    parts: tuple[Arguments, ...] = ({"train": True}, {"train": False})  # the last is the test set
    take: Callable[[Any], Any] = lambda found: np.asarray(found.data)  # an array of images, or (file, label) pairs
    downloadable: bool = True


BY_SPLIT: tuple[Arguments, ...] = ({"split": "train"}, {"split": "test"})
SETS = {
    "mnist": Public("MNIST", "MNIST/raw"),
    "fashion-mnist": Public("FashionMNIST", "FashionMNIST/raw"),
    "emnist": Public(
        "EMNIST", "EMNIST/raw",
        ({"split": "balanced", "train": True}, {"split": "balanced", "train": False}),
        lambda found: np.asarray(found.data).swapaxes(1, 2),  # its files hold the letters transposed
    ),
    "svhn": Public("SVHN", "train_32x32.mat and test_32x32.mat", BY_SPLIT),
    "cifar10": Public("CIFAR10", "cifar-10-batches-py"),
    "cifar100": Public("CIFAR100", "cifar-100-python"),
    "flowers102": Public(
        "Flowers102", "flowers-102",
        ({"split": "train"}, {"split": "val"}, {"split": "test"}),
        lambda found: zip(found._image_files, found._labels, strict=True),
    ),
    "gtsrb": Public("GTSRB", "gtsrb/GTSRB and gtsrb/GT-final_test.csv", BY_SPLIT, lambda found: found._samples),
    "country211": Public(
        "Country211", "country211",
        ({"split": "train"}, {"split": "valid"}, {"split": "test"}),
        lambda found: found.samples,
    ),
    "stanford-cars": Public(
        "StanfordCars", "stanford_cars", BY_SPLIT, lambda found: found._samples, downloadable=False
    ),
}  # fmt: skip


def read(settings: Prepare) -> Dataset:
    """The data set of that name; a published validation set is added to the training images. UserError if files are missing."""
    known = SETS[settings.dataset]
    root = source(settings, f"the folder that holds (or, with `download`, will hold) {known.layout}")
    found = [_opened(settings.dataset, root, arguments, settings.download) for arguments in known.parts]
    taken = [known.take(part) for part in found]
    class_names = list(getattr(found[0], "classes", []))
    if isinstance(taken[0], np.ndarray):
        labels = [np.asarray(part.labels if hasattr(part, "labels") else part.targets, np.int64) for part in found]
        class_names = class_names or _numbers(labels)
        images = Joined([Pixels(values, settings.image_size, squeeze=settings.squeeze) for values in taken])
        return Dataset(images, np.concatenate(labels), len(labels[0]), class_names, settings.dataset)
    parts = [[(Path(path), int(label)) for path, label in pairs] for pairs in taken]
    class_names = class_names or _numbers([np.array([label for _, label in part]) for part in parts])
    training = [pair for part in parts[:-1] for pair in part]
    return of_files([training, parts[-1]], class_names, settings, Remarks(root))


def _opened(name: str, root: Path, arguments: Arguments, download: bool) -> Any:
    from torchvision import datasets

    known = SETS[name]
    if known.downloadable:
        arguments = {**arguments, "download": download}
    try:
        with redirect_stdout(sys.stderr):  # standard output is for results
            return getattr(datasets, known.reader)(root, **arguments)
    except Exception as error:  # a reader may raise anything on bytes from strangers
        help = " or add `download`" if known.downloadable and not download else ""
        why = reason(error).partition(". ")[0].rstrip(".")
        raise UserError(f"{root} holds no usable {name} ({why}); put {known.layout} there{help}.") from error


def _numbers(labels: list[np.ndarray]) -> list[str]:
    """Class names for a data set without any: the class numbers."""
    return [str(label) for label in range(1 + max(int(part.max()) for part in labels))]
