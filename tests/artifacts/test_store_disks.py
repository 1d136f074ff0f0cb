"""The store on disks that are full, forbidden, or can not do everything."""

import errno
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from stages.artifacts.partial import Partial
from stages.artifacts.store import Store
from stages.errors import UserError
from tests.helpers.archive import everything, write


def test_a_store_below_a_file_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "deeper" / "store"):
        with pytest.raises(UserError, match=f"The store {root} can't be written"):
            write(Store(root))
        with pytest.raises(UserError, match="There is no artifact"):
            Store(root).open("a")
        assert Store(root).leftovers() == []


def test_an_error_of_what_the_stage_reads_is_not_blamed_on_the_store(store):
    with pytest.raises(FileNotFoundError, match="image"), store.write("report", "a", {}, 0, {}):
        Path("no/image").read_bytes()
    with pytest.raises(UserError, match="can't be written"), store.write("report", "a", {}, 0, {}) as writer:
        shutil.rmtree(writer.path)
        (writer.path / "values").write_text("")


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path):
    """A limit on the size of files stands in for the full disk: the same write fails."""
    script = f"""
import resource
import numpy as np
from stages.artifacts.store import Store
from stages.errors import UserError
noise = np.random.default_rng(0).integers(0, 256, 10**6, dtype=np.uint8)
resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, 10**5))
try:
    with Store({str(tmp_path)!r}).write("report", "a", {{}}, 0, {{}}) as writer:
        writer.array("noise", noise)
except UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout.startswith(f"The store {tmp_path} can't be written (File too large)"), done
    assert everything(Store(tmp_path)) == ["reports", "reports/a"]


@pytest.fixture
def shared():
    """A store where others may look, for a test may take a stranger's rights (see `as_nobody`)."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Store(Path(folder) / "store")


@contextmanager
def as_nobody():
    """With the rights of a user who owns nothing, for root may do everything."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_a_store_without_permission_is_refused_in_a_sentence(shared):
    write(shared)
    (shared.root / "reports" / "a").chmod(0o555)
    with as_nobody():
        with pytest.raises(UserError, match="Permission denied"):
            write(shared)
        assert shared.open("a").array("values").sum() == 0


@pytest.mark.parametrize("folder", ["reports", "reports/a"])
def test_a_folder_that_may_not_be_read_is_not_taken_for_an_empty_one(shared, folder):
    write(shared)
    (shared.root / folder).chmod(0o000)
    for look in (lambda: list(shared.refs("report")), lambda: shared.resolve("a"), shared.leftovers):
        with as_nobody(), pytest.raises(UserError, match=rf"{folder}.* can't be read \(Permission denied\)"):
            look()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_that_locks_no_files_is_refused_in_a_sentence(store, monkeypatch, number):
    def flock(handle, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(UserError, match=r"can't lock files .* keep the store on another disk"):
        write(store)
    with pytest.raises(UserError, match="can't lock files"):
        Partial.begin(store, "run", "a", {})
    assert everything(store) == ["reports", "reports/a", "runs", "runs/a"]


def test_all_of_an_artifact_and_its_folder_are_synced(store, monkeypatch):
    synced = set()
    monkeypatch.setattr("os.fsync", lambda handle: synced.add(os.fstat(handle).st_ino))
    path = store.path(write(store))
    assert {found.stat().st_ino for found in (path.parent, path, *path.rglob("*"))} <= synced


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_disk_that_syncs_no_folders_is_good_enough(store, monkeypatch, number):
    def fsync(handle, real=os.fsync):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))
        real(handle)

    monkeypatch.setattr("os.fsync", fsync)
    assert store.open(write(store), thorough=True)


def test_a_store_whose_path_is_too_long(tmp_path):
    for root in (tmp_path / ("x" * 300), tmp_path.joinpath(*["x" * 200] * 25)):
        with pytest.raises(UserError, match="File name too long"):
            Store(root).resolve("a")
        with pytest.raises(UserError, match="File name too long"):
            write(Store(root))
