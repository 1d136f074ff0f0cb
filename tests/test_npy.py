"""Arrays from elsewhere: what NumPy writes comes back, and no header is believed."""

import io
import os
import time
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as arrays_of

from stages import npy


def saved(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@given(
    arrays_of.arrays(
        arrays_of.floating_dtypes() | arrays_of.integer_dtypes(), arrays_of.array_shapes(min_dims=0, min_side=0)
    )
)
def test_arrays_come_back(array):
    for one in (array, np.asfortranarray(array)):
        data = saved(one)
        found = npy.read(io.BytesIO(data), len(data))
        assert (found.dtype, found.shape, found.tobytes()) == (one.dtype, one.shape, one.tobytes())


def headed(shape="(1,)", kind="'<f4'", rest=bytes(4), text=None) -> bytes:
    text = text or f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}}}"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + rest


HOSTILE = {
    "brackets": headed(text="[" * 9000),
    "parentheses": headed(text="(" * 9000),
    "minuses": headed(text="-" * 9000 + "1"),
    "a call": headed(text="__import__('os').system('false')"),
    "2^70 numbers": headed(f"({2**70},)"),
    "none of 2^70": headed(f"(0, {2**70})", rest=b""),
    "a negative number": headed("(-1,)"),
    "terabytes": headed(f"({2**40},)"),
    "100 axes": headed("(" + "1," * 100 + ")"),
    "objects": headed(kind="'|O'", rest=bytes(8)),
    "records": headed(kind="[('a', '<f4')]"),
    "texts": headed(kind="'<U1'"),
    "numbers too few": headed("(2,)"),
    "numbers too many": headed("(1,)", rest=bytes(8)),
    "a header cut short": headed()[:40],
    "another version": headed().replace(b"\x01\x00", b"\x09\x00", 1),
    "nothing": b"",
    "a pickle": b"\x80\x04cos\nsystem\n(X\x05\x00\x00\x00falsetR.",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_a_header_is_not_believed(data, tmp_path):
    start = time.perf_counter()
    with pytest.raises(ValueError):
        npy.read(io.BytesIO(data), len(data))
    with zipfile.ZipFile(tmp_path / "z.npz", "w") as archive:
        archive.writestr("latents.npy", data)
    with pytest.raises(ValueError):
        npy.first(tmp_path / "z.npz")
    assert time.perf_counter() - start < 1


def test_damaged_archives_and_what_is_no_file(tmp_path):
    path = tmp_path / "z.npz"
    np.savez_compressed(path, np.arange(1000.0))
    whole = path.read_bytes()
    for damaged in (whole[:-30], whole[30:], whole[:60] + bytes(40) + whole[100:], b"PK\x05\x06" + bytes(18)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError):
            npy.first(path)
    os.mkfifo(tmp_path / "pipe.npy")
    for name in ("pipe.npy", "absent.npy", "."):
        with pytest.raises(ValueError, match="no such file"):
            npy.first(tmp_path / name)
