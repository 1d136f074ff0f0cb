"""The log of a run that goes on: what it holds after kills, resumes and damage."""

import json

import pytest

import stages
from stages.artifacts import round_log
from stages.artifacts.partial import find_unfinished, progress
from stages.artifacts.refs import Ref
from stages.artifacts.schemas import read
from stages.errors import Interrupted
from stages.observer import Observer
from stages.reporting.scores import accuracy, validation_accuracy
from tests.helpers.toy_runs import CODE, StopAfter, settings

HYPER = {"fedktl": {"server_epochs": 2}}


class Killed(BaseException):
    """What takes a process away between two lines of its program."""


class KillAt(Observer):
    def __init__(self, round):
        self._round = round

    def advance(self, steps=1, **facts):
        self._round -= steps
        if not self._round:
            raise Killed


class Keep(Observer):
    """Keeps what a run's log had before it was published."""

    def __init__(self, folder):
        self._folder, self.lines = folder, []

    def advance(self, steps=1, **facts):
        self.lines = round_log.read(self._folder)


def measured(lines):
    """The lines without what the clock and the machine decide."""
    return [
        {k: v for k, v in line.items() if k.partition("/")[0] not in ("time", "seconds", "memory")} for line in lines
    ]


def test_a_line_a_round_with_what_was_measured(toy_store):
    keep = Keep(toy_store.folder("run", "mine") / "v1.partial")
    run = read(stages.train(toy_store, "mine", settings(), HYPER, keep)[0])
    assert [line["round"] for line in keep.lines] == [0, 1, 2, 3]
    assert [line["accuracy/test"] for line in keep.lines] == accuracy(run).tolist()
    assert [line["accuracy/validation"] for line in keep.lines] == validation_accuracy(run).tolist()
    for line, losses, mmd in zip(keep.lines[1:], run.client_metrics["loss"], run.server_metrics["mmd"], strict=True):
        assert line["client/loss"] == pytest.approx(losses.mean()) and line["server/mmd"] == mmd
    assert [line["floats/upload"] for line in keep.lines[1:]] == run.upload_floats.sum(1).tolist()
    assert [line["seconds/alignment"] for line in keep.lines[1:]] == run.seconds["alignment"].tolist()
    assert [line["memory/peak"] for line in keep.lines[1:]] == run.peak_memory.tolist()
    assert all(line["time"].endswith("Z") for line in keep.lines)
    assert set(keep.lines[0]) == {"time", "round", "accuracy/test", "accuracy/validation"}


def test_rounds_after_the_checkpoint_are_played_and_logged_again_not_twice(toy_store):
    folder = toy_store.folder("run", "mine") / "v1.partial"
    plan = settings(algorithm="local", rounds=5, checkpoint_every=2)
    with pytest.raises(Killed):
        stages.train(toy_store, "mine", plan, {}, KillAt(3))
    assert progress(folder) == 2
    before = round_log.read(folder)
    assert [line["round"] for line in before] == [0, 1, 2, 3]
    with (folder / round_log.NAME).open("a") as file:
        file.write('{"round": 4, "accu')  # the line that a killed process was at
    keep = Keep(folder)
    stages.resume(toy_store, "mine", CODE, keep)
    assert [line["round"] for line in keep.lines] == [0, 1, 2, 3, 4, 5]
    assert keep.lines[:3] == before[:3]
    assert measured(keep.lines[3:4]) == measured(before[3:])


def test_a_log_that_was_lost_is_made_again_from_the_checkpoint(toy_store):
    with pytest.raises(Interrupted):
        stages.train(toy_store, "mine", settings(algorithm="local", rounds=3), {}, StopAfter(2))
    folder = find_unfinished(toy_store, Ref("mine"))
    before = round_log.read(folder)
    (folder / round_log.NAME).unlink()
    keep = Keep(folder)
    stages.resume(toy_store, "mine", CODE, keep)
    assert measured(keep.lines[:3]) == measured(before) and "time" not in keep.lines[0]


def test_what_is_no_line_of_a_round_is_passed_over(tmp_path):
    assert round_log.read(tmp_path) == []
    path = tmp_path / round_log.NAME
    for foreign in (b'{"round": 1', b"\xff\n[1]\n{}\n" + b"[" * 100_000 + b"\n", b'{"round": true}\n{"round": "1"}\n'):
        path.write_bytes(foreign)
        assert round_log.read(tmp_path) == []
    path.write_text("".join(json.dumps({"round": number, "pad": "x" * 100}) + "\n" for number in range(2000)))
    tail = round_log.read(tmp_path)
    assert [line["round"] for line in tail] == list(range(2000 - len(tail), 2000)) and 100 < len(tail) < 1000
    assert len(round_log.read(tmp_path, None)) == 2000
