"""A study as a user runs it: stopped by a signal and repeated, some of it failing, as a grid, from a preset."""

import json
import os
import re
import signal

import pytest

from fedktl_cli.terminal import Terminal
from stages.artifacts.store import Store
from tests.helpers.cli import TINY, run
from tests.helpers.forked import Forked, program
from tests.helpers.toy_store import write_toy_data

LOCAL = ["train", "--algorithm", "local", *TINY[:4]]


def told(result) -> list[dict]:
    return json.loads(result.stdout)["runs"]


@pytest.mark.parametrize(
    ("sent", "rounds"), [([signal.SIGTERM], "100000"), ([signal.SIGINT, signal.SIGTERM], "1000000")]
)
def test_a_signal_ends_the_round_and_the_same_command_continues(store, tmp_path, sent, rounds):
    study = [*LOCAL, "--seeds", "0-1", "--workers", "1", "--models", "tests.helpers.toys:tiny"]
    child = Forked(tmp_path, program, "--store", str(store), "-v", *study, "--rounds", rounds)
    try:
        child.until(f" 1/{rounds}")
        for number in sent:
            child.send(number)
        assert child.wait() == 130
    finally:
        child.kill()
    assert re.search(r"local-toy-s0 +stopped\s+local-toy-s1 +waiting", child.out)
    assert "2 of 2 runs are left; the same command continues." in child.err
    assert "Stopped at once" in child.err if len(sent) > 1 else "Stopped local-toy-s0@v1 after round" in child.err
    done = int(re.search(r"unfinished, (\d+) rounds", run(store, "artifacts", "list").stdout)[1])
    again = told(run(store, *study, "--rounds", str(done + 2), "--json"))
    assert [(one["run"], one["state"], len(one["accuracy"])) for one in again] == [
        ("local-toy-s0@v1", "done", done + 3), ("local-toy-s1@v1", "done", done + 3)
    ]  # fmt: skip


def test_every_signal_to_stop_is_answered_and_handed_back(tmp_path, signals):
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    terminal = Terminal(Store(tmp_path), quiet=True)
    with terminal.observer() as observer:
        assert not observer.stop_requested()
        for number in before:
            assert signal.getsignal(number) == observer.interrupt
        os.kill(os.getpid(), signal.SIGHUP)
        assert observer.stop_requested()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            signal.sigtimedwait([], 1)
    assert before == {number: signal.getsignal(number) for number in before}


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_what_is_ignored_stays_ignored(tmp_path, signals, number):
    """As nohup ignores SIGHUP, and a shell Ctrl-C for what its script runs in the background."""
    signal.signal(number, signal.SIG_IGN)
    with Terminal(Store(tmp_path), quiet=True).observer() as observer:
        os.kill(os.getpid(), number)
        assert not observer.stop_requested()
    assert signal.getsignal(number) == signal.SIG_IGN


def test_a_run_that_fails_is_told_of_ends_no_other_and_gives_exit_code_3(store):
    words = [
        "train",
        "--rounds",
        "1",
        *TINY[:4],
        "--algorithm",
        "tests.helpers.toys:OWN",
        "--set",
        "pace=0,1",
        "--json",
    ]
    failed, done = told(result := run(store, *words, code=3))
    assert (failed["run"], failed["state"], failed["accuracy"]) == (
        "tests.helpers.toys.OWN-toy-pace0-s0@v1",
        "failed",
        None,
    )
    assert "ZeroDivisionError" in failed["reason"] and "The last good checkpoint is" in failed["reason"]
    assert (
        failed["reason"] in result.stderr and "1 of 2 runs failed; the same command tries them again." in result.stderr
    )
    assert done["state"] == "done" and len(done["accuracy"]) == 2
    assert [one["state"] for one in told(run(store, *words, code=3))] == ["failed", "there already"]
    strict = told(run(store, *words, "--again", "--stop-on-error", code=3))
    assert [one["state"] for one in strict] == ["failed", "waiting"]
    code = ["--algorithm", "tests.helpers.toys:OWN", *TINY[:2]]
    assert "ZeroDivisionError" in run(store, "train", "--resume", failed["run"], *code, code=3).stderr


def test_again_makes_new_versions(store):
    assert [told(run(store, *LOCAL, "--rounds", "1", *extra, "--json"))[0]["run"] for extra in ([], [], ["--again"])] == [
        "local-toy-s0@v1", "local-toy-s0@v1", "local-toy-s0@v2",
    ]  # fmt: skip
    assert "there already" in run(store, *LOCAL, "--rounds", "1").stdout


def test_a_preset_may_hold_a_grid(store, tmp_path):
    preset = tmp_path / "grid.toml"
    preset.write_text(
        '[train]\nalgorithm = "fedproto"\nrounds = 1\nseeds = "3-4"\n[algorithms.fedproto]\nlambda = [1, 0.5]\n'
    )
    made = told(run(store, "train", "--preset", str(preset), *TINY[:4], "--json"))
    assert [one["run"] for one in made] == [
        f"fedproto-toy-lambda{value}-s{seed}@v1" for value in ("1", "0.5") for seed in (3, 4)
    ]
    typed = ["train", "--algorithm", "fedproto", "--rounds", "1", "--set", "lambda=0.5,1", "--seeds", "3-4", *TINY[:4]]
    assert run(store, *typed).stdout.count("there already") == 4


@pytest.mark.usefixtures("undrawn")
def test_a_grid_of_settings_from_options_and_from_a_preset(store, tmp_path):
    preset = tmp_path / "grid.toml"
    preset.write_text('[train]\nalgorithm = "local"\nrounds = 1\nlr = [0.01, 0.1]\nshuffle = [true, false]\n')
    words = ["train", "--preset", str(preset), *TINY[:4]]
    shown = run(store, *words, "--no-shuffle", "--dry-run").stdout
    assert "local lr=0.01 " in shown and "local lr=0.1 " in shown and "shuffle=off" in shown and "2 runs" in shown
    made = told(run(store, *words, "--no-shuffle", "--json"))
    assert [one["run"] for one in made] == ["local-toy-lr0.01-s0@v1", "local-toy-lr0.1-s0@v1"]
    typed = run(store, *LOCAL, "--rounds", "1", "--no-shuffle", "--lr", "0.1,0.01,1").stdout
    assert typed.count("there already") == 2 and "local-toy-lr1-s0@v1" in typed
    for wrong in ("0.1,", "0.1,x", ",", "0"):
        assert "lr" in run(store, *LOCAL, "--lr", wrong, code=2).stderr
    table = run(store, "report", "--name", "grid").stdout
    assert all(f"local (lr={lr})" in table for lr in (0.01, 0.1, 1.0))
    columns = run(store, "report", "--columns", "lr,last", "--format", "csv").stdout.splitlines()
    assert columns[0] == "lr,last.mean,last.std" and [line.split(",")[0] for line in columns[1:]] == [
        "0.01",
        "0.1",
        "1.0",
    ]
    assert "did you mean lr" in run(store, "report", "--columns", "lrr,last", code=2).stderr


def test_of_several_data_artifacts_one_must_be_chosen(toy_store):
    write_toy_data(toy_store, "other")
    refused = run(toy_store.root, *LOCAL, code=2).stderr
    assert "several data artifacts" in refused and "other, toy; set --data to one of them" in " ".join(refused.split())
    assert not toy_store.names("run")
