"""Clients in worker processes: the same numbers as in this one, and no process left behind."""

import multiprocessing
import os
import signal
from dataclasses import replace

import pytest
import torch
from torch import nn

import stages
from stages.artifacts import schemas
from stages.engines import engine, growing, rounds
from stages.engines.assembly import assemble
from stages.engines.engine import Local
from stages.engines.federation import Diverged
from stages.engines.shared_memory import SharedMemory
from stages.errors import UserError
from stages.observer import SILENT, Observer
from tests.helpers.toy_runs import CODE, planned, same, weights


def played(plan):
    federation, state = assemble(plan)
    working = Local().pool(plan, federation, state)
    try:
        rounds.run(federation, state, working, SILENT, lambda s: None)
    finally:
        working.close()
    return federation, state


def test_two_workers_compute_what_one_does(toy_store):
    """Four clients of two architectures, one with dropout; state kept between rounds travels with its client."""
    one, two = (played(planned(toy_store, "fedmrl", join_ratio=0.75, workers=count))[1] for count in (1, 2))
    assert same(weights(one), weights(two))
    for name in (
        "rounds/test_accuracy",
        "rounds/test_auc",
        "rounds/test_confusion",
        "client_metrics/loss",
        "rounds/upload_bytes",
    ):
        assert torch.equal(one.history[name].nan_to_num(), two.history[name].nan_to_num())
    assert not multiprocessing.active_children()
    assert (two.history["seconds/local training"] > 0).all()


def test_divergence_in_a_worker_names_client_and_round(toy_store):
    with pytest.raises(Diverged, match=r"Client 0 diverged in round 1"):
        played(planned(toy_store, "local", models="tests.helpers.toys:wild", rounds=5, workers=2))
    assert not multiprocessing.active_children()


class KillOne(Observer):
    """After the second round one worker is killed."""

    def advance(self, steps=1, **facts):
        self.rounds = getattr(self, "rounds", 0) + steps
        if self.rounds == 2:
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)


def test_a_killed_worker_ends_the_run_with_a_sentence_and_the_run_goes_on(toy_store):
    settings = planned(toy_store, "local", workers=2, rounds=4, checkpoint_every=1).settings
    with pytest.raises(UserError, match=r"The worker process of client \d died in round 3"):
        stages.train(toy_store, "cut", replace(settings, algorithm=("local",)), {}, KillOne())
    assert not multiprocessing.active_children()
    went_on = schemas.read(stages.resume(toy_store, "cut", {**CODE, "workers": 1}))
    whole = schemas.read(stages.train(toy_store, "whole", replace(settings, algorithm=("local",), workers=1), {})[0])
    assert (went_on.test_accuracy == whole.test_accuracy).all() and len(went_on.evaluated) == 5


def test_a_model_that_cant_leave_the_process_is_refused(toy_store):
    plan = planned(toy_store, "local", workers=2)
    federation, state = assemble(plan)
    state.clients[0].model.hook = lambda: None
    with pytest.raises(UserError, match="`workers=1`"):
        Local().pool(plan, federation, state)


def test_an_arena_holds_tensors_once_in_their_order_of_axes():
    tied = nn.Linear(2, 2)
    image = torch.arange(24.0).view(1, 2, 3, 4).to(memory_format=torch.channels_last)
    memory = SharedMemory.of({"a": tied, "b": tied.weight, "c": image, "d": torch.zeros(0), "e": image[:, :, 1:]})
    one, other = memory.load(), memory.load()
    assert one["a"].weight is one["b"] and isinstance(one["b"], nn.Parameter)
    assert one["c"].is_contiguous(memory_format=torch.channels_last) and torch.equal(one["c"], image)
    assert len(one["d"]) == 0 and torch.equal(one["e"], image[:, :, 1:])
    one["a"].weight.data.fill_(7)
    assert (other["a"].weight == 7).all() and not (tied.weight == 7).any()


class Told(Observer):
    def __init__(self):
        self.notes = []

    def note(self, message):
        self.notes.append(message)


@pytest.mark.parametrize(("worth", "cores", "notes"), [(0.0, 2, 1), (0.0, 1, 0), (1e9, 2, 0)])
def test_a_long_run_takes_the_cores_that_there_are_and_computes_the_same(toy_store, worth, cores, notes, monkeypatch):
    monkeypatch.setattr(growing, "WORTH", worth)
    monkeypatch.setattr(engine, "worthwhile", lambda clients, threads: cores)
    plan, observer = planned(toy_store, "fedktl", workers=None), Told()
    federation, state = assemble(plan)
    pool = Local(observer).pool(plan, federation, state)
    try:
        rounds.run(federation, state, pool, SILENT, lambda s: None)
        assert len(multiprocessing.active_children()) == (2 if notes else 0)
    finally:
        pool.close()
    assert len(observer.notes) == notes
    assert (state.history["seconds/prototypes"] > 0).all()
    assert same(weights(state), weights(played(planned(toy_store, "fedktl", workers=1))[1]))


def test_models_that_cant_leave_the_process_stay_in_it(toy_store, monkeypatch):
    monkeypatch.setattr(growing, "WORTH", 0.0)
    monkeypatch.setattr(growing, "Workers", refusing)
    plan = planned(toy_store, "local", workers=None)
    federation, state = assemble(plan)
    pool = growing.Growing(federation, state.clients, 2, pytest.fail)
    rounds.run(federation, state, pool, SILENT, lambda s: None)
    assert state.rounds == 3


def refusing(*_):
    raise UserError("A model can't be handed to worker processes.")


def test_workers_are_as_many_as_cores_and_memory_allow(monkeypatch):
    monkeypatch.setattr(growing.os, "sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.setattr(growing, "free_memory", lambda: 5 << 30)
    assert [growing.worthwhile(*of) for of in ((20, 1), (3, 1), (20, 2), (20, 16))] == [5, 3, 4, 1]
    monkeypatch.undo()
    assert growing.free_memory() > 1 << 20
