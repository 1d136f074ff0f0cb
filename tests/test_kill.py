"""Every stage killed with -9 at random moments: what looks finished is whole, what was there stays, the next run works."""

import json

import pytest

import stages
from stages.artifacts import seal
from stages.artifacts.partial import unfinished
from stages.artifacts.store import Store
from tests.helpers import kill_driver, study_driver
from tests.helpers.forked import Forked
from tests.helpers.kill_driver import HYPER, PLAN, STAGES
from tests.helpers.toy_runs import assert_same, numbers


@pytest.mark.parametrize("kills", [6, pytest.param(40, marks=pytest.mark.slow)])
def test_killed_at_random_moments(toy_store, tmp_path, undrawn, kills):
    (finished,) = stages.train(toy_store, "finished", PLAN, HYPER)
    before = {
        ref: seal.opened(toy_store.path(ref), thorough=True)
        for kind in ("data", "latents", "run")
        for ref in toy_store.refs(kind)
    }
    done = Forked(tmp_path, kill_driver.main, toy_store, kills)
    assert done.wait(600) == 0, done.err
    assert {stage: seen["killed"] for stage, seen in json.loads(done.out).items()} == dict.fromkeys(STAGES, kills)
    assert all(seal.opened(toy_store.path(ref), thorough=True) == attributes for ref, attributes in before.items())
    for stage, kind in zip(STAGES, ("data", "latents", "run", "report"), strict=True):
        STAGES[stage](toy_store)  # the next run works
        assert toy_store.versions(kind, "killed")
    assert not unfinished(toy_store)  # killed, resumed, killed again ... and still the run in one go
    assert_same(numbers(finished), numbers(toy_store.open("killed", "run")))


@pytest.mark.parametrize(("seeds", "kills"), [("0", 3), pytest.param("0-3", 50, marks=pytest.mark.slow)])
def test_a_study_ended_at_random_moments_and_repeated_equals_one_that_was_not(tmp_path, seeds, kills):
    done = Forked(tmp_path, study_driver.main, tmp_path, seeds, kills)
    assert done.wait(600) == 0, done.err
    undisturbed, *disturbed = (Store(root) for root in json.loads(done.out))
    wanted = list(undisturbed.refs("run"))
    assert len(wanted) == (12 if seeds == "0-3" else 3) and disturbed
    for store in disturbed:
        assert list(store.refs("run")) == wanted and not unfinished(store)  # each once
        for ref in wanted:
            assert_same(numbers(undisturbed.open(ref)), numbers(store.open(ref, thorough=True)))
