"""The train stage: plans, resuming, publishing, previews."""

import importlib
import json
import re

import numpy as np
import pytest
from safetensors.torch import load

import stages
from stages.artifacts.partial import find_unfinished, progress, unfinished
from stages.artifacts.refs import Ref
from stages.artifacts.schemas import read
from stages.engines import playing
from stages.engines.plan import RESUMABLE
from stages.errors import Failed, Interrupted, UserError
from stages.models import split
from stages.observer import Observer
from stages.reporting.rows import IDLE
from stages.settings import Train, names
from tests.helpers.toy_runs import CODE, StopAfter, assert_same, numbers, settings
from tests.helpers.toy_store import write_toy_data, write_toy_latents

HYPER = {"fedktl": {"server_epochs": 2}}

stage = importlib.import_module("stages.train")  # of which `stages.train` is the function


def test_a_run_holds_what_its_schema_says(toy_store):
    (artifact,) = stages.train(toy_store, "first", settings(), HYPER)
    run = read(artifact)
    assert str(artifact.ref) == "first@v1"
    assert run.test_accuracy.shape == (4, 4) and run.upload_floats.shape == (3, 4)
    assert run.pair_images.shape == (3, 5, 3, 16, 16) and run.centroids.shape == (5, 8)
    assert run.facts["algorithm"] == "fedktl" and run.facts["data"] == "toy@v1" and run.facts["latents"] == "bank@v1"
    assert run.facts["architectures"][1] == "tests.helpers.toys:narrow" and len(run.facts["parameters"]) == 4
    assert artifact.attributes["made_from"]["data"] == toy_store.open("toy").identity
    assert artifact.attributes["software"]["torch"] and artifact.attributes["seed"] == 0
    weights = load(artifact.array("clients/002").tobytes())
    model = split.build("tests.helpers.toys:tiny", (3, 16, 16), 5, 16, seed=0)
    model.load_state_dict(weights)
    assert not unfinished(toy_store)


def test_one_run_per_algorithm_and_seed(toy_store):
    made = stages.train(toy_store, None, settings(algorithm=["fedktl", "local"], seeds="0,1", rounds=1), HYPER)
    assert [a.ref.name for a in made] == ["fedktl-toy-s0", "fedktl-toy-s1", "local-toy-s0", "local-toy-s1"]
    assert "latents" not in made[2].attributes["made_from"]


@pytest.mark.parametrize("algorithm", ["fedktl", "fedproto", "local"])
def test_stopped_and_resumed_equals_one_go(toy_store, algorithm):
    plan = settings(algorithm=algorithm, rounds=4)
    (whole,) = stages.train(toy_store, "whole", plan, HYPER if algorithm == "fedktl" else {})
    with pytest.raises(Interrupted, match="Stopped halved@v1 after round 2; the same command continues"):
        stages.train(toy_store, "halved", plan, HYPER if algorithm == "fedktl" else {}, StopAfter(2))
    assert [path.parent.name for path in unfinished(toy_store)] == ["halved"]
    resumed = stages.resume(toy_store, "halved", CODE)
    assert str(resumed.ref) == "halved@v1"
    assert_same(numbers(whole), numbers(resumed))


def test_a_stop_asked_for_at_any_moment_keeps_the_round_it_names(toy_store):
    class StopAtCall(Observer):
        """True from the n-th question on, wherever the loop asks."""

        def __init__(self, n):
            self.left = n

        def stop_requested(self):
            self.left -= 1
            return self.left < 0

    for number in range(1, 4):  # the first question is whether to begin
        name = f"stop-{number}"
        with pytest.raises(Interrupted) as stopped:
            stages.train(toy_store, name, settings(algorithm="local", checkpoint_every=100), {}, StopAtCall(number))
        said = int(re.search(r"after round (\d+)", str(stopped.value))[1])
        assert progress(find_unfinished(toy_store, Ref(name))) == said


def test_killed_before_the_first_round_ended(toy_store, monkeypatch):
    plan = settings(algorithm="local")
    (whole,) = stages.train(toy_store, "whole", plan, {})
    with monkeypatch.context() as patched:
        patched.setattr("stages.engines.rounds.play_round", lambda *args: 1 / 0)
        with pytest.raises(Failed, match=r"ZeroDivisionError.*our fault\. The last good checkpoint is"):
            stages.train(toy_store, "early", plan, {})
    assert_same(numbers(whole), numbers(stages.resume(toy_store, "early", CODE)))


def test_a_finished_run_goes_on_for_more_rounds_as_its_next_version(toy_store):
    (longer,) = stages.train(toy_store, "longer", settings(algorithm="local", rounds=5), {})
    (first,) = stages.train(toy_store, "first", settings(algorithm="local", rounds=3), {})
    before = numbers(first)
    extended = stages.resume(toy_store, "first", {**CODE, "rounds": 5})
    assert str(extended.ref) == "first@v2"
    assert_same(numbers(longer), numbers(extended))
    assert_same(before, numbers(toy_store.open("first@v1", thorough=True)))


def test_a_run_from_before_auc_was_measured_goes_on(toy_store, monkeypatch):
    stages.train(toy_store, "old", settings(algorithm="local", rounds=2), {})
    packed = playing.packed_run

    def without_auc(artifact):
        return {name: value for name, value in packed(artifact).items() if not name.endswith("test_auc")}

    monkeypatch.setattr(playing, "packed_run", without_auc)
    auc = read(stages.resume(toy_store, "old", {"rounds": 4, **CODE})).test_auc
    assert np.isnan(auc).all(1).tolist() == [True, True, True, False, False]


def test_a_finished_run_without_more_rounds_is_left_alone(toy_store):
    stages.train(toy_store, "first", settings(algorithm="local"), {})
    with pytest.raises(UserError, match="give more `rounds`"):
        stages.resume(toy_store, "first", CODE)


def test_each_setting_says_once_whether_it_affects_results_and_may_change_on_resuming():
    affecting, resumable = set(names(Train, affects=True)), set(names(Train, resumable=True))
    assert affecting & resumable == {"rounds", "patience"}  # how long a run goes
    assert set(names(Train)) - affecting - resumable == {"engine", "generator"}
    assert set(RESUMABLE) == resumable and set(IDLE) == set(names(Train)) - affecting


def test_only_a_few_settings_may_change_on_resume(toy_store):
    with pytest.raises(Interrupted):
        stages.train(toy_store, "first", settings(algorithm="local"), {}, StopAfter(1))
    with pytest.raises(UserError, match="keeps its lr"):
        stages.resume(toy_store, "first", {"lr": 0.5})


def test_latents_of_another_generator_are_refused_on_resume(toy_store):
    with pytest.raises(Interrupted):
        stages.train(toy_store, "first", settings(), HYPER, StopAfter(1))
    toy_store.remove(toy_store.resolve("bank@v1"))
    write_toy_latents(toy_store, seed=1)  # takes the same name and version
    with pytest.raises(UserError, match="not the one this run was made from"):
        stages.resume(toy_store, "first", CODE)


def test_a_diverging_run_names_its_last_good_checkpoint_and_stays_resumable(toy_store):
    with pytest.raises(UserError, match=r"Client \d diverged.*last good checkpoint is .*checkpoint-\d{6}"):
        stages.train(
            toy_store, "wild", settings(algorithm="local", models="tests.helpers.toys:wild", checkpoint_every=1), {}
        )
    (folder,) = unfinished(toy_store)
    assert list(folder.glob("checkpoint-*"))
    with pytest.raises(UserError, match="diverged"):
        stages.resume(toy_store, "wild", {"models": "tests.helpers.toys:wild"})


def test_a_run_that_another_process_works_on_is_not_resumed(toy_store):
    class Intruder(Observer):
        def advance(self, steps=1, **facts):
            with pytest.raises(UserError, match="Another process"):
                stages.resume(toy_store, "busy", CODE)

    stages.train(toy_store, "busy", settings(algorithm="local", rounds=1), {}, Intruder())


def test_a_dry_run_counts_what_a_real_round_sends_and_writes_nothing(toy_store):
    before = sorted(toy_store.root.rglob("*"))
    (preview,) = stage.dry_run(toy_store, settings(), HYPER)
    assert sorted(toy_store.root.rglob("*")) == before
    (artifact,) = stages.train(toy_store, None, settings(rounds=2), HYPER)
    run = read(artifact)
    assert preview["upload_floats_per_round"] == run.upload_floats[1].sum()
    assert preview["download_floats_per_round"] == run.download_floats[1].sum()
    assert [row["model"] for row in preview["architectures"]] == [
        "tests.helpers.toys:tiny",
        "tests.helpers.toys:narrow",
    ]
    assert preview["architectures"][0]["features"] == [2, 16]
    json.dumps(preview)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"algorithm": "fedkt"}, "did you mean fedktl"), ({"data": "toi"}, "did you mean toy"),
        ({"latents": "toy"}, "bank"), ({"models": "smal"}, "did you mean small"),
    ],
)  # fmt: skip
def test_names_that_are_wrong_get_the_near_ones(toy_store, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        stages.train(toy_store, None, settings(**changes), {})
    assert not unfinished(toy_store)


def test_a_bank_smaller_than_the_number_of_classes(toy_store):
    write_toy_latents(toy_store, "poor", count=4)
    with pytest.raises(UserError, match=re.escape("4 latents and 5 classes")):
        stages.train(toy_store, None, settings(latents="poor"), {})


def test_data_and_latents_are_the_newest_of_the_one_name_there_is(toy_store):
    class Listener(Observer):
        heard = ""

        def note(self, message):
            self.heard += message

    write_toy_data(toy_store, seed=3)
    listener = Listener()
    (artifact,) = stages.train(toy_store, None, settings(rounds=1), HYPER, listener)
    assert artifact.attributes["facts"]["data"] == "toy@v2"
    assert listener.heard == "Training on data toy@v2 and latents bank@v1, the newest."


@pytest.mark.parametrize(("kind", "write"), [("data", write_toy_data), ("latents", write_toy_latents)])
def test_of_data_or_latents_of_several_names_one_must_be_chosen(toy_store, kind, write):
    write(toy_store, "other")
    with pytest.raises(UserError, match=rf"several {kind} artifacts in .*: \w+, \w+; set `{kind}` to one of them"):
        stages.train(toy_store, None, settings(), HYPER)
    assert not toy_store.names("run")
    stages.train(toy_store, None, settings(rounds=1, **{kind: "other"}), HYPER)
