"""Images that become uint8 [3, size, size] only when they are read, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import numpy as np

from stages.errors import UserError, printable
from stages.foreign import opened, reason


class Images(Protocol):
    """n images of one size; indexing with row numbers int64 [k] gives uint8 [k, 3, size, size]."""

    @property
    def size(self) -> int: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Pixels:
    """Images of one array: [n, h, w], [n, h, w, 1 or 3] or [n, 1 or 3, h, w]; `scale` brings its values to 0..255."""

    values: np.ndarray
    size: int
    scale: float = 1.0
    squeeze: bool = False

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        block = channels_first(self.values)[rows]
        if block.dtype.kind == "f" or self.scale != 1:
            block = np.rint(block * self.scale)
        block = block.astype(np.uint8, copy=False)
        if block.shape[2:] != (self.size, self.size):
            block = _resized(block, self.size, self.squeeze)
        return np.broadcast_to(block, (len(block), 3, self.size, self.size))


@dataclass(frozen=True)
class Files:
    """Image files, decoded by several threads."""

    paths: Sequence[Path]
    size: int
    squeeze: bool = False

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        block = np.empty((len(rows), self.size, self.size, 3), np.uint8)
        with ThreadPoolExecutor() as pool:
            for at, pixels in enumerate(
                pool.map(lambda row: decoded(self.paths[row], self.size, self.squeeze), rows.tolist())
            ):
                block[at] = pixels
        return np.moveaxis(block, -1, 1)


@dataclass(frozen=True)
class Joined:
    """Several sets of images as one, in order, without copying any image."""

    parts: Sequence[Images]

    @property
    def size(self) -> int:
        return self.parts[0].size

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        starts = np.cumsum([0, *(len(part) for part in self.parts)])
        owner = np.searchsorted(starts, rows, side="right") - 1
        block = np.empty((len(rows), 3, self.size, self.size), np.uint8)
        for part in np.unique(owner):
            block[owner == part] = self.parts[part][rows[owner == part] - starts[part]]
        return block


@dataclass(frozen=True)
class Dataset:
    """A data set as its reader found it: the training images first, then the test images, if it has any."""

    images: Images
    labels: np.ndarray  # int64 [n], each in 0..classes - 1
    train: int  # the first so many images are the training set; n if there is no test set
    class_names: list[str]
    origin: str  # its name in errors
    domains: Sequence[int] = ()  # number of images of each domain, which lie one after the other; empty without domains
    notes: Sequence[str] = ()  # what its reader skipped, or read in a way that may surprise

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise UserError(
                f"{self.origin} has {len(self.images)} images but {len(self.labels)} labels; each image needs one."
            )
        if self.classes < 2:
            raise UserError(f"{self.origin} has images of {self.classes} class; a classifier needs at least 2.")
        wrong = self.labels[(self.labels < 0) | (self.labels >= self.classes)]
        if len(wrong):
            raise UserError(f"{self.origin} has the label {wrong[0]}; its labels must be in 0..{self.classes - 1}.")

    @property
    def classes(self) -> int:
        return len(self.class_names)


def channels_first(values: np.ndarray, what: str = "Images") -> np.ndarray:
    """A view [n, 1 or 3, h, w] of grey or colour images in any usual axis order; UserError for other shapes."""
    view = values
    if values.ndim == 3:
        view = values[:, None]
    elif values.ndim == 4 and values.shape[1] not in (1, 3):
        view = np.moveaxis(values, -1, 1)
    if view.ndim != 4 or view.shape[1] not in (1, 3) or 0 in view.shape[2:]:
        raise UserError(
            f"{what} of shape {list(values.shape)} can't be used; it must be [n, h, w], [n, h, w, 1] or [n, h, w, 3]."
        )
    return view


def decoded(path: Path, size: int, squeeze: bool = False) -> np.ndarray:
    """uint8 [size, size, 3] of an image file: short side brought to `size` (antialiased), centre-cropped; or squeezed."""
    return unpacked(lambda: opened(path), printable(str(path)), size, squeeze)


def unpacked(opening: Callable[[], IO[bytes]], name: str, size: int, squeeze: bool) -> np.ndarray:
    """The same for whatever `opening` opens; `name` is its name in errors."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with opening() as file, Image.open(file) as image:
            if not squeeze:  # squeezed images must equal PFLlib's, pixel by pixel
                image.draft("RGB", (2 * size, 2 * size))  # lets the JPEG decoder skip detail that would be lost
            if image.mode.startswith(("I", "F")):
                raise ValueError("more than 8 bits a channel")
            colours = image.convert("RGB")
            if squeeze:
                fitted = colours.resize((size, size), Image.Resampling.BILINEAR)
            else:
                fitted = ImageOps.fit(colours, (size, size), Image.Resampling.BILINEAR)
    except Exception as error:  # a decoder may raise anything on bytes from strangers
        why = "it is not an image" if isinstance(error, UnidentifiedImageError) else reason(error)
        raise UserError(f"{name} can't be read as an image ({why}); repair or remove it.") from error
    return np.asarray(fitted)


def _resized(block: np.ndarray, size: int, squeeze: bool) -> np.ndarray:
    import torch

    from stages.pixels import resized

    images = torch.from_numpy(np.ascontiguousarray(block))
    if not squeeze:
        return resized(images, size).numpy()
    scaled = torch.nn.functional.interpolate(images.float(), (size, size), mode="bilinear", antialias=True)
    return scaled.round_().clamp_(0, 255).byte().numpy()
