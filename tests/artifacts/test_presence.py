"""Signs of life: seen while their process lives, and gone with it."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stages.artifacts import presence
from stages.artifacts.presence import Presence, present


def test_a_process_is_seen_until_it_closes(tmp_path):
    path = tmp_path / "holder.json"
    assert present(path) is None
    sign = Presence(path, runs=["b"])
    sign.tell(runs=["a"])
    found = present(path)
    assert (found["host"], found["process"], found["runs"]) == (socket.gethostname(), os.getpid(), ["a"])
    assert abs(found["since"] - time.time()) < 5 and sign.stands()
    sign.close()
    assert present(path) is None and not list(tmp_path.iterdir())


def test_a_killed_process_of_this_machine_is_gone_at_once(tmp_path):
    path = tmp_path / "holder.json"
    script = f"import os; from pathlib import Path; from stages.artifacts.presence import Presence\nPresence(Path({str(path)!r})); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2])
    assert path.exists() and present(path) is None


def test_signs_go_on_while_the_process_works(tmp_path, monkeypatch):
    monkeypatch.setattr(presence, "BEAT", 0.02)
    sign = Presence(tmp_path / "holder.json")
    os.utime(sign.path, (1, 1))
    deadline = time.monotonic() + 10
    while sign.path.stat().st_mtime < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert present(sign.path)
    sign.close()


@pytest.mark.parametrize(("age", "seen"), [(0, True), (100, True), (130, False)])
def test_a_process_of_another_machine_is_present_as_long_as_it_is_heard_of(tmp_path, age, seen):
    path = tmp_path / "holder.json"
    path.write_text(json.dumps({"host": "elsewhere", "process": 1, "since": 0}))
    os.utime(path, (time.time() - age,) * 2)
    assert (present(path) is not None) == seen


def test_a_process_that_was_taken_for_dead_knows_it_and_leaves_the_other_alone(tmp_path):
    first = Presence(tmp_path / "holder.json")
    other = json.dumps({"host": "elsewhere", "process": 1, "since": 0})
    first.path.write_text(other)
    assert not first.stands()
    first.close()
    assert first.path.read_text() == other


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"host": 1, "process": 1, "since": 1}', '{"host": "a", "process": -1e9, "since": 1}', "\x00"],
)
def test_what_is_no_sign_of_life_is_none(tmp_path, text):
    path = tmp_path / "holder.json"
    path.write_text(text)
    assert present(path) is None


@pytest.mark.parametrize("process", [0, -1, 10**30])
def test_no_process_has_such_a_number(tmp_path, process):
    path = tmp_path / "holder.json"
    path.write_text(json.dumps({"host": socket.gethostname(), "process": process, "since": 0}))
    assert present(path) is None
