"""Runs that go on: one process at a time, the newest whole checkpoint, facts that can't change unnoticed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from stages.artifacts.partial import Busy, Hold, Partial, checkpoints, failure, find_unfinished, progress, unfinished
from stages.artifacts.refs import Ref
from stages.errors import UserError
from tests.helpers.archive import write

FACTS = {"settings": {"lr": 0.01, "seeds": [0]}, "seed": 0, "made_from": {}}


@pytest.fixture
def partial(store):
    begun = Partial.begin(store, "run", "r", FACTS)
    yield begun
    begun.close()


def save(partial, round, content=None):
    return partial.save(round, lambda path: path.write_text(content or f"round {round}"))


def test_a_run_is_reopened_with_its_facts_and_newest_checkpoint(store, partial):
    assert partial.checkpoint() is None and progress(partial.path) == 0
    for round in (0, 10, 1_000_000):
        save(partial, round)
    partial.close()
    again = Partial.reopen(partial.path)
    assert again.ref == Ref("r", 1, "run") and again.facts == FACTS
    assert again.checkpoint().read_text() == "round 1000000" and progress(again.path) == 1_000_000
    assert len(checkpoints(again.path)) == 1
    again.close()


def test_a_failure_is_known_until_the_work_goes_on(partial):
    save(partial, 3)
    assert failure(partial.path) is None
    partial.fail("The disk is full.")
    told = failure(partial.path)
    assert told is not None and (told["sentence"], told["rounds"]) == ("The disk is full.", 3)
    partial.record(FACTS)
    assert failure(partial.path) is None


def test_what_another_machine_has_taken_over_is_not_saved_to(partial, monkeypatch):
    save(partial, 1)
    monkeypatch.setattr(Hold, "stands", lambda hold: False)
    with pytest.raises(Busy, match="taken over"):
        save(partial, 2)
    assert list(checkpoints(partial.path)) == [1]


def test_a_version_under_way_is_reserved(store, partial):
    assert write(store, "r", kind="run") == Ref("r", 2, "run")
    other = Partial.begin(store, "run", "r", FACTS)
    assert other.ref.version == 3 and unfinished(store) == [partial.path, other.path]
    assert find_unfinished(store, Ref("r")) == other.path and find_unfinished(store, Ref("r", 1)) == partial.path
    assert find_unfinished(store, Ref("r", 2)) is None and find_unfinished(store, Ref("s")) is None
    other.discard()
    assert find_unfinished(store, Ref("r")) is None  # the newest is a published one
    assert write(store, "r", kind="run", version=1).version == 1
    assert unfinished(store) == []
    partial.discard()
    left = {path.name for path in partial.path.parent.glob("*")}
    assert left - {".lock"} == {"v1.zarr", "v2.zarr"}  # some releases of filelock remove the lock


def test_a_number_is_free_whose_folder_a_killed_process_left_before_it_said_what_it_is(store, monkeypatch):
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr("stages.artifacts.partial._sealed", Mock(side_effect=KeyboardInterrupt))
        Partial.begin(store, "run", "r", FACTS)
    assert [path.name for path in store.folder("run", "r").glob("v*")] == ["v1.partial"]
    assert store.vacant(Ref("r", 1, "run")).version == 1
    begun = Partial.begin(store, "run", "r", FACTS)
    assert begun.ref.version == 1 and unfinished(store) == [begun.path]
    with pytest.raises(UserError, match="already there"):
        store.vacant(Ref("r", 1, "run"))
    begun.close()


def test_the_number_of_a_damaged_folder_is_not_free(store, partial):
    """What could be mended by hand is not overwritten."""
    save(partial, 3)
    (partial.path / "run.json").unlink()
    partial.close()
    other = Partial.begin(store, "run", "r", FACTS)
    assert other.ref.version == 2 and list(checkpoints(partial.path)) == [3]
    other.close()


def test_one_process_at_a_time(partial):
    with pytest.raises(UserError, match=r"Another process is working on .*v1\.partial; wait"):
        Partial.reopen(partial.path)
    script = f"from stages.artifacts.partial import Partial\nfrom pathlib import Path\nPartial.reopen(Path({str(partial.path)!r}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert "Busy: Another process is working on" in done.stderr


def test_a_folder_that_is_gone_is_not_made_anew(partial):
    partial.discard()
    partial.discard()  # nothing is left to remove
    with pytest.raises(UserError, match="can't be locked"):
        Partial.reopen(partial.path)
    assert not partial.path.exists()


@pytest.mark.parametrize("harm", [
    lambda text: text.replace("0.01", "0.03"), lambda text: text[:-1], lambda text: "", lambda text: "[]",
    lambda text: json.dumps({"facts": json.loads(text)["facts"]}), lambda text: "[" * 100_000, None,
])  # fmt: skip
def test_damaged_facts_are_found_and_the_lock_is_given_back(partial, harm):
    partial.close()
    path = partial.path / "run.json"
    text = path.read_text()
    path.write_text(harm(text)) if harm else path.unlink()
    kept = []  # errors, and with them the frames in which the lock was taken
    for _ in range(2):
        with pytest.raises(UserError, match=r"run\.json is missing or damaged") as error:
            Partial.reopen(partial.path)
        kept.append(error)
    path.write_text(text)
    Partial.reopen(partial.path).close()


@pytest.mark.parametrize("harm", [lambda raw: raw[:-1], lambda raw: b"", lambda raw: b"R" + raw[1:]])
def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(partial, harm):
    older = save(partial, 1)
    kept = older.read_bytes()
    newer = save(partial, 2)
    older.write_bytes(kept)  # as if killed before it was removed
    newer.write_bytes(harm(newer.read_bytes()))
    assert partial.checkpoint() == older
    older.unlink()
    with pytest.raises(UserError, match=f"^{newer} is damaged"):
        partial.checkpoint()


def test_pieces_stand_beside_each_other_and_a_damaged_one_is_missing(partial):
    pieces = [
        partial.save(row, lambda path, row=row: path.write_text(f"rows from {row}"), alone=False) for row in (0, 20)
    ]
    assert list(partial.whole().items()) == [(0, pieces[0]), (20, pieces[1])]
    pieces[1].write_text("?")
    assert partial.whole() == {0: pieces[0]} and partial.checkpoint() == pieces[0]
    for content in ("other bytes", "and others"):  # one of them sorts before the damaged file, or both behind it
        again = partial.save(20, lambda path, content=content: path.write_text(content), alone=False)
        assert partial.whole() == {0: pieces[0], 20: again}
        again.unlink()


def test_a_save_that_is_cut_short_keeps_the_checkpoint_before(partial, monkeypatch):
    save(partial, 1)

    def half(path):
        path.write_text("rou")
        raise OSError("killed")

    with pytest.raises(OSError):
        partial.save(2, half)
    assert partial.checkpoint().read_text() == "round 1"
    monkeypatch.setattr("os.replace", lambda *paths: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save(partial, 2)
    monkeypatch.undo()
    assert partial.checkpoint().read_text() == "round 1"
    save(partial, 2)
    assert partial.checkpoint().read_text() == "round 2"


def test_files_that_are_no_checkpoint_are_left_alone(partial):
    for name in ("checkpoint-best.safetensors", "checkpoint-000009-xyz.safetensors", "notes"):
        (partial.path / name).write_text("")
    save(partial, 1)
    assert partial.checkpoint().read_text() == "round 1" and progress(partial.path) == 1


def test_pipes_in_the_place_of_files_are_not_waited_for(store, partial):
    save(partial, 1)
    os.mkfifo(partial.path / "checkpoint-000002-0123456789abcdef.safetensors")
    assert progress(partial.path) == 1 and partial.checkpoint().read_text() == "round 1"
    partial.close()
    (partial.path / "run.json").unlink()
    os.mkfifo(partial.path / "run.json")
    with pytest.raises(UserError, match=r"run\.json is missing or damaged"):
        Partial.reopen(partial.path)
