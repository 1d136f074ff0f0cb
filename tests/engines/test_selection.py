"""The weights of the round that validation selects."""

import importlib

import pytest
from safetensors.torch import load

import stages
from stages.artifacts.schemas import read
from stages.engines.run_artifact import read_state
from stages.errors import Interrupted, UserError
from stages.means import selected
from tests.helpers.toy_runs import CODE, StopAfter, assert_same, numbers, settings
from tests.helpers.toy_store import write_toy_data

dry_run = importlib.import_module("stages.train").dry_run
LEARNT = {"algorithm": "fedproto", "lr": 0.1, "rounds": 4}  # on the toy images no round is better than the third


def trained(store, name, **changes):
    return stages.train(store, name, settings(**LEARNT | changes), {})[0]


def test_the_selected_weights_are_those_after_the_selected_round(toy_store):
    run = trained(toy_store, "run")
    content = read(run)
    best = selected(content.validation_accuracy, content.validation_samples)
    assert 0 < best < 4
    short = trained(toy_store, "short", rounds=int(content.evaluated[best]))
    assert "selected/checkpoint" not in short  # its last round is the selected one
    kept, last = read_state(run, "selected/"), read_state(short)
    assert kept.keys() == {name for name in last if not name.startswith("server/")}
    assert all(kept[name].equal(last[name]) for name in kept)
    assert not load(run.array("clients/000").tobytes())["head.bias"].equal(kept["clients/000/model/head.bias"])


def test_they_outlast_a_stop_and_more_rounds(toy_store):
    run = trained(toy_store, "run")
    with pytest.raises(Interrupted):
        stages.train(toy_store, "stopped", settings(**LEARNT), {}, StopAfter(3))
    assert_same(numbers(run), numbers(stages.resume(toy_store, "stopped", CODE)))
    trained(toy_store, "longer", rounds=3)
    assert_same(numbers(run), numbers(stages.resume(toy_store, "longer", CODE | {"rounds": 4})))


def test_one_of_the_two_alone(toy_store):
    run, last = trained(toy_store, "run"), trained(toy_store, "last", keep="last")
    assert_same({n: a for n, a in numbers(run).items() if not n.startswith("selected/")}, numbers(last))
    best = trained(toy_store, "best", keep="selected")
    own = {name: array for name, array in numbers(run).items() if not name.startswith(("clients/", "checkpoint"))}
    assert_same(own, numbers(best))
    with pytest.raises(UserError, match="kept only the weights of its selected round"):
        stages.resume(toy_store, "best", CODE | {"rounds": 5})


def test_without_validation_images_there_is_nothing_to_select(toy_store, monkeypatch):
    monkeypatch.setattr("tests.helpers.toy_store.VALIDATION", 0)
    write_toy_data(toy_store)
    assert "selected/checkpoint" not in trained(toy_store, "run")
    with pytest.raises(UserError, match="no validation images to select a round on"):
        trained(toy_store, "best", keep="selected")


def test_a_dry_run_tells_their_size(toy_store):
    def sizes(**changes):
        (facts,) = dry_run(toy_store, settings(**LEARNT | changes), {})
        return facts["weights_bytes"]

    size = sizes(keep="last")["last"]
    state = read_state(trained(toy_store, "run"))
    assert size == sum(tensor.nbytes for name, tensor in state.items() if not name.startswith("server/"))
    assert sizes() == {"last": size, "selected": size} and sizes(keep="selected") == {"selected": size}
