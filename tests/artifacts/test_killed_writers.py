"""Writers killed with -9 at random moments, and writers of one name at once. The invariants are in tests/helpers/killed_writers.py."""

import json
import os
import subprocess
import sys
from pathlib import Path


def outcome(task, folder):
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.killed_writers", task, str(folder)], capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=Path(__file__).parents[2], timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_killed_writer_leaves_nothing_that_looks_finished_and_is_not(tmp_path):
    seen = outcome("artifacts", tmp_path)
    assert seen["kills"] == 24 and seen["leftovers"] >= 5  # else it was killed at the wrong moments


def test_a_killed_run_goes_on_from_a_whole_checkpoint(tmp_path):
    seen = outcome("runs", tmp_path)
    assert seen["kills"] == 24 and seen["leftovers"] >= 3


def test_processes_that_write_one_name_at_once_make_a_version_each(tmp_path):
    assert outcome("race", tmp_path) == {"versions": 12, "leftovers": 0}
