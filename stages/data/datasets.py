"""The table of data sets, and the digits. folders.py, npz.py, public.py, hub.py and own.py read the others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stages import plugins
from stages.data import folders, hub, npz, own, public
from stages.data.images import Dataset, Pixels
from stages.errors import UserError
from stages.settings import Prepare


def read(settings: Prepare) -> Dataset:
    """The data set that the settings name, its images scaled to `image_size`; UserError if it can't be read."""
    if settings.dataset.startswith("hf:"):
        return hub.read(settings)
    can = [name for name, known in public.SETS.items() if known.downloadable]
    if settings.download and settings.dataset not in can:
        raise UserError(f"{settings.dataset} can't be downloaded; leave out `download`. It works for {', '.join(can)}.")
    return (own.read if plugins.is_path(settings.dataset) else READERS[settings.dataset])(settings)


def digits(settings: Prepare) -> Dataset:
    """The 1,797 handwritten digits that scikit-learn ships, 8 x 8, grey levels 0..16, without a test set."""
    from sklearn.datasets import load_digits

    bundle = load_digits()
    images = Pixels(bundle.images, settings.image_size, scale=255 / 16)
    return Dataset(images, bundle.target.astype(np.int64), len(images), [str(digit) for digit in range(10)], "digits")


READERS: dict[str, Callable[[Prepare], Dataset]] = {
    "digits": digits,
    "folder": folders.folder,
    "npz": npz.npz,
    "tiny-imagenet": folders.tiny_imagenet,
    **dict.fromkeys(public.SETS, public.read),
}
