"""Results on terminals and pipes that can't take them as they are."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedktl_cli import streams
from fedktl_cli.progress import LiveProgress
from fedktl_cli.terminal import Terminal
from stages.artifacts.store import Store
from stages.errors import UserError

FEDKTL = [sys.executable, "-m", "fedktl_cli"]
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii", "gbk", "utf-8"])
def test_signs_that_an_encoding_lacks_are_replaced(monkeypatch, encoding):
    shown = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding))
    streams.prepare()
    Terminal(Store("s")).show("▁▄█ 3 ± 1 猫 \udcff")
    printed = shown.buffer.getvalue().decode(encoding)
    if encoding == "utf-8":
        assert printed == "▁▄█ 3 ± 1 猫 \\udcff\n"
    if encoding == "ascii":
        assert printed == ".=@ 3 +- 1 \\u732b \\udcff\n"
    assert printed.endswith("\\udcff\n")


def test_prepare_ends_well_on_a_terminal_that_is_not_utf8(tmp_path):
    np.savez(
        tmp_path / "own.npz", x_train=np.broadcast_to(np.uint8([0, 255] * 4), (80, 8, 8)), y_train=np.arange(80) % 2
    )
    own = ["--dataset", "npz", "--source", str(tmp_path / "own.npz"), "--min-samples", "4"]
    done = subprocess.run(
        [*FEDKTL, "--store", str(tmp_path / "s"), "prepare", *own, "--clients", "4", "--image-size", "8"],
        env={**os.environ, "PYTHONIOENCODING": "latin-1", "OMP_NUM_THREADS": "1"}, cwd=ROOT, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0 and not done.stderr
    assert b"npz@v1" in done.stdout and b"@" in done.stdout


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def gone(*_):
    raise BrokenPipeError


@pytest.mark.parametrize("print_result", [lambda t: t.show("x"), lambda t: t.json({}), lambda t: t.write("x")])
def test_a_result_that_can_not_be_written_is_a_sentence_and_one_nobody_reads_is_none(monkeypatch, print_result):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys.stdout, "write", full)
    with pytest.raises(UserError, match="No space left on device"):
        print_result(Terminal(Store("s")))
    monkeypatch.setattr(sys.stdout, "write", gone)
    print_result(Terminal(Store("s")))


@pytest.mark.parametrize("failure", [full, gone])
def test_work_goes_on_where_progress_can_not_be_shown(monkeypatch, failure):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(sys.stderr, "write", failure)
    terminal = Terminal(Store("s"), verbose=True)
    terminal.say("a note")
    live = LiveProgress(terminal)
    live.start("training", 2)
    live.advance(loss=0.5)
    live.finish()


def test_closed_streams_are_opened_before_a_file_gets_their_number(tmp_path):
    command = " ".join([*FEDKTL, "presets", "list", ">&-", "2>&-", "<&-"])
    assert subprocess.run(command, shell=True, cwd=ROOT).returncode == 0


def test_text_from_elsewhere_is_printed_as_it_is(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    Terminal(Store("s")).show("s[/bold] :cat: [red]")
    assert sys.stdout.getvalue() == "s[/bold] :cat: [red]\n"
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    Terminal(Store("s")).say("\x1b[2J [red]")
    assert sys.stderr.getvalue() == "\\x1b[2J [red]\n"
