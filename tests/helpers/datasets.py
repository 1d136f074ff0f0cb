"""Images in files, and what a data set makes of them."""

import numpy as np
from PIL import Image

from stages.data import datasets
from stages.settings import Prepare


def read(dataset, source=None, **more):
    return datasets.read(Prepare(dataset=dataset, source=source and str(source), **{"image_size": 8, **more}))


def everything(dataset):
    return dataset.images[np.arange(len(dataset.images))]


def picture(path, colour, size=(12, 10), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


def idx(path, values):
    """A file as MNIST has them: magic number with type and dimensions, sizes, bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, values.ndim]) + b"".join(side.to_bytes(4, "big") for side in values.shape)
    path.write_bytes(header + values.astype(np.uint8).tobytes())
