"""The engine over Flower: its nodes in this process, what it refuses and survives."""

import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch

pytest.importorskip("flwr")

import stages
from stages import algorithms
from stages.artifacts.schemas import read
from stages.artifacts.store import Store
from stages.clock import phase
from stages.engines import checkpoint, clients, rounds
from stages.engines.assembly import assemble
from stages.engines.federation import Diverged, Missing
from stages.engines.flower import checks
from stages.engines.flower.disk import Disk
from stages.engines.flower.engine import Deployed
from stages.engines.flower.link import GridLink, RelayLink, Reply, at_most, relay
from stages.engines.flower.node import ClientNode
from stages.engines.flower.payload import from_records
from stages.engines.flower.pool import NodeRegistry
from stages.errors import UserError
from stages.export import export
from stages.means import over_clients
from stages.observer import SILENT
from stages.settings import Train
from tests.helpers.flower_nodes import RUN, Grid, gathered, mustered, over_flower
from tests.helpers.toy_runs import CODE, QUICK, Notes, planned, played
from tests.helpers.toy_store import CLIENTS, write_toy_data

APART = ("history/seconds", "history/rounds/peak_memory", "history/rounds/wire", "history/rounds/test_confusion")


def assert_same_state(one, other):
    one, other = checkpoint.pack(one), checkpoint.pack(other)
    assert {n for n in one if not n.startswith(APART)} == {n for n in other if not n.startswith(APART)}
    for name in one:
        if not name.startswith(APART):
            assert torch.equal(one[name].nan_to_num(), other[name].nan_to_num()), name


@pytest.mark.parametrize("algorithm", [name for name in algorithms.NAMES if name != "ktl"])
@pytest.mark.parametrize("wire", ["fp32", "fp16"])
def test_every_algorithm_computes_what_it_computes_in_one_process(toy_store, homes, tmp_path, algorithm, wire):
    changes = {"join_ratio": 0.75, "drop_rate": 0.4, "wire": wire}
    _, local = played(planned(toy_store, algorithm, **changes))
    plan, federation, state, pool = over_flower(toy_store, homes, algorithm, **changes)
    rounds.run(federation, state, pool, SILENT, lambda s: None)
    gathered(plan, federation, state, tmp_path / "disks")
    assert_same_state(local, state)
    moved = state.history["rounds/wire_upload_bytes"]
    assert torch.equal(moved > 0, state.history["rounds/joined"]) and moved.shape == (3, CLIENTS)


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ({}, 3 * CLIENTS + CLIENTS),  # the last evaluation has no round to travel with
        (
            {"eval_every": 3},
            3 * CLIENTS + CLIENTS,
        ),  # the first evaluation travels with a round, and the last one does not
        ({"patience": 9}, (3 + 4) * CLIENTS),  # whether a round follows depends on the evaluation before it
    ],
)
def test_a_round_is_one_message_a_client_and_the_numbers_are_those_of_two(toy_store, homes, changes, messages):
    grid = Grid(homes)
    *_, federation, state, pool = over_flower(toy_store, homes, "fedproto", grid=grid, **changes)
    before = len(grid.contents)  # each node was asked who it is
    rounds.run(federation, state, pool, SILENT, lambda s: None)
    assert len(grid.contents) - before == messages
    _, local = played(planned(toy_store, "fedproto", **changes))
    one, other = local.history.tensors(), state.history.tensors()
    for name in one:
        if not f"history/{name}".startswith(APART):
            assert torch.equal(one[name].nan_to_num(), other[name].nan_to_num()), name
    assert (state.history["seconds/local training"] > 0).all() and (state.history["seconds/evaluation"] >= 0).all()


def test_seconds_are_charged_to_the_phases_in_which_nodes_spent_them(toy_store, homes, monkeypatch):
    """Also where an evaluation travels with the training of the round after it, and a phase is the algorithm's own."""
    train, evaluated = clients.train, clients.evaluated

    def slow_training(*given):
        with phase("prototypes"):
            time.sleep(0.02)
        time.sleep(0.04)
        return train(*given)

    def slow_evaluation(*given):
        time.sleep(0.1)
        return evaluated(*given)

    monkeypatch.setattr(clients, "train", slow_training)
    monkeypatch.setattr(clients, "evaluated", slow_evaluation)
    *_, federation, state, pool = over_flower(toy_store, homes, "fedproto")
    rounds.run(federation, state, pool, SILENT, lambda s: None)
    least = {"evaluation": 0.4, "prototypes": 0.08, "local training": 0.16}  # of four clients, one after the other
    spent = {name: state.history[f"seconds/{name}"] for name in least}
    for name, seconds in least.items():
        inner = spent[name][:-1] if name != "evaluation" else spent[name][1:]
        assert ((inner > 0.9 * seconds) & (inner < 3 * seconds)).all(), (name, spent)


def test_what_nodes_say_of_their_time_is_believed_within_bounds():
    told = {"evaluation": "0000000000000.5", "prototypes": "-1", "turn": "nan", "own": "1", "local training": "1e300"}
    known = {"evaluation", "prototypes", "turn", "local training"}
    assert checks.seconds(Reply({}, {"seconds": told}), known, 2.0) == {"evaluation": 0.5}
    for foreign in (None, [], "x", {"evaluation": []}, {"evaluation": None}):
        assert checks.seconds(Reply({}, {"seconds": foreign}), known, 2.0) == {}


def test_a_client_whose_training_fails_has_been_evaluated(toy_store, homes, monkeypatch):
    notes, update = Notes(), clients.train

    def trained(federation, client, *rest):
        if client == 1:
            raise Diverged("Client 1 diverged in round 1: its loss is nan")
        return update(federation, client, *rest)

    monkeypatch.setattr(clients, "train", trained)
    *_, federation, state, pool = over_flower(toy_store, homes, "local", notes=notes)
    rounds.evaluate(federation, state, pool)
    assert not state.history["rounds/test_accuracy"].isnan().any() and not notes.said
    rounds.play_round(federation, state, pool)
    assert state.history["faults/missing"].tolist() == [[1, 1, Missing.FAILED]]
    assert notes.said == ["Client 1 is missing after round 0: Client 1 diverged in round 1: its loss is nan"]


def test_no_image_of_a_client_leaves_it(toy_store, homes):
    grid = Grid(homes)
    *_, federation, state, pool = over_flower(toy_store, homes, "fedproto", grid=grid, rounds=2)
    replies = []
    grid.spoil = {client: lambda kind, reply: replies.append(reply) or reply for client in range(CLIENTS)}
    rounds.run(federation, state, pool, SILENT, lambda s: None)
    sent = [array for reply in replies for array in from_records(reply.content)[0].values()]
    assert sent and not any(value.dtype == np.uint8 or value.ndim > 2 for value in sent)


def test_a_client_that_left_is_missing_and_taken_back_with_its_model(toy_store, homes, tmp_path):
    grid = Grid(homes)
    *_, federation, state, pool = over_flower(toy_store, homes, "fedproto", grid=grid, rounds=4)
    rounds.play_round(federation, state, pool)
    home = grid.leave(2)
    rounds.play_round(federation, state, pool)
    rounds.evaluate(federation, state, pool)
    grid.come(home)  # as another node, once the others have trained with the evaluation
    for _ in range(2):
        rounds.play_round(federation, state, pool)
    assert state.history["rounds/uploaded"][:, 2].tolist() == [True, False, False, True]
    assert state.history["faults/missing"].tolist() == [[2, 2, Missing.ABSENT], [3, 2, Missing.ABSENT]]
    accuracy = state.history["rounds/test_accuracy"][0]
    assert accuracy.isnan().tolist() == [False, False, True, False]
    assert list(Disk(tmp_path / "disks", RUN, 2).states()) == [1, 4]
    together = over_clients(accuracy.numpy(), federation.sizes["test"].numpy())
    assert float(together) == pytest.approx(float(accuracy[[0, 1, 3]].mean()) * 100)


def test_fewer_than_min_clients_end_the_run_with_what_to_do(toy_store, homes):
    grid = Grid(homes)
    *_, federation, state, pool = over_flower(toy_store, homes, grid=grid, min_clients=4)
    grid.leave(0)
    with pytest.raises(UserError, match=r"In round 1 3 of 4 clients answered.*`min_clients=4`.*resume"):
        rounds.play_round(federation, state, pool)


def test_a_diverging_client_is_missing_and_keeps_its_model(toy_store, homes, tmp_path):
    *_, federation, state, pool = over_flower(toy_store, homes, "local", models="tests.helpers.toys:wild")
    with pytest.raises(UserError, match="0 of 4 clients answered"):
        for _ in range(5):
            rounds.play_round(federation, state, pool)
    for client in range(CLIENTS):
        Disk(tmp_path / "disks", RUN, client).load(state.clients[client], 9, torch.device("cpu"))


@pytest.mark.parametrize("algorithm", ["fedktl", "fedkd", "fd"])
def test_a_killed_server_goes_on_from_its_checkpoint_and_so_do_its_clients(toy_store, homes, tmp_path, algorithm):
    _, whole = played(planned(toy_store, algorithm, rounds=5, keep="last"))
    plan, federation, state, pool = over_flower(toy_store, homes, algorithm, rounds=5, keep="last")
    rounds.evaluate(federation, state, pool)
    for done in range(1, 5):  # the checkpoint is of round 2, the server dies after round 4
        rounds.play_round(federation, state, pool)
        rounds.evaluate(federation, state, pool)
        state.history.add("rounds/peak_memory", 0)
        if done == 2:
            pool.collect()
            checkpoint.write(state, tmp_path / "c")
    federation, state = assemble(plan, images=False)
    checkpoint.unpack(state, checkpoint.read(tmp_path / "c"), plan.algorithm, federation.device)
    pool = mustered(plan, federation, state, Grid(homes))
    rounds.run(federation, state, pool, SILENT, lambda s: None)
    gathered(plan, federation, state, tmp_path / "disks")
    assert_same_state(whole, state)


def test_a_disk_keeps_what_a_server_may_ask_for_and_ignores_what_a_kill_left(toy_store, tmp_path):
    _, state = assemble(planned(toy_store))
    disk, own = Disk(tmp_path, RUN, 0), state.clients[0]
    for number in range(1, 7):
        disk.save(own, number)
    (disk.folder / "77.draft").write_bytes(b"half a mod")
    disk.forget(rounds=5, kept=4)
    assert sorted(path.name for path in disk.folder.iterdir()) == ["000004.safetensors", "000005.safetensors"]
    assert list(disk.states()) == [4, 5]
    disk.forget(rounds=5, kept=0)  # nothing older than the oldest is needed, and the oldest is
    assert list(disk.states()) == [4, 5]
    with pytest.raises(UserError, match="32 hexadecimal"):
        Disk(tmp_path, "../" + RUN, 0)


def test_a_node_serves_its_own_client_only(toy_store, homes, tmp_path):
    grid, notes = Grid(homes), Notes()
    *_, federation, state, pool = over_flower(toy_store, homes, grid=grid, notes=notes)
    first, second = list(grid.homes)[:2]
    grid.homes[first], grid.homes[second] = grid.homes[second], grid.homes[first]  # behind the server's back
    rounds.play_round(federation, state, pool)
    assert "A message for client 0 reached client 1" in notes.said[0]
    with pytest.raises(UserError, match=r"toy@v1 has no client 4; its clients are 0 to 3"):
        ClientNode(4, toy_store.open("toy"), tmp_path)


def shared_out(store, tmp_path):
    """A home for each client with nothing but its exported share."""
    homes = []
    for client in range(CLIENTS):
        export(store.open("toy"), None, tmp_path / f"share{client}", client)
        data = Store(tmp_path / f"share{client}").open(f"toy-client-{client:03d}", "data")
        homes.append(ClientNode(client, data, tmp_path / f"share{client}" / "clients"))
    return homes


def test_an_exported_share_is_a_data_artifact_of_one_client(toy_store, tmp_path):
    home = shared_out(toy_store, tmp_path)[2]
    whole, part = read(toy_store.open("toy")), read(home.data)
    rows = whole.train.rows(2)
    assert part.clients == 1 and np.array_equal(part.train.images, whole.train.images[rows])
    assert np.array_equal(part.counts, whole.counts[2:3]) and part.class_names == whole.class_names
    assert home.data.attributes["part_of"] == {"client": 2, "clients": CLIENTS}
    assert home.described()["data"] == toy_store.open("toy").identity
    with pytest.raises(UserError, match="holds client 2, not 1"):
        ClientNode(1, home.data, tmp_path)
    with pytest.raises(UserError, match="name it"):
        export(toy_store.open("toy"), "share", tmp_path / "x")
    with pytest.raises(UserError, match="has no client 7"):
        export(toy_store.open("toy"), None, tmp_path / "x", 7)


def test_a_federation_of_shares_runs_without_the_data_and_publishes_without_the_weights(
    toy_store, tmp_path, monkeypatch
):
    (local,) = stages.train(toy_store, "near", Train.make(QUICK, {"rounds": 3}), {"fedktl": {"server_epochs": 2}})
    homes = shared_out(toy_store, tmp_path)
    server = Store(tmp_path / "server")
    (tmp_path / "server").mkdir()
    (toy_store.root / "latents").rename(tmp_path / "server" / "latents")

    @contextmanager
    def opened(settings, observer):
        yield Deployed(GridLink(Grid(homes)), observer)

    monkeypatch.setattr(sys.modules["stages.train"], "open_engine", opened)
    settings = Train.make(QUICK, {"rounds": 2, "engine": "flower", "federation": "server:8000"})
    (run,) = stages.train(server, "far", settings, {"fedktl": {"server_epochs": 2}})
    assert run.attributes["facts"]["data"] == "toy@v1" and run.attributes["facts"]["federation"]["weights"]
    assert not run.names("clients") and run.attributes["made_from"]["data"] == toy_store.open("toy").identity
    longer = read(stages.resume(server, "far", {**CODE, "rounds": 3}))
    near = read(local)
    assert np.array_equal(longer.test_accuracy, near.test_accuracy) and longer.wire["upload_bytes"].all()
    assert longer.facts["parameters"] == near.facts["parameters"]


def test_two_nodes_of_one_client_and_clients_of_other_data_are_told_apart(toy_store, homes, tmp_path):
    grid, notes = Grid(homes), Notes()
    plan, federation, state, pool = over_flower(toy_store, homes, grid=grid, notes=notes)
    pool.registry.expect(plan)
    grid.come(ClientNode(1, toy_store.open("toy"), tmp_path / "other"))
    grid.come(ClientNode(1, write_toy_data(toy_store, "else", seed=5), tmp_path / "other"))
    rounds.play_round(federation, state, pool)
    assert "Two nodes say they are client 1" in notes.said[0] and "in this run it is" in notes.said[1]
    assert state.history["rounds/uploaded"].all() and not (tmp_path / "other").exists()


def test_the_relay_says_what_the_grid_says(toy_store, homes):
    near, far = socket.socketpair()

    class Far:
        def __enter__(self):
            return far

        def __exit__(self, *error):
            far.close()

    grid = Grid(homes)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("stages.engines.flower.link.socket.socket", lambda family: Far())
        patched.setattr(type(far), "connect", lambda self, path: None, raising=False)
        thread = threading.Thread(target=relay, args=(grid, type("Context", (), {"run_config": {"socket": "x"}})))
        thread.start()
        registry = NodeRegistry(RelayLink(near), Notes())
        while len(registry.nodes) < CLIENTS:
            registry.update()
        assert registry.claims[registry.nodes[3]] == homes[3].described()
        near.close()
        thread.join(5)
    assert not thread.is_alive()


def test_a_relay_whose_request_never_returns_ends():
    code = "import time; from stages.engines.flower.link import at_most\nwith at_most(0.1): time.sleep(60)"
    assert subprocess.run([sys.executable, "-c", code], timeout=30).returncode == 1
    with at_most(0.1):
        pass
    time.sleep(0.2)


def test_without_the_extra_the_command_to_install_it_is_named(toy_store, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'fedktl\[flower\]'"):
        stages.train(toy_store, "x", Train.make(QUICK, {"engine": "flower"}), {})


def test_a_federation_needs_the_flower_engine_and_has_its_own_data(toy_store):
    with pytest.raises(UserError, match="needs `engine=flower`"):
        stages.train(toy_store, "x", Train.make(QUICK, {"federation": "a:1"}), {})
    with pytest.raises(UserError, match="leave out `data`"):
        stages.train(toy_store, "x", Train.make(QUICK, {"engine": "flower", "federation": "a:1", "data": "toy"}), {})
