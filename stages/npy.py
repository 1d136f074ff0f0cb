"""NumPy files from strangers: no objects are built, no code runs, and no size is trusted that the bytes don't confirm."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

LONGEST = 1 << 31  # axis; matters if another axis has length 0
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read(file: IO[bytes], size: int) -> np.ndarray:
    """The array in the next `size` bytes of a file. Raises ValueError unless it holds plain numbers."""
    try:
        start = file.tell()
        shape, columns_first, dtype = HEADERS[npy.read_magic(file)](file)
    except Exception as error:  # NumPy's header parser can raise almost anything
        raise ValueError(f"it has no NumPy header ({type(error).__name__})") from error
    left = size - (file.tell() - start)
    if dtype.kind not in "biufc":
        raise ValueError(f"it holds {dtype}, not plain numbers")
    if math.prod(shape) * dtype.itemsize != left or max(shape, default=0) > LONGEST:
        raise ValueError(f"its header says {dtype} {list(shape)[:5]}, but {left} bytes follow")
    values = np.frombuffer(file.read(left), dtype)
    return values.reshape(shape, order="F" if columns_first else "C")


def first(path: Path) -> np.ndarray:
    """The array in an .npy file, or the first in an .npz, whatever the file's name. Raises ValueError or OSError."""
    if not path.is_file():
        raise ValueError("there is no such file")
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            return read(file, path.stat().st_size)
    try:
        with zipfile.ZipFile(path) as archive:
            inside = archive.infolist()[0]
            with archive.open(inside) as member:
                return read(member, inside.file_size)
    except ValueError:
        raise
    except Exception as error:  # a damaged archive makes zipfile raise almost anything
        raise ValueError(f"it is a damaged archive ({type(error).__name__}: {error})") from error
