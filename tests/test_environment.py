"""Variables and files that steer libraries from outside change nothing."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from stages import environment
from stages.environment import settle, socket_folder
from stages.errors import UserError

ROOT = Path(__file__).parents[1]
HOSTILE = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "PYTHONWARNINGS": "error",
    "TERMINAL_WIDTH": "wide",
    "ZARR_DEFAULT_ZARR_FORMAT": "2",
    "ZARR_CODECS__ZSTD": "no.such.Codec",
    "ZARR_ASYNC__CONCURRENCY": "0",
    "ZARR_THREADING__MAX_WORKERS": "many",
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
}


def test_a_report_is_written_whatever_the_environment_says(tmp_path):
    """It reads and writes artifacts, draws figures, and prints signs that the locale has not."""
    shutil.copytree(ROOT / "tests/artifacts/archive/schema-1", tmp_path / "store")
    configuration = tmp_path / "home/.config/zarr/zarr.yaml"
    configuration.parent.mkdir(parents=True)
    configuration.write_text("threading:\n  max_workers: none\n")
    done = subprocess.run(
        [sys.executable, "-m", "fedktl_cli", "--store", "store", "report", "fedktl-shapes-s7", "-o", "table.md"],
        env={**os.environ, **HOSTILE, "HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)},
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "Written to table.md\n")
    assert "Algorithm" in (tmp_path / "table.md").read_text("utf-8")
    assert (tmp_path / "store/reports/report/v2.zarr/zarr.json").exists()


def test_what_is_set_what_is_dropped_and_what_stays():
    environ = {"MPLBACKEND": "x", "RAY_ADDRESS": "far:1", "CUDA_VISIBLE_DEVICES": "1", "NO_PROXY": "intern,localhost"}
    settle(environ)
    assert environ["MPLBACKEND"] == "svg" and environ["USE_TORCH"] == "1" and environ["CUDA_VISIBLE_DEVICES"] == "1"
    assert "RAY_ADDRESS" not in environ
    assert environ["NO_PROXY"] == environ["no_proxy"] == "intern,localhost,127.0.0.1,::1"


@pytest.mark.parametrize("length", [12, 90, 200])
def test_sockets_lie_in_a_short_folder_wherever_temporary_files_do(tmp_path, monkeypatch, length):
    monkeypatch.setattr(tempfile, "tempdir", "/tmp" if length == 12 else str(tmp_path / ("x" * length)))
    with socket_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (
            len(os.fsencode(folder)) + len("/session_2026-11-26_17-40-13_123456_1234567/sockets/plasma_store.1") < 108
        )
    assert not folder.exists()


def test_without_a_short_folder_a_sentence_names_the_variable(monkeypatch):
    monkeypatch.setattr(environment, "ROOM", -1)
    monkeypatch.setattr(environment, "SHORT", "/proc")
    with pytest.raises(UserError, match="TMPDIR"), socket_folder():
        pass
