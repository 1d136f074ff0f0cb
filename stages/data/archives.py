"""NumPy archives from strangers: a reader of plain arrays, and a reader of pickled arrays that runs none of their code.

PFLlib's .npz files hold a pickled object array, which NumPy opens only with `allow_pickle=True`, and that would run
whatever the file says. Here a pickle may name six things, each replaced by a stand-in that only records its arguments;
the arrays are then built from these records.
"""

from __future__ import annotations

import math
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format

from stages import npy
from stages.errors import UserError
from stages.foreign import opened, reason

LARGEST = 8 << 30  # bytes of one archive member once unpacked


def plain(path: Path, wanted: Callable[[str], bool]) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays of an .npz whose names are wanted, and the other names; UserError if it is not an archive of numbers."""
    try:
        with opened(path) as file:
            if file.read(6) == format.MAGIC_PREFIX:
                raise ValueError("it is an .npy file, one array without a name")
            with zipfile.ZipFile(file) as archive:
                members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
                arrays = {}
                for name in filter(wanted, members):
                    if members[name].file_size > LARGEST:
                        raise ValueError(f"{name} is too large")
                    with archive.open(members[name]) as member:
                        arrays[name] = npy.read(member, members[name].file_size)
                return arrays, [name for name in members if name not in arrays]
    except Exception as error:  # an archive can fail in any way
        raise UserError(f"{path} can't be read as an .npz of plain arrays ({reason(error)}).") from error


class Recorded:
    """Stand-in for an array or a dtype in a pickle: records its arguments and its state, and does nothing else."""

    def __init__(self, *arguments: Any):
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),  # NumPy 1
    ("numpy._core.multiarray", "_reconstruct"),  # NumPy 2
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}


class AllowList(pickle._Unpickler):
    """Builds plain containers, numbers, text, bytes and `Recorded`; anything else is refused.

    Based on the unpickler written in Python, since the one in C allocates as much memory as a pickle claims to need.
    """

    def find_class(self, module: str, name: str) -> type[Recorded]:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {f'{module}.{name}'!r}")
        return Recorded


def pickled(path: Path, name: str) -> Any:
    """The object pickled under `name` in an .npz file, with `Recorded` in place of arrays; UserError if it is refused."""
    try:
        with opened(path) as raw, zipfile.ZipFile(raw) as archive:
            if archive.getinfo(f"{name}.npy").file_size > LARGEST:
                raise ValueError("it is too large")
            with archive.open(f"{name}.npy") as file:
                shape, _, dtype = npy.HEADERS[format.read_magic(file)](file)
                if shape != () or dtype.kind != "O":
                    raise ValueError(f"it is {dtype} {shape}, not one object")
                outer = AllowList(file).load()
        return outer.state[4][0]
    except Exception as error:  # a pickle can fail in any way; none of its code has run
        raise UserError(
            f"{path} can't be read as a PFLlib client file ({reason(error)}); no code in it was run."
        ) from error


def write_pickled(path: Path, name: str, value: object) -> None:
    """Write an .npz with `value` pickled under `name`, as np.savez_compressed does but with the fastest compression.

    PFLlib reads nothing else. Writing a pickle runs no code, and none is ever loaded here.
    """
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(f"{name}.npy", "w", force_zip64=True) as file,
    ):
        format.write_array(file, np.array(value, dtype=object), allow_pickle=True)


def array(recorded: Any, what: str) -> np.ndarray:
    """The recorded array, or list, of plain numbers; UserError if it is neither, or its bytes don't fill its shape."""
    try:
        if isinstance(recorded, list):
            return np.array([number(each) for each in recorded])
        _, shape, dtype, fortran, data = recorded.state
        values = values_of(data, dtype)
        if math.prod(shape) != len(values):
            raise ValueError(f"its shape {shape} does not match its {len(values)} values")
        return values.reshape(shape, order="F" if fortran else "C")
    except (AttributeError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise UserError(f"{what} is not an array of numbers ({reason(error)}).") from error


def number(recorded: Any) -> Any:
    """A Python number, or the NumPy number that was recorded."""
    if type(recorded) in (int, float):
        return recorded
    dtype, data = recorded.arguments
    (value,) = values_of(data, dtype)
    return value


def values_of(data: bytes, dtype: Recorded) -> np.ndarray:
    """The numbers in the bytes; ValueError if the recorded type is not numeric."""
    code, order = dtype.arguments[0], dtype.state[1]
    if not re.fullmatch(r"[iuf][1248]", code) or order not in ("<", ">", "|", "="):
        raise ValueError(f"its type is {order}{code}")
    return np.frombuffer(data, np.dtype(order + code))
