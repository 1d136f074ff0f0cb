"""Every aggregate of the table, by hand. The runs are those of made_runs.py."""

import numpy as np
import pytest

from stages.artifacts import schemas
from stages.artifacts.store import Store
from stages.errors import UserError
from stages.reporting import scores
from stages.reporting.rows import grouped, latest, row
from tests.helpers.made_runs import default_arrays, made_data, made_latents, made_run

ACCURACIES = ("rounds/test_accuracy", "rounds/validation_accuracy")


def test_scores_of_one_run(store):
    run = schemas.read(made_run(store, "a", made_data(store)))
    # Clients with 1 and 3 test images: (1*1 + 3*0)/4, (1 + 3)/4, (0.25 + 3*0.75)/4.
    assert scores.accuracy(run) == pytest.approx([25, 100, 62.5])
    assert scores.validation_accuracy(run) == pytest.approx([50, 75, 75])  # 2 and 2 validation images
    assert scores.last(run) == 62.5
    assert scores.validation_selected(run) == 100  # round 1 is the first of the two best
    assert scores.best_on_test(run) == 100
    assert scores.worst_client(run) == 25
    assert scores.spread(run) == 25  # of 25 and 75 around 50
    assert scores.uploaded_floats(run).tolist() == [0, 30, 40]
    assert scores.seconds_per_round(run) == {"train": 1.5, "server": 0.5}


def test_clients_that_were_not_evaluated_do_not_count(store):
    data, nan = made_data(store), np.nan
    some = {"rounds/test_accuracy": np.array([[1.0, 0.0], [1.0, nan], [nan, nan]])}
    found = [
        row(grouped([schemas.read(made_run(store, name, data, **arrays))])[0])
        for name, arrays in (("a", {}), ("b", some))
    ]
    assert [(each["evaluated_clients"], each["clients"]) for each in found] == [(None, 2), (1, 2)]
    # Nobody was there at the last evaluation: the last one with somebody counts.
    assert found[1]["last"]["mean"] == found[1]["worst_client"] == 100 and found[1]["spread"] == 0
    nobody = schemas.read(made_run(store, "c", data, **{"rounds/test_accuracy": np.full((3, 2), nan)}))
    with pytest.raises(UserError, match="No client with test images was evaluated in c@v1"):
        row(grouped([nobody])[0])


def test_epsilon_is_the_largest_of_any_seed(store):
    data = made_data(store)
    runs = [schemas.read(made_run(store, name, data, seed=seed)) for seed, name in enumerate("abc")]
    assert row(grouped(runs)[0])["epsilon"] is None
    for run, said in zip(
        runs, ({"epsilon": 2.5, "delta": 1e-5}, {"epsilon": None, "delta": 1e-5}, "spoilt"), strict=True
    ):
        run.facts["privacy"] = said
    found = row(grouped(runs)[0])
    assert (found["epsilon"], found["delta"]) == (2.5, 1e-5)


def test_auc_is_told_where_it_was_measured(store):
    data = made_data(store)
    measured = {"rounds/test_auc": np.array([[0.5, 0.5], [1.0, 1.0], [0.6, 0.8]])}
    found = row(grouped([schemas.read(made_run(store, "a", data, **measured))])[0])
    assert found["auc"] == {"mean": pytest.approx(75), "std": None}  # (0.6 + 3 * 0.8) / 4
    assert found["auc_spread"] == pytest.approx(10)
    old = row(grouped([schemas.read(made_run(store, "b", data))])[0])
    assert old["auc"] is None and old["auc_spread"] is None
    missing = {"rounds/test_auc": np.array([[0.5, 0.5], [1.0, 1.0], [np.nan, 0.8]])}
    assert row(grouped([schemas.read(made_run(store, "c", data, **missing))])[0])["auc"]["mean"] == pytest.approx(80)


def test_uploaded_floats_follow_the_evaluated_rounds(store):
    few = {name: default_arrays()[name][::2] for name in ("rounds/evaluated", *ACCURACIES)}
    run = schemas.read(made_run(store, "a", made_data(store), **few))
    assert scores.uploaded_floats(run).tolist() == [0, 40]


def test_a_client_without_test_images_weighs_nothing(store):
    accuracy = np.array([[np.nan, 0.5]] * 3)
    arrays = {"rounds/test_accuracy": accuracy, "rounds/test_samples": [0, 3]}
    run = schemas.read(made_run(store, "a", made_data(store), **arrays))
    assert (scores.last(run), scores.worst_client(run), scores.spread(run)) == (50, 50, 0)


def test_a_run_without_test_images_is_refused(store):
    run = schemas.read(made_run(store, "a", made_data(store), **{"rounds/test_samples": [0, 0]}))
    with pytest.raises(UserError, match=r"a@v1 has no test images"):
        row(grouped([run])[0])


def test_row_over_two_seeds(store):
    data, latents = made_data(store), made_latents(store)
    better = np.array([[1.0, 0.0], [1.0, 0.0], [0.65, 0.65]])  # weighted 25, 25, 65 %
    second = {
        "rounds/test_accuracy": better, "rounds/upload_floats": [[30, 0], [30, 0]], "rounds/peak_memory": [9, 4096],
        "seconds/train": [3.0, 4.0], "seconds/align": [1.0, 0.0],
    }  # fmt: skip
    runs = [
        schemas.read(made_run(store, "b", data, latents, seed=1, **second)),
        schemas.read(made_run(store, "a", data, latents, seed=0)),
    ]
    groups = grouped(runs)
    assert len(groups) == 1
    found = row(groups[0])
    assert (found["algorithm"], found["data"], found["models"]) == ("fedktl", "digits@v1", "small")
    assert (found["runs"], found["seeds"], found["rounds"]) == (["a@v1", "b@v1"], [0, 1], 2)
    # std of two numbers with ddof=1 is their distance / sqrt(2)
    assert found["last"] == pytest.approx({"mean": 63.75, "std": 2.5 / 2**0.5})
    assert found["validation_selected"] == pytest.approx({"mean": 62.5, "std": 75 / 2**0.5})
    assert found["best_on_test"] == pytest.approx({"mean": 82.5, "std": 35 / 2**0.5})
    assert found["worst_client"] == pytest.approx(45)  # of 25 and 65
    assert found["spread"] == pytest.approx(12.5)  # of 25 and 0
    assert found["upload_floats_per_round"] == 25  # (30 + 10)/2 and 30
    assert found["upload_floats_total"] == 50
    assert (found["upload_bytes_per_round"], found["upload_bytes_total"]) == (80, 160)
    assert (found["download_floats_per_round"], found["download_floats_total"]) == (100, 200)
    assert (found["download_bytes_per_round"], found["download_bytes_total"]) == (400, 800)
    assert found["seconds_per_round"] == {"server": 0.5, "train": 2.5, "align": 0.25}  # a has no align: 0 seconds
    assert found["peak_memory_bytes"] == 4096


def test_one_seed_has_no_deviation(store):
    assert row(grouped([schemas.read(made_run(store, "a", made_data(store)))])[0])["last"] == {
        "mean": 62.5,
        "std": None,
    }


def test_without_validation_nothing_is_selected(store):
    none = {"rounds/validation_accuracy": np.full((3, 2), np.nan), "rounds/validation_samples": [0, 0]}
    assert (
        row(grouped([schemas.read(made_run(store, "a", made_data(store), **none))])[0])["validation_selected"] is None
    )


def test_groups_differ_in_anything_but_the_seed(store):
    data = made_data(store)
    runs = [
        made_run(store, "a", data, seed=0, hyper={"mu": 1}),
        made_run(store, "b", data, seed=0, algorithm="local"),
        made_run(store, "c", data, seed=0, hyper={"mu": 10}),
        made_run(store, "d", data, seed=1, hyper={"mu": 1}),
        made_run(store, "e", data, seed=0, hyper={"mu": 1}, settings={"lr": 0.1}),
        made_run(store, "f", made_data(store, "other"), hyper={"mu": 1}),
    ]
    groups = grouped(schemas.read(run) for run in runs)
    assert [[run.artifact.ref.name for run in group.runs] for group in groups] == [
        ["a", "d"],
        ["b"],
        ["c"],
        ["e"],
        ["f"],
    ]
    assert [group.label for group in groups] == [
        "fedktl (lr=0.01, mu=1)", "local", "fedktl (lr=0.01, mu=10)", "fedktl (lr=0.1, mu=1)", "fedktl",
    ]  # fmt: skip
    assert row(groups[2])["choices"] == {"lr": 0.01, "mu": 10} and row(groups[1])["choices"] == {}


def test_what_changes_no_result_sets_no_runs_apart(store):
    data = made_data(store)
    one = {"workers": 1, "checkpoint_every": 10, "device": "cpu", "client_cpus": 1.0, "engine": "local"}
    other = {"workers": 2, "checkpoint_every": 5, "device": "cuda", "client_cpus": 2.0, "engine": "flower"}
    runs = [schemas.read(made_run(store, name, data, seed=seed, settings=chosen)) for name, seed, chosen in (
        ("a", 0, one), ("b", 1, other), ("c", 1, one),
    )]  # fmt: skip
    assert [[run.artifact.ref.name for run in group.runs] for group in grouped(runs)] == [["a", "b", "c"]]
    assert [str(run.artifact.ref) for run in latest(runs)] == ["a@v1", "c@v1"]
    assert grouped(runs)[0].variant == ""


def test_latest_keeps_one_run_of_each_seed(store):
    data = made_data(store)
    runs = [
        schemas.read(made_run(store, name, data, seed=seed)) for name, seed in (("a", 0), ("a", 0), ("a", 1), ("b", 1))
    ]
    assert [str(run.artifact.ref) for run in latest(runs)] == ["a@v2", "b@v1"]


def test_latest_takes_a_run_and_the_one_that_extends_it_for_one(store):
    lengths = [{"rounds": 2, "patience": 0}, {"rounds": 9, "patience": 3}, {"rounds": 9, "lr": 0.5}]
    data = made_data(store)
    runs = [schemas.read(made_run(store, "a", data, settings=settings)) for settings in lengths]
    assert [str(run.artifact.ref) for run in latest(runs)] == ["a@v2", "a@v3"]


def test_one_reference_with_two_contents_is_refused(store, tmp_path):
    one = schemas.read(made_run(store, "a", made_data(store)))
    elsewhere = Store(tmp_path / "elsewhere")
    other = schemas.read(made_run(elsewhere, "b", made_data(elsewhere, class_names=["x", "y", "z"])))
    with pytest.raises(UserError, match=r"a@v1 and b@v1 name the same data digits@v1"):
        grouped([one, other])
