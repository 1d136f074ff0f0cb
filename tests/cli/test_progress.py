"""Progress as it is told: lines through a pipe, bars on a terminal, and the time that a study has left."""

import io
import re
from types import SimpleNamespace

import pytest

from fedktl_cli import progress
from fedktl_cli.progress import LiveProgress, Progress
from fedktl_cli.streams import console
from stages.observer import Observer

FACTS = {"settings": {"rounds": 50}}


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def played(observer: Observer, clock, rounds: int, seconds: float, number: int = 3) -> None:
    """A run of a study, the rounds of which take so long."""
    observer.next_run(number, 9, 9 - number)
    observer.begin_run("mine@v1", FACTS, 0)
    observer.start("local, seed 0", 50)
    for done in range(1, rounds + 1):
        clock.seconds += seconds
        observer.end_round({"round": done, "accuracy/test": 80.0 + done / 100})
        observer.advance(1, accuracy=80.0 + done / 100)


def test_a_pipe_gets_a_line_at_beginning_and_end_and_one_a_minute(clock):
    said = []
    piped = Progress(SimpleNamespace(say=said.append, verbose=False))
    played(piped, clock, 50, 7.0)
    piped.finish()
    piped.end_run("done")
    assert said[0] == "run 3 of 9: mine@v1 begins, 50 rounds"
    assert said[1] == "mine@v1 9/50   accuracy 80.09%   study 40 min left"  # 341 rounds of 7 seconds
    assert [line.split()[1] for line in said[1:-1]] == ["9/50", "18/50", "27/50", "36/50", "45/50"]
    assert said[-1] == "mine@v1 is done after 6 min, accuracy 80.50%"


def test_a_run_that_goes_on_says_from_where(clock):
    said = []
    piped = Progress(SimpleNamespace(say=said.append, verbose=False))
    piped.begin_run("mine@v1", FACTS, 12)
    assert said == ["mine@v1 continues after round 12 of 50"]


def test_what_follows_a_study_is_no_run_of_it(clock):
    screen = io.StringIO()
    err = console(screen)
    err._force_terminal = True
    live = LiveProgress(SimpleNamespace(err=err, verbose=False, say=lambda text: None))
    played(live, clock, 50, 7.0, number=9)
    live.finish()
    live.end_run("done")
    assert "run 9 of 9" in screen.getvalue()
    seen = len(screen.getvalue())
    live.start("reading runs", 9)
    live.advance(1, run="mine@v1")
    live.finish()
    told = screen.getvalue()[seen:]
    assert "reading runs" in told and "run 9 of 9" not in told


@pytest.mark.parametrize("width", [60, 100])
def test_a_terminal_shows_which_run_its_bar_and_the_study_s_time_left_in_every_width(clock, width):
    screen = io.StringIO()
    err = console(screen)
    err.size = (width, 20)
    err._force_terminal = True
    live = LiveProgress(SimpleNamespace(err=err, verbose=False, say=lambda text: None))
    played(live, clock, 20, 7.0)
    live.finish()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue()).replace("\r", "\n")
    assert "run 3 of 9   study 38 min left   accuracy 80.20%" in shown and "20/50" in shown
    assert all(len(line) <= width for line in shown.split("\n"))
