"""Trackers: what the real packages wrote, read back with them; and that a failing one never fails a run."""

import importlib.util
import json
import struct
from types import SimpleNamespace

import pytest

import stages
from stages.artifacts.schemas import read
from stages.errors import Interrupted, UserError
from stages.observer import Observer
from stages.reporting.scores import accuracy
from tests.helpers.toy_runs import CODE, Notes, StopAfter, settings


def needs(package):
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"needs the package {package}")


@pytest.fixture
def halves(toy_store, tmp_path, monkeypatch):
    """Trains four rounds, tracked: two, and after a stop two more; the run's accuracies and its losses."""
    monkeypatch.chdir(tmp_path)

    def trained(track):
        with pytest.raises(Interrupted):
            stages.train(toy_store, "mine", settings(algorithm="local", rounds=4, track=[track]), {}, StopAfter(2))
        run = read(stages.resume(toy_store, "mine", CODE))
        return accuracy(run).tolist(), run.client_metrics["loss"].mean(1).tolist()

    return trained


@needs("tensorboard")
def test_tensorboard_has_the_curves_and_the_settings(halves, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accuracies, losses = halves(f"tensorboard={tmp_path}/events")
    events = EventAccumulator(str(tmp_path / "events" / "mine@v1")).Reload()
    found = [(event.step, event.value) for event in events.Scalars("accuracy/test")]
    assert found == [(step, pytest.approx(value)) for step, value in enumerate(accuracies)]
    assert [event.value for event in events.Scalars("client/loss")] == pytest.approx(losses)
    (table,) = {event.tensor_proto.string_val[0] for event in events.Tensors("settings/text_summary")}
    assert b"| lr | 0.01 |" in table and b"| data | toy@v1 |" in table


@needs("mlflow")
def test_mlflow_has_one_run_with_the_curves_and_the_settings(halves, tmp_path):
    import mlflow

    accuracies, losses = halves(f"mlflow=sqlite:///{tmp_path}/kept.db")
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/kept.db")
    (run,) = client.search_runs([client.get_experiment_by_name("fedktl").experiment_id])
    assert (run.info.run_name, run.info.status, run.data.params["lr"]) == ("mine@v1", "FINISHED", "0.01")
    curve = client.get_metric_history(run.info.run_id, "accuracy/test")
    assert [(point.step, point.value) for point in curve] == list(enumerate(accuracies))
    assert [point.value for point in client.get_metric_history(run.info.run_id, "client/loss")] == losses


@needs("wandb")
def test_wandb_keeps_an_offline_run(halves, tmp_path):
    from wandb.proto.wandb_internal_pb2 import Record

    accuracies, _ = halves(f"wandb={tmp_path}/kept")
    curve, ends = {}, []
    for file in sorted((tmp_path / "kept" / "wandb").glob("offline-run-*/*.wandb")):
        for record in map(Record.FromString, records(file.read_bytes())):
            values = {
                item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
            }
            if "accuracy/test" in values:
                curve[values["_step"]] = values["accuracy/test"]
            if record.HasField("exit"):
                ends.append(record.exit.exit_code)
    assert curve == pytest.approx(dict(enumerate(accuracies)))
    assert ends == [1, 0]


def records(log):
    """The records of a log as LevelDB writes it, after W&B's header: blocks of 32 KiB, pieces with checksum, size, type."""
    place, parts = 7, []
    while place + 7 <= len(log):
        size, kind = struct.unpack_from("<HB", log, place + 4)  # whole 1, first 2, middle 3, last 4
        parts.append(log[place + 7 : place + 7 + size])
        if kind in (1, 4):
            yield b"".join(parts)
            parts = []
        place += 7 + size
        room = -place % 32768
        place += room if room < 7 else 0


class Broken(Observer):
    """A tracker whose service goes away at some moment."""

    moment = ""

    def __init__(self, place):
        self.fail("open")

    def begin_run(self, run, facts, rounds):
        self.fail("begin")

    def end_round(self, line):
        self.fail("round")

    def end_run(self, state):
        self.fail("end")

    def fail(self, moment):
        if moment == self.moment:
            raise ConnectionError("the service is gone. Try later")


@pytest.fixture
def broken(monkeypatch):
    """TensorBoard's place taken by a tracker that fails."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(origin=name))
    monkeypatch.setattr("stages.trackers.tensorboard.Tracker", Broken)
    return Broken


@pytest.mark.parametrize("moment", ["open", "begin", "round", "end"])
def test_a_failing_tracker_is_told_of_once_and_fails_no_run(toy_store, broken, monkeypatch, moment):
    monkeypatch.setattr(broken, "moment", moment)
    notes = Notes()
    plan = settings(algorithm="local", data="toy", rounds=2, track=["tensorboard"])
    (run,) = stages.train(toy_store, None, plan, {}, notes)
    assert len(read(run).test_accuracy) == 3
    told = [note for note in notes.said if "tensorboard" in note]
    assert told == ["tensorboard no longer tracks this run (the service is gone); the run continues."]


@pytest.mark.parametrize(
    ("track", "sentence"),
    [
        ("tensorbord", "did you mean tensorboard"),
        ("mlflow=", "leave out the '='"),
        ("wandb", r"pip install 'fedktl\[wandb\]'"),
    ],
)
def test_a_tracker_that_is_not_available_is_refused_before_anything_is_written(toy_store, monkeypatch, track, sentence):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    plan = settings(algorithm="local", track=[track])
    with pytest.raises(UserError, match=sentence):
        stages.train(toy_store, None, plan, {})
    assert not toy_store.names("run")
