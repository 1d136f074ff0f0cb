"""A user's own data set, `package.module:reader`: what it returns is checked, what it raises becomes a UserError."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from stages import plugins
from stages.data.images import Dataset, Images
from stages.errors import UserError
from stages.settings import Prepare


def read(settings: Prepare) -> Dataset:
    """What the reader returns for the settings, with its images checked against their protocol."""
    path = settings.dataset
    found = plugins.load(path, "dataset")(settings)
    if not isinstance(found, Dataset):
        raise UserError(f"'{path}' returned a {type(found).__name__}, not a stages.data.images.Dataset.")
    return replace(found, images=Checked(found.images, settings.image_size, path))


@dataclass(frozen=True)
class Checked:
    """A user's own images, checked on every read."""

    images: Images
    size: int
    path: str

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        block = plugins.called(f"'{self.path}' failed to return images", self.images.__getitem__, rows)
        shape = (len(rows), 3, self.size, self.size)
        if not isinstance(block, np.ndarray) or (block.dtype, block.shape) != (np.uint8, shape):
            what = f"{block.dtype} {list(block.shape)}" if isinstance(block, np.ndarray) else type(block).__name__
            raise UserError(f"'{self.path}' returned images {what}, not uint8 {list(shape)}.")
        return block
