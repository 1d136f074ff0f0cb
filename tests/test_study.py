"""A study: what each of its runs is and is called, what is there already, goes on or is made, and what a failure ends."""

import importlib
import itertools
from dataclasses import fields

import numpy as np
import pytest

import stages
from stages.algorithms.common.privacy import Protected
from stages.artifacts.runs import identity, kept
from stages.engines import plan
from stages.errors import Failed, Interrupted, UserError
from stages.fields import product
from stages.observer import Observer
from stages.randomness import Rng
from stages.settings import gridded
from tests.helpers.toy_runs import StopAfter, assert_same, numbers, settings
from tests.helpers.toy_store import write_toy_data

stage = importlib.import_module("stages.train")
LOCAL = {"algorithm": "local", "rounds": 2}
GRID = {"fedktl": {"server_epochs": 1, "mu": [1, 10], "etf": "on,off"}}


def states(outcomes):
    return [outcome.state for outcome in outcomes]


def refs(artifacts):
    return [str(artifact.ref) for artifact in artifacts]


def facts(**changes):
    sources = {
        "data": {"kind": "data", "ref": "toy@v1", "seal": "d"},
        "latents": {"kind": "latents", "ref": "bank@v1", "seal": "l"},
    }
    own = {"algorithm": "fedktl", "hyper": {"mu": 50.0}, "seed": 0, "made_from": sources}
    return own | {"settings": settings().as_dict()} | changes


@pytest.mark.parametrize(
    "change",
    [
        {"algorithm": "fedproto"}, {"hyper": {"mu": 10.0}}, {"seed": 1}, {"settings": settings(lr=0.5).as_dict()},
        {"settings": settings(eval_every=2).as_dict()}, {"made_from": {"data": {"kind": "data", "ref": "toy@v1", "seal": "other"}}},
    ],
)  # fmt: skip
def test_what_decides_a_result_is_part_of_its_identity(change):
    assert identity(facts(**change)) != identity(facts())


def test_names_numbers_of_one_value_and_what_changes_no_result_are_no_part_of_an_identity():
    sources = {
        "latents": {"kind": "latents", "ref": "b@v9", "seal": "l"},
        "data": {"kind": "data", "ref": "t@v2", "seal": "d"},
    }
    idle = settings(
        rounds=9, patience=3, workers=2, device="cpu", data="toy", latents="bank", seeds="3,4", engine="flower"
    )
    assert identity(facts(made_from=sources, settings=idle.as_dict(), hyper={"mu": 50})) == identity(facts())
    without = {name: value for name, value in settings().as_dict().items() if name != "pair_pixels"}
    assert identity(facts(settings=without)) == identity(facts())  # recorded before there was such a setting
    off = {field.name: field.default for field in fields(Protected)}
    with_off = identity(facts(hyper={"mu": 50} | off))
    assert with_off == identity(facts())  # recorded before there was such a hyperparameter
    assert identity(facts(hyper={"mu": 50, "clip": 1.0})) != identity(facts())


def test_weights_to_begin_with_count_by_their_content_and_not_by_their_path(toy_store, tmp_path):
    file, other = tmp_path / "w.pth", tmp_path / "v.pth"

    def planned(path):
        chosen = settings(**LOCAL, pretrained=[f"tests.helpers.toys:tiny={path}"])
        (spec,) = plan.planned(toy_store, chosen, {}, lambda store, _: store.open("toy"))
        assert plan.planned_again(toy_store, spec.facts(), {}).facts() == spec.facts()
        return identity(spec.facts())

    file.write_bytes(b"one")
    other.write_bytes(b"one")
    before = planned(file)
    assert planned(other) == before
    file.write_bytes(b"two")
    assert planned(file) not in (before, planned(tmp_path / "none"))


def test_the_same_again_makes_nothing_and_more_seeds_make_those_only(toy_store):
    first = stages.train(toy_store, None, settings(**LOCAL, seeds="0-1"), {})
    made = {ref: toy_store.open(ref).attributes["seal"] for ref in refs(first)}
    outcomes = stage.study(toy_store, None, settings(**LOCAL, seeds="0-2", workers=1), {})
    assert states(outcomes) == ["there already", "there already", "done"]
    assert [outcome.ref for outcome in outcomes] == ["local-toy-s0@v1", "local-toy-s1@v1", "local-toy-s2@v1"]
    assert made == {ref: toy_store.open(ref).attributes["seal"] for ref in made}
    assert refs(stages.train(toy_store, None, settings(**LOCAL), {}, again=True)) == ["local-toy-s0@v2"]


def test_a_run_is_found_under_any_name_but_under_a_name_of_its_own_it_is_made(toy_store):
    stages.train(toy_store, "mine", settings(**LOCAL), {})
    assert refs(stages.train(toy_store, None, settings(**LOCAL), {})) == ["mine@v1"]
    assert refs(stages.train(toy_store, "yours", settings(**LOCAL), {})) == ["yours@v1"]
    assert refs(stages.train(toy_store, "mine", settings(**LOCAL, seeds="0,1"), {})) == [
        "mine@v1",
        "mine-local-toy-s1@v1",
    ]


def test_other_data_under_the_same_reference_makes_another_run(toy_store):
    stages.train(toy_store, None, settings(**LOCAL), {})
    toy_store.remove(toy_store.resolve("toy@v1"))
    write_toy_data(toy_store, seed=5)
    assert refs(stages.train(toy_store, None, settings(**LOCAL), {})) == ["local-toy-s0@v2"]


def test_more_rounds_go_on_from_the_finished_run_and_fewer_are_there(toy_store):
    (longer,) = stages.train(toy_store, "longer", settings(**LOCAL | {"rounds": 5}), {})
    stages.train(toy_store, "short", settings(**LOCAL), {})
    (grown,) = stages.train(toy_store, "short", settings(**LOCAL | {"rounds": 5}), {})
    assert str(grown.ref) == "short@v2" and grown.attributes["facts"]["rounds"] == 5
    assert_same(numbers(longer), numbers(grown))
    for rounds in (1, 2, 5):
        assert states(stage.study(toy_store, "short", settings(**LOCAL | {"rounds": rounds}), {})) == ["there already"]


def test_a_finished_run_that_is_killed_on_its_way_to_more_rounds_goes_on_from_where_it_was(toy_store):
    stages.train(toy_store, None, settings(**LOCAL), {})
    more = settings(**LOCAL | {"rounds": 4, "checkpoint_every": 100})
    with pytest.raises(Interrupted, match="Stopped local-toy-s0@v2 after round 3"):
        stages.train(toy_store, None, more, {}, StopAfter(1))
    counted = Counted()
    assert refs(stages.train(toy_store, None, more, {}, counted)) == ["local-toy-s0@v2"] and counted.steps == 1


def test_a_run_out_of_patience_is_there_and_more_patience_goes_on(toy_store):
    patient = LOCAL | {"rounds": 9, "lr": 1e-12}  # no accuracy gets better
    (run,) = stages.train(toy_store, None, settings(**patient, patience=2), {})
    assert run.attributes["facts"]["rounds"] == 2
    assert states(stage.study(toy_store, None, settings(**patient, patience=2), {})) == ["there already"]
    (run,) = stages.train(toy_store, None, settings(**patient, patience=4), {})
    assert str(run.ref) == "local-toy-s0@v2" and run.attributes["facts"]["rounds"] > 2


class Counted(Observer):
    def __init__(self):
        self.steps = 0

    def advance(self, steps=1, **facts):
        self.steps += steps


def test_a_study_stopped_goes_on_with_the_same_command_and_equals_one_that_was_not(toy_store):
    study, name = settings(**LOCAL, seeds="0-2"), "whole"
    whole = stages.train(toy_store, name, study, {})
    outcomes = stage.study(toy_store, "halved", study, {}, StopAfter(3))
    assert states(outcomes) == ["done", "stopped", "waiting"]
    assert "Stopped halved-local-toy-s1@v1 after round 1; the same command continues" in outcomes[1].reason
    counted = Counted()
    outcomes = stage.study(toy_store, "halved", study, {}, counted)
    assert states(outcomes) == ["there already", "done", "done"] and counted.steps == 3
    for one, other in zip(whole, outcomes, strict=True):
        assert_same(numbers(one), numbers(other.artifact))


def test_stopped_at_once_tells_of_every_run(toy_store):
    class AtOnce(Observer):
        def advance(self, steps=1, **facts):
            raise KeyboardInterrupt

    outcomes = stage.study(toy_store, None, settings(**LOCAL, seeds="0,1"), {}, AtOnce())
    assert states(outcomes) == ["stopped", "waiting"]
    assert outcomes[0].reason == "Stopped at once; the same command continues from the last checkpoint."
    with pytest.raises(KeyboardInterrupt):
        stages.train(toy_store, None, settings(**LOCAL, seeds="0,1"), {}, AtOnce())


def test_a_failure_is_recorded_ends_no_other_run_and_is_tried_again(toy_store, monkeypatch):
    rounds = importlib.import_module("stages.engines.rounds")
    played, chosen = rounds.play_round, settings(**LOCAL, seeds="0-2")

    def play(federation, state, pool):
        if federation.rng.seed() == Rng(1).seed() and state.rounds == 1:
            raise MemoryError("of the toy")
        played(federation, state, pool)

    with monkeypatch.context() as patched:
        patched.setattr(rounds, "play_round", play)
        outcomes = stage.study(toy_store, None, chosen, {})
        assert states(outcomes) == ["done", "failed", "done"] and outcomes[1].ref == "local-toy-s1@v1"
        with pytest.raises(
            Failed,
            match=r"Memory ran out \(of the toy\); choose smaller settings\. The last good checkpoint is .*/checkpoint-",
        ):
            stages.train(toy_store, None, chosen, {})
        assert states(stage.study(toy_store, "strict", chosen, {}, stop_on_error=True)) == ["done", "failed", "waiting"]
    (failed,) = kept(toy_store, ["local-toy-s1"])
    assert (failed.state, failed.rounds) == ("failed", 0) and failed.failure["sentence"] == outcomes[1].reason
    assert states(stage.study(toy_store, None, chosen, {})) == ["there already", "done", "there already"]


def test_a_run_that_another_process_is_on_is_left_to_it(toy_store):
    class Intruder(Observer):
        seen = None

        def advance(self, steps=1, **facts):
            self.seen = stage.study(toy_store, None, settings(**LOCAL, seeds="0,1"), {})

    intruder = Intruder()
    outcomes = stage.study(toy_store, None, settings(**LOCAL), {}, intruder)
    assert states(intruder.seen) == ["elsewhere", "there already"] and "Another process" in intruder.seen[0].reason
    assert states(outcomes) == ["done"]


def test_a_study_none_of_whose_runs_can_begin_is_refused_and_leaves_nothing(toy_store):
    with pytest.raises(UserError, match="does not fit"):
        stage.study(toy_store, None, settings(**LOCAL, models="tests.helpers.toys:headless", seeds="0,1"), {})
    assert not toy_store.names("run")
    several = settings(algorithm=["local", "fedavg"], rounds=1)
    with pytest.raises(UserError, match="fedavg averages whole models"):
        stage.study(toy_store, None, several, {})
    assert not toy_store.names("run")


def test_a_damaged_run_is_told_of_and_can_be_made_again(toy_store):
    (run,) = stages.train(toy_store, None, settings(**LOCAL), {})
    (run.path / "rounds" / "joined" / "zarr.json").unlink()
    assert "is missing" in stage.study(toy_store, None, settings(**LOCAL, seeds="0,1"), {})[0].reason
    assert refs(stages.train(toy_store, None, settings(**LOCAL), {}, again=True)) == ["local-toy-s0@v2"]


def test_a_grid_runs_every_choice_and_names_it_by_what_differs(toy_store):
    made = stages.train(toy_store, None, settings(rounds=1), GRID)
    assert refs(made) == [f"fedktl-toy-mu{mu}-etf{etf}-s0@v1" for mu, etf in itertools.product((1, 10), ("on", "off"))]
    assert [run.attributes["facts"]["hyper"]["mu"] for run in made] == [1, 1, 10, 10]
    (alone,) = stages.train(toy_store, None, settings(rounds=1), {"fedktl": {"server_epochs": 1, "mu": 10}})
    assert alone.ref == made[2].ref  # etf is on by default


@pytest.mark.usefixtures("undrawn")
def test_settings_that_affect_results_make_a_grid_as_well(toy_store):
    grid = {"lr": "0.1,0.05", "drop_last": [True, False]}
    made = stages.train(toy_store, None, settings(**LOCAL, seeds="0,1"), {}, grid=grid)
    assert refs(made) == [
        f"local-toy-lr{lr}-drop_last{drop}-s{seed}@v1"
        for lr, drop, seed in itertools.product(("0.1", "0.05"), ("on", "off"), (0, 1))
    ]
    assert [run.settings["lr"] for run in made] == [0.1] * 4 + [0.05] * 4
    (alone,) = stages.train(toy_store, None, settings(**LOCAL, lr=0.05), {})
    assert alone.ref == made[6].ref  # drop_last is off by default
    rows = stages.report(toy_store, "grid", stages.Report()).attributes["rows"]
    assert {row["variant"] for row in rows} == {
        f"drop_last={drop}, lr={lr}" for lr, drop in itertools.product((0.1, 0.05), (True, False))
    }


def test_a_grid_of_settings_is_dealt_to_processes(toy_store):
    chosen, grid = settings(**LOCAL, models="CNN", feature_dim=8, jobs=2), {"batch_size": [4, 8]}
    outcomes = stage.study(toy_store, None, chosen, {}, grid=grid)
    assert [one.ref for one in outcomes] == ["local-toy-batch_size4-s0@v1", "local-toy-batch_size8-s0@v1"]


@pytest.mark.parametrize(
    ("grid", "sentence"),
    [
        ({"lr": "0.1,,1"}, "`lr` has an empty value"), ({"lr": [0.1, -1]}, "`lr` must be above 0, not -1"), ({"lr": "0.1,x"}, "`lr` must be a number"),
        ({"rounds": [1, 2]}, "no setting that may have several values named 'rounds'"), ({"pairs": "bank,life"}, "did you mean live"),
    ],
)  # fmt: skip
def test_a_wrong_grid_is_refused_before_anything_is_written(toy_store, grid, sentence):
    with pytest.raises(UserError, match=sentence):
        stage.study(toy_store, None, settings(**LOCAL), {}, grid=grid)
    assert not toy_store.names("run") and not list(toy_store.root.glob(".study*"))


def test_settings_with_several_values_are_told_from_those_with_one():
    one, grid = gridded(
        {"lr": [0.01, 0.1], "models": ["small", "CNN"], "wire": "fp16"}, {"batch-size": "8, 16", "seeds": "0,1"}
    )
    assert grid == {"lr": [0.01, 0.1], "models": ["small", "CNN"], "batch_size": ["8", "16"]}
    assert (one.lr, one.wire, one.seeds) == (0.01, "fp16", (0, 1))
    one, grid = gridded({"lr": [0.01, 0.1]}, {"lr": "0.5", "models": "CNN,resnet4"})  # a later layer beats a grid, too
    assert (one.lr, one.models, grid) == (0.5, "CNN,resnet4", {})


def test_the_same_choice_twice_is_one_run(toy_store):
    made = stages.train(toy_store, None, settings(rounds=1, algorithm=["local", "local"], seeds="0,0"), {})
    assert refs(made) == ["local-toy-s0@v1"]


def test_names_that_are_too_long_end_in_the_identity(toy_store):
    (run,) = stages.train(toy_store, None, settings(**LOCAL), {})
    write_toy_data(toy_store, "d" * 100, seed=1)  # other images: the same ones are the same run
    (run,) = stages.train(toy_store, None, settings(**LOCAL, data="d" * 100), {})
    assert len(run.ref.name) == 100 and run.ref.name.endswith(identity(run.attributes["facts"]))


def test_product_takes_lists_and_commas_apart_and_a_tuple_field_as_one(toy_store):
    assert product(stages.Train, {"lr": "0.1, 1", "rounds": 2}) == [
        {"lr": "0.1", "rounds": 2},
        {"lr": "1", "rounds": 2},
    ]
    assert product(stages.Train, {"seeds": [1, 2]}) == [{"seeds": [1, 2]}]
    for empty in ("1,,2", ",", "1,", []):
        with pytest.raises(UserError, match="`lr` has an empty value"):
            product(stages.Train, {"lr": empty})


@pytest.mark.parametrize(
    ("seeds", "sentence"),
    [
        ("4-0", "the range 4-0 runs backwards; write 0-4"), ("0,,1", "must be a whole number, not ''"), ("0-99999", "more than 10,000"),
        ("0-", "must be a whole number"), ("0-1-2", "must be a whole number"), (f"0-{2**64}", "must be a whole number|more than"),
    ],
)  # fmt: skip
def test_a_wrong_range_of_seeds_is_refused(seeds, sentence):
    with pytest.raises(UserError, match=f"seeds.*({sentence})"):
        settings(seeds=seeds)


def test_seeds_may_be_ranges():
    assert settings(seeds="0-2, 7,9-9").seeds == (0, 1, 2, 7, 9) and settings(seeds=["0-1", 5]).seeds == (0, 1, 5)


def test_runs_of_one_study_are_equal_however_many_there_are(toy_store):
    both = stages.train(toy_store, "both", settings(**LOCAL, seeds="0,1"), {})
    (one,) = stages.train(toy_store, "one", settings(**LOCAL, seeds="1"), {})
    assert_same(numbers(both[1]), numbers(one))
    assert not np.array_equal(both[0].array("rounds/test_accuracy"), one.array("rounds/test_accuracy"))
