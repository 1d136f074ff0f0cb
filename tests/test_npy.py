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
from tests.helpers.npy_files import HOSTILE, saved


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


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_a_header_is_not_believed(data, tmp_path):
    start = time.process_time()
    with pytest.raises(ValueError):
        npy.read(io.BytesIO(data), len(data))
    with zipfile.ZipFile(tmp_path / "z.npz", "w") as archive:
        archive.writestr("latents.npy", data)
    with pytest.raises(ValueError):
        npy.first(tmp_path / "z.npz")
    assert time.process_time() - start < 1


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
