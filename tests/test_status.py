"""What the runs of a store are doing, seen from outside."""

import json
import os
import pty
import re
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import stages
from stages.artifacts.partial import HOLDER, Busy, Partial, find_unfinished
from stages.artifacts.refs import Ref
from stages.artifacts.schemas import read
from stages.errors import Interrupted, UserError
from stages.observer import Observer
from stages.reporting.scores import last, seconds_per_round
from stages.status import status
from tests.helpers.cli import run
from tests.helpers.toy_runs import CODE, StopAfter, settings


class Look(Observer):
    """Looks after the first round."""

    def __init__(self, store):
        self._store, self.seen = store, None

    def advance(self, steps=1, **facts):
        self.seen = self.seen or {one.run: one for one in status(self._store)}


def test_a_study_from_outside(toy_store):
    look = Look(toy_store)
    (first, _) = stages.train(toy_store, None, settings(algorithm="local", seeds="0,1", rounds=2), {}, look)
    assert {name: one.state for name, one in look.seen.items()} == {
        "local-toy-s0@v1": "running", "local-toy-s1": "waiting",
    }  # fmt: skip
    running = look.seen["local-toy-s0@v1"]
    assert (running.rounds, running.planned, running.host, running.process) == (1, 2, socket.gethostname(), os.getpid())
    assert abs(running.since - time.time()) < 60 and running.left == running.seconds > 0
    done = status(toy_store)
    assert [one.state for one in done] == ["done", "done"] and not list(toy_store.root.glob(".*"))
    finished = read(first)
    assert done[0].accuracy == pytest.approx(last(finished))
    assert done[0].seconds == pytest.approx(sum(seconds_per_round(finished).values()))


def test_stopped_and_failed_runs_say_where_and_why(toy_store):
    with pytest.raises(Interrupted):
        stages.train(toy_store, "mine", settings(algorithm="local"), {}, StopAfter(2))
    (one,) = status(toy_store)
    assert (one.state, one.rounds, one.planned, one.process) == ("stopped", 2, 3, None) and one.accuracy > 0
    held = Partial.reopen(find_unfinished(toy_store, Ref("mine")))
    held.fail("Client 2 diverged.")
    held.close()
    (one,) = status(toy_store)
    assert (one.state, one.why) == ("failed", "Client 2 diverged.")
    assert "mine@v1: Client 2 diverged." in run(toy_store.root, "status").stdout


def test_a_run_that_another_machine_works_on_is_left_to_it(toy_store):
    with pytest.raises(Interrupted):
        stages.train(toy_store, "mine", settings(algorithm="local"), {}, StopAfter(1))
    folder = find_unfinished(toy_store, Ref("mine"))
    sign = folder / HOLDER
    sign.write_text(json.dumps({"host": "elsewhere", "process": 7, "since": 1_700_000_000}))
    (one,) = status(toy_store)
    assert (one.state, one.host, one.process) == ("running", "elsewhere", 7)
    with pytest.raises(Busy, match="Process 7 on elsewhere"):
        stages.resume(toy_store, "mine", CODE)
    os.utime(sign, (0, 0))  # not heard of for long
    assert status(toy_store)[0].state == "stopped"
    assert read(stages.resume(toy_store, "mine", CODE)).test_accuracy.shape[0] == 4


def test_a_process_that_was_taken_for_dead_saves_no_more(toy_store):
    class Lost(Observer):
        def advance(self, steps=1, **facts):
            folder = toy_store.folder("run", "mine") / "v1.partial"
            (folder / HOLDER).write_text(json.dumps({"host": "elsewhere", "process": 7, "since": 0}))

    with pytest.raises(UserError, match="Another machine has taken over"):
        stages.train(toy_store, "mine", settings(algorithm="local"), {}, Lost())
    assert (toy_store.folder("run", "mine") / "v1.partial" / HOLDER).exists()


def test_the_sign_of_a_killed_study_tells_nothing_and_is_swept_away(toy_store):
    left = toy_store.root / f".study-{'0' * 32}.json"
    left.write_text(json.dumps({"host": socket.gethostname(), "process": 2**22 + 1, "since": 0, "waiting": ["a"]}))
    assert status(toy_store) == []
    stages.train(toy_store, "mine", settings(algorithm="local", rounds=1), {})
    assert not left.exists()


@pytest.mark.parametrize("content", ["", "[]", '{"round": 1, "accuracy/test": "x", "seconds/a": 1e400}\n', "\x00" * 99])
def test_foreign_logs_tell_nothing_and_harm_nothing(toy_store, content):
    with pytest.raises(Interrupted):
        stages.train(toy_store, "mine", settings(algorithm="local"), {}, StopAfter(1))
    (find_unfinished(toy_store, Ref("mine")) / "rounds.jsonl").write_text(content)
    (one,) = status(toy_store)
    assert (one.state, one.rounds, one.accuracy) == ("stopped", 1, None)


def test_two_hundred_runs_are_shown_quickly_and_without_pytorch(toy_store):
    stages.train(toy_store, "r", settings(algorithm="local", rounds=1), {})
    folder = toy_store.folder("run", "r")
    for number in range(199):
        shutil.copytree(folder, folder.with_name(f"copy-{number}"), copy_function=os.link)
    code = f"""
import sys
from fedktl_cli.main import app
sys.argv = ["fedktl", "--store", {str(toy_store.root)!r}, "status", "--json"]
try:
    app()
finally:
    print([name for name in ("torch", "zarr", "numpy") if name in sys.modules], file=sys.stderr)
"""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert len(json.loads(done.stdout)["runs"]) == 200, done.stderr
    assert done.stderr.strip() == "[]"
    # of the processor, whatever else the machine does; below one on a quiet machine
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2.5


@pytest.mark.parametrize("columns", [60, 100])
def test_watching_fits_the_terminal_shows_first_what_goes_on_and_ends_with_ctrl_c(toy_store, signals, columns):
    """In a terminal of twelve lines and a store of more runs."""
    stages.train(
        toy_store, "done-with-a-name-that-is-far-longer-than-the-others", settings(algorithm="local", rounds=1), {}
    )
    folder = toy_store.folder("run", "done-with-a-name-that-is-far-longer-than-the-others")
    for number in range(20):
        shutil.copytree(folder, folder.with_name(f"{folder.name}-{number}"), copy_function=os.link)
    with pytest.raises(Interrupted):
        stages.train(toy_store, "z-stopped", settings(algorithm="local"), {}, StopAfter(1))
    shown, code = in_terminal(columns, 12, "--store", str(toy_store.root), "status", "--watch")
    screen = shown.split("\x1b[?25h")[0].split("...")[0]  # until the screen is full
    lines = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line).rstrip() for line in screen.splitlines()]
    assert lines[0] == "1 stopped, 21 done" and lines[2].split()[:3] == ["z-stopped@v1", "stopped", "1/3"]
    assert max(map(len, lines)) <= columns
    assert code == 0 and "Traceback" not in shown and shown.count("\x1b[?25h")  # the cursor is there again


def in_terminal(columns: int, lines: int, *words: str) -> tuple[str, int]:
    """What a command writes to a terminal of that size until Ctrl-C after its first picture, and its exit code."""
    process, terminal = pty.fork()
    if not process:
        os.chdir(Path(__file__).parents[1])
        sized = {"TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": str(lines)}
        os.execve(sys.executable, [sys.executable, "-m", "fedktl_cli", *words], {**os.environ, **sized})
    shown, asked = b"", False
    try:
        while select.select([terminal], [], [], 60)[0]:
            shown += os.read(terminal, 1 << 16)
            if b"..." in shown and not asked:  # the picture is whole, and fills the terminal
                asked = bool(os.write(terminal, b"\x03"))
        os.kill(process, signal.SIGKILL)
    except OSError:  # the terminal is closed
        pass
    return shown.decode(), os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def test_watching_needs_a_terminal(toy_store):
    assert "--watch draws on a terminal" in run(toy_store.root, "status", "--watch", code=2).stderr
    assert "holds no runs yet" in run(toy_store.root, "status").stderr
    assert json.loads(run(toy_store.root, "status", "--json").stdout) == {"runs": []}
