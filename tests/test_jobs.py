"""Studies that several processes work on, of one command or of several."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import stages
from stages import jobs
from stages.artifacts.partial import HOLDER, unfinished
from stages.artifacts.presence import present
from stages.errors import Interrupted, UserError
from stages.observer import Observer
from tests.helpers.cli import run
from tests.helpers.toy_runs import StopAfter, assert_same, numbers, settings

TINY = {"algorithm": "local", "rounds": 8, "workers": 1}


def test_cores_are_dealt_and_shared_where_they_are_too_few():
    assert jobs.shares_of([4, 5, 6, 7], 2) == [[4, 6], [5, 7]]
    assert jobs.shares_of([4, 5], 3) == [[4], [5], [4]]


def test_devices_are_dealt():
    assert jobs.places(settings(device="cuda:0, cuda:1")) == ["cuda:0", "cuda:1"]
    assert jobs.places(settings(jobs=3, device="cuda:0,cuda:1")) == ["cuda:0", "cuda:1", "cuda:0"]
    assert jobs.places(settings()) == ["auto"]
    with pytest.raises(UserError, match="`jobs`"):
        jobs.places(settings(jobs=2, engine="flower"))


class KillFirst(Observer):
    """Kills the process of the first run that tells of a round."""

    def __init__(self, store):
        self._store, self.killed = store, None

    def end_round(self, line):
        if not self.killed and line["round"] == 1:
            path = unfinished(self._store)[0]
            self.killed = present(path / HOLDER)["process"]
            os.kill(self.killed, signal.SIGKILL)


def test_jobs_change_no_result_and_the_run_of_a_killed_one_goes_on_in_another(toy_store):
    alone = stages.train(toy_store, "alone", settings(seeds="0-2", **TINY), {})
    killer = KillFirst(toy_store)
    beside = stages.train(toy_store, "beside", settings(seeds="0-2", jobs=2, **TINY), {}, killer)
    assert killer.killed and [str(run.ref) for run in beside] == [f"beside-local-toy-s{seed}@v1" for seed in range(3)]
    for one, other in zip(alone, beside, strict=True):
        assert_same(numbers(one), numbers(other))
    assert not unfinished(toy_store)


@pytest.mark.slow
def test_jobs_stop_after_their_rounds_and_the_same_command_goes_on(toy_store):
    plan = settings(seeds="0-2", jobs=2, **{**TINY, "rounds": 200})
    with pytest.raises(Interrupted):
        stages.train(toy_store, None, plan, {}, StopAfter(2))
    assert 1 <= len(unfinished(toy_store)) <= 2
    made = stages.train(toy_store, None, settings(seeds="0-2", jobs=2, **TINY | {"rounds": 5}), {})
    assert len(made) == 3


@pytest.mark.slow
def test_a_failed_run_ends_no_other(toy_store):
    plan = settings(jobs=2, **TINY | {"algorithm": "fedproto"})
    from stages.train import study

    outcomes = study(toy_store, None, plan, {"fedproto": {"lambda": [1, 1_000_000]}})
    assert [one.state for one in outcomes] == ["done", "failed"] and "diverged" in outcomes[1].reason


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_three_processes_one_killed_at_random_make_each_run_once(toy_store, seed):
    rng = random.Random(seed)
    command = [
        sys.executable, "-m", "fedktl_cli", "--store", str(toy_store.root), "train", "--algorithm", "local",
        "--models", "tests.helpers.toys:tiny", "--feature-dim", "16", "--rounds", "20", "--workers", "1", "--seeds", "0-11",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(command, cwd=Path(__file__).parents[1], env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    deadline = time.monotonic() + 120
    while not list(toy_store.root.glob("runs/*/v1.*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(rng.uniform(0, 3))
    processes[rng.randrange(3)].send_signal(signal.SIGKILL)
    codes = [process.wait(timeout=300) for process in processes]
    assert sorted(codes) in ([-9, 0, 0], [0, 0, 0]), [process.stderr.read() for process in processes]
    assert sorted(str(ref) for ref in toy_store.refs("run")) == sorted(f"local-toy-s{seed}@v1" for seed in range(12))
    assert not unfinished(toy_store)


@pytest.mark.parametrize("value", ["0", "-1", "x", "257"])
def test_jobs_are_a_whole_number(toy_store, value):
    assert "jobs" in run(toy_store.root, "train", "--jobs", value, code=2).stderr
    assert not toy_store.names("run")
