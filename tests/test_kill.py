"""Every stage killed with -9 at random moments: what looks finished is whole, what was there stays, the next run works."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import stages
from stages.artifacts import seal
from stages.artifacts.partial import unfinished
from tests.helpers.kill_driver import HYPER, PLAN, STAGES
from tests.helpers.toy_runs import assert_same, numbers


@pytest.mark.parametrize("kills", [6, pytest.param(40, marks=pytest.mark.slow)])
@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_random_moments(toy_store, stage, kills):
    (finished,) = stages.train(toy_store, "finished", PLAN, HYPER)
    before = {
        ref: seal.opened(toy_store.path(ref), thorough=True)
        for k in ("data", "latents", "run")
        for ref in toy_store.refs(k)
    }
    command = [sys.executable, "-m", "tests.helpers.kill_driver", stage, str(toy_store.root), str(kills)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[1], timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["killed"] == kills
    assert all(seal.opened(toy_store.path(ref), thorough=True) == attributes for ref, attributes in before.items())
    STAGES[stage](toy_store)  # the next run works
    kind = {"prepare": "data", "generate": "latents"}.get(stage, stage if stage == "report" else "run")
    assert toy_store.versions(kind, "killed")
    if stage == "train":  # killed, resumed, killed again ... and still the run in one go
        assert not unfinished(toy_store)
        assert_same(numbers(finished), numbers(toy_store.open("killed")))
