"""Clients simulated by a Ray cluster that is there already, of two nodes in processes of their own."""

import re
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr")
pytest.importorskip("ray")

import grpc

import stages
from stages.engines.flower import cluster
from stages.errors import UserError
from tests.helpers.cli import TINY, run
from tests.helpers.federations import free_port
from tests.helpers.toy_runs import numbers, settings


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"ray_address": "a:1"}, "`ray_address` needs `engine=flower`"),
        ({"ray_address": "a:1", "engine": "flower", "federation": "b:2"}, "is for simulated clients"),
        ({"ray_address": "nonsense", "engine": "flower"}, "'nonsense' is not an address; write HOST:PORT"),
        ({"ray_address": "a:99999", "engine": "flower"}, "'a:99999' is not an address"),
        ({"ray_address": "no-such-host.invalid:6379", "engine": "flower"}, "No Ray cluster answers at no-such-host"),
    ],
)
def test_what_can_not_be_is_refused(toy_store, given, sentence):
    with pytest.raises(UserError, match=sentence):
        stages.train(toy_store, "x", settings(data="toy", **given), {})
    assert not (toy_store.root / "runs").exists()


def test_where_no_cluster_answers_the_command_ends_and_nothing_is_written(toy_store):
    address = f"127.0.0.1:{free_port()}"
    given = ["train", *TINY, "--data", "toy", "--engine", "flower", "--ray-address", address]
    told = run(toy_store.root, *given, code=2).stderr
    assert re.search(rf"No Ray cluster answers at {address} \(.*Connection refused\)", " ".join(told.split()))
    assert not (toy_store.root / "runs").exists()


def test_whoever_else_answers_is_none(toy_store, monkeypatch):
    """Ray would wait for minutes for one that is silent."""
    monkeypatch.setattr(cluster, "PATIENCE", 0.3)
    other = grpc.server(ThreadPoolExecutor(1))
    port = other.add_insecure_port("127.0.0.1:0")
    other.start()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for number, why in ((silent.getsockname()[1], "Deadline Exceeded"), (port, "Method not found!")):
            with pytest.raises(UserError, match=rf"No Ray cluster answers at 127.0.0.1:{number} \({why}\)"):
                cluster.answering(f"127.0.0.1:{number}")
    other.stop(None)


def test_its_option_needs_the_engine(toy_store):
    for more in ([], ["--dry-run"]):
        told = run(toy_store.root, "train", *TINY, "--ray-address", "127.0.0.1:6379", *more, code=2).stderr
        assert "--ray-address needs --engine flower" in " ".join(told.split())


@pytest.fixture(scope="module")
def notes(tmp_path_factory):
    """Where the cluster's processes say on which of its nodes they are."""
    return tmp_path_factory.mktemp("notes")


@pytest.fixture(scope="module")
def address(notes):
    """Of a cluster with two nodes of one core each."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("FEDKTL_NOTES", str(notes))
        found = Cluster()
        for _ in range(2):
            found.add_node(num_cpus=1, include_dashboard=False)
        yield found.address
        found.shutdown()


@pytest.mark.slow
def test_two_nodes_simulate_what_one_process_computes(toy_store, address, notes, monkeypatch):
    monkeypatch.chdir(toy_store.root.parent)  # the store's path is none from where Ray's processes start
    store = stages.Store(Path(toy_store.root.name))
    plan = {"algorithm": "fedproto", "models": "tests.helpers.toys:noted", "rounds": 2, "data": "toy"}
    (local,) = stages.train(store, "local", settings(**plan), {})
    (far,) = stages.train(store, "far", settings(**plan, engine="flower", ray_address=address), {})
    assert len(list(notes.iterdir())) == 2
    one, other = numbers(local), numbers(far)
    for series in one.keys() & other.keys():
        np.testing.assert_array_equal(one[series], other[series], err_msg=series)
    assert one.keys() - other.keys() == {"rounds/test_confusion"}
    assert not [path for path in (store.root / "data" / "toy").iterdir() if path.name.startswith(".writing")]


@pytest.mark.slow
def test_machines_that_do_not_see_the_store_are_named(toy_store, address, monkeypatch):
    monkeypatch.setattr(cluster, "blind", lambda folder: "node-7")
    with pytest.raises(
        UserError, match=r"do not see .*data/toy: node-7, node-7; keep the store on a disk that all share"
    ):
        stages.train(toy_store, "x", settings(data="toy", engine="flower", ray_address=address), {})
    assert not list(toy_store.root.glob("runs/*/v*"))
