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
def test_killed_at_random_moments(toy_store, kills):
    (finished,) = stages.train(toy_store, "finished", PLAN, HYPER)
    before = {
        ref: seal.opened(toy_store.path(ref), thorough=True)
        for kind in ("data", "latents", "run")
        for ref in toy_store.refs(kind)
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.kill_driver", str(toy_store.root), str(kills)], capture_output=True,
        text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=Path(__file__).parents[1], timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {stage: seen["killed"] for stage, seen in json.loads(done.stdout).items()} == dict.fromkeys(STAGES, kills)
    assert all(seal.opened(toy_store.path(ref), thorough=True) == attributes for ref, attributes in before.items())
    for stage, kind in zip(STAGES, ("data", "latents", "run", "report"), strict=True):
        STAGES[stage](toy_store)  # the next run works
        assert toy_store.versions(kind, "killed")
    assert not unfinished(toy_store)  # killed, resumed, killed again ... and still the run in one go
    assert_same(numbers(finished), numbers(toy_store.open("killed", "run")))
