"""Clients' states on disk: the same results, whatever the order of stops and of memory and disk, and few files."""

import shutil

import pytest

from stages.artifacts.partial import unfinished
from stages.artifacts.store import Store
from stages.engines import assembly, shelf
from stages.engines.assembly import assemble
from stages.errors import Interrupted, UserError
from stages.train import resume, train
from tests.helpers.cli import run
from tests.helpers.damage import flip
from tests.helpers.toy_runs import CODE, StopAfter, assert_same, numbers, planned, settings

FEW = {"join_ratio": 0.5, "rounds": 4, "checkpoint_every": 1, "workers": 1}


def made(store, name, algorithm="fedproto", **changes):
    return train(store, name, settings(algorithm=algorithm, **{**FEW, **changes}), {})[0]


def trained(arrays, like):
    """Without the weights of clients that a shelf does not keep, because they never trained."""
    return {name: array for name, array in arrays.items() if name in like or "clients/" not in name}


@pytest.fixture(scope="module")
def whole(written_toys, tmp_path_factory):
    """What clients in memory learn in one go."""
    return numbers(made(Store(shutil.copytree(written_toys, tmp_path_factory.mktemp("whole") / "store")), "whole"))


def test_clients_on_disk_learn_the_same_bit_for_bit(toy_store, whole):
    disk = numbers(made(toy_store, "disk", offload="disk"))
    assert_same(trained(whole, disk), disk)
    kept = {int(name.removeprefix("clients/")) for name in disk if name.startswith("clients/")}
    assert kept == set(disk["rounds/joined"].any(0).nonzero()[0])


def test_what_clients_keep_beside_their_model_is_on_disk_as_well(toy_store):
    memory, disk = (numbers(made(toy_store, where, "fd", offload=where, rounds=3)) for where in ("off", "disk"))
    assert_same(trained(memory, disk), disk)


@pytest.mark.parametrize(("first", "then"), [("disk", "disk"), ("disk", "off"), ("off", "disk")])
def test_stopped_and_resumed_wherever_the_clients_are(toy_store, whole, first, then):
    with pytest.raises(Interrupted):
        train(toy_store, "cut", settings(algorithm="fedproto", offload=first, **FEW), {}, StopAfter(2))
    cut = numbers(resume(toy_store, "cut", {**CODE, "offload": then}))
    assert_same(trained(whole, cut), cut)
    assert unfinished(toy_store) == []


@pytest.mark.parametrize("then", ["disk", "off"])
def test_a_finished_run_goes_on_for_more_rounds(toy_store, whole, then):
    made(toy_store, "short", offload="disk", rounds=2)
    longer = numbers(resume(toy_store, "short", {**CODE, "rounds": 4, "offload": then}))
    assert_same(trained(whole, longer), longer)


def test_only_files_that_something_needs_stay(toy_store):
    stopped = settings(algorithm="fedproto", offload="disk", keep="last", **FEW)
    with pytest.raises(Interrupted):
        train(toy_store, "cut", stopped, {}, StopAfter(3))
    (partial,) = unfinished(toy_store)
    files = sorted(path.name for path in (partial / shelf.FOLDER).iterdir())
    assert len({name.partition("-")[0] for name in files}) == len(files) <= 4  # one a client, and no draft
    flip(partial / shelf.FOLDER / files[0], 200)
    with pytest.raises(UserError, match=f"{files[0]} is damaged"):
        resume(toy_store, "cut", {**CODE, "rounds": 9})


def test_memory_that_is_too_small_chooses_the_disk(toy_store, monkeypatch):
    spec = planned(toy_store, "fedproto")
    assert assemble(spec)[1].shelf is None
    monkeypatch.setattr(assembly, "free_memory", lambda: 10_000)
    federation, state = assemble(spec)
    assert state.clients == [] and len(state.shelf) == federation.clients
    assert assemble(spec, alike=True)[1].shelf is None  # a preview has one model of each architecture


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"workers": 2}, "with `offload=disk` leave out `workers`"),
        ({"engine": "flower"}, "`offload=disk` does not go with `engine=flower`"),
    ],
)
def test_what_the_disk_does_not_go_with(toy_store, changes, said):
    pytest.importorskip("flwr")
    with pytest.raises(UserError, match=said):
        made(toy_store, "refused", offload="disk", **changes)


def test_a_client_that_never_trained_has_no_weights_to_predict_with(toy_store):
    artifact = made(toy_store, "few", offload="disk", rounds=1, join_ratio=0.25, keep="last")
    (joined,) = artifact.array("rounds/joined")[0].nonzero()[0]
    other = (joined + 1) % 4
    refused = run(toy_store.root, "export", "few", "--client", str(other), str(toy_store.root / "out"), code=2)
    assert f"Client {other} never trained in few@v1" in " ".join(refused.stderr.split())
