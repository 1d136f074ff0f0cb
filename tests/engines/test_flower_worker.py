"""The working process of a node: it stays ready, nothing is lost when it dies, and it does not outlive the node."""

import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr")

from stages.engines import clients, rounds
from stages.engines.flower import frames, node, worker
from stages.engines.flower.node import Client, ClientNode
from stages.engines.flower.payload import from_records
from stages.engines.flower.worker import Home, working
from stages.errors import UserError
from stages.observer import SILENT
from tests.helpers import stub_worker
from tests.helpers.flower_nodes import Grid, over_flower
from tests.helpers.toy_store import CLIENTS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def stub(monkeypatch, tmp_path):
    """A worker without the libraries, which start in seconds."""
    monkeypatch.setattr(worker, "work", stub_worker.work)
    with working(Home(tmp_path, "toy", 0, tmp_path)) as (found, told):
        yield found, told


def test_what_a_node_runs_beside_its_worker_loads_no_torch():
    code = (
        "import sys, fedktl_cli.federation, stages.engines.flower.fleet as fleet, stages.engines.flower.worker\n"
        "from stages.engines import flower; flower.require()\n"
        "try: fleet.serve('127.0.0.1:1', '/nowhere.pem', None, print, print)\n"
        "except fleet.UserError: assert 'flwr.supernode.fleet_http_connection' in sys.modules\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_worker_that_dies_of_a_message_is_started_again_and_answers_it(stub, tmp_path):
    found, told = stub
    again = tmp_path / "dies once"
    again.touch()
    arrays = {"a": np.arange(3), "b": np.float16([[0.5]])}
    own, facts = found.answer("train", arrays, {"dies": str(again), "x": [1, None, "é"]})
    assert facts["x"] == [1, None, "é"] and facts["pid"] != told["pid"]
    assert all(np.array_equal(own[name], arrays[name]) and own[name].dtype == arrays[name].dtype for name in arrays)
    os.kill(facts["pid"], signal.SIGKILL)  # between messages
    assert found.answer("query", {}, {})[1]["pid"] != facts["pid"]


def test_a_message_that_kills_every_worker_is_answered_with_that(stub):
    found, _ = stub
    assert found.answer("train", {}, {"always": True}) == (
        {},
        {"error": "The process of client 0 died 2 times on this message."},
    )
    assert "error" not in found.answer("query", {}, {})[1]  # and the next one finds a worker


def test_a_client_that_is_not_there_is_an_error_before_the_node_joins(monkeypatch, tmp_path):
    monkeypatch.setattr(worker, "work", stub_worker.work)
    with pytest.raises(UserError, match="no data artifact 'missing'"), working(Home(tmp_path, "missing", 0, tmp_path)):
        pass


def gone(pid, seconds=10):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def test_a_worker_ends_with_its_node_even_if_that_is_killed(stub, tmp_path):
    """Nor does it matter where the environment wants temporary files."""
    found, told = stub
    found.end()
    assert gone(told["pid"])
    far = tmp_path / ("x" * 90)
    far.mkdir()
    node = subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.stub_worker"], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(far)},
    )  # fmt: skip
    pid = int(node.stdout.readline())
    node.kill()
    node.communicate()
    assert gone(pid)


@pytest.mark.parametrize(
    "sent",
    [struct.pack("!QQ", 1 << 40, 0), struct.pack("!QQ", 2, 1 << 60) + b"{}", struct.pack("!QQ", 9, 0) + b"{", b"short"],
)
def test_a_message_that_is_too_large_or_torn_is_a_lost_connection(sent):
    near, far = socket.socketpair()
    with near, far:
        far.sendall(sent)
        far.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionError):
            frames.receive(near)


def overheard(store, folder, algorithm, **settings):
    """What a server sends client 0 in a run of three rounds, and what a client answers that starts anew for each message."""
    data, heard = store.open("toy"), []
    grid = Grid([ClientNode(client, data, folder) for client in range(CLIENTS)])

    def noted(kind, reply):
        heard.append((kind, *from_records(grid.contents[-1]), *from_records(reply.content)))
        return reply

    grid.spoil = {0: noted}
    *_, federation, state, pool = over_flower(store, [], algorithm, grid=grid, **settings)
    rounds.run(federation, state, pool, SILENT, lambda s: None)
    return data, heard


def assert_same_answer(own, told, wanted_own, wanted_told):
    """But for the seconds that it took, which have the same length."""
    (told, *spent), (wanted_told, *wanted_spent) = apart(told), apart(wanted_told)
    assert told == wanted_told and spent == wanted_spent and own.keys() == wanted_own.keys()
    for name in own:
        assert own[name].dtype == wanted_own[name].dtype and np.array_equal(own[name], wanted_own[name]), name


def apart(told):
    rest = {name: value for name, value in told.items() if name != "seconds"}
    return rest, {phase: len(digits) for phase, digits in told.get("seconds", {}).items()}


@pytest.mark.parametrize("algorithm", ["fedktl", "fedkd"])
def test_a_client_that_stays_ready_answers_as_one_that_starts_anew(toy_store, tmp_path, monkeypatch, algorithm):
    data, heard = overheard(toy_store, tmp_path / "disks", algorithm, join_ratio=0.75)
    prepared, at_home = [], node.at_home
    monkeypatch.setattr(node, "at_home", lambda *given: prepared.append(1) or at_home(*given))
    client = Client(ClientNode(0, data, tmp_path / "other disks"))
    for kind, arrays, facts, *wanted in heard:
        assert_same_answer(*client.answer(kind, arrays, facts), *wanted)
    assert len(prepared) == 1 and {"train", "evaluate"} <= {kind for kind, *_ in heard}
    trained = [message for message in heard if message[0] == "train"]
    kind, arrays, facts, *wanted = trained[-2]  # a server that was killed and goes on asks again for an earlier round
    assert_same_answer(*client.answer(kind, arrays, facts), *wanted)
    assert len(prepared) == 2


def test_what_fails_in_the_middle_is_not_gone_on_with(toy_store, tmp_path, monkeypatch):
    data, heard = overheard(toy_store, tmp_path / "disks", "fedproto")
    client, train = Client(ClientNode(0, data, tmp_path / "other disks")), clients.train

    def fails(federation, number, state, *rest):
        train(federation, number, state, *rest)
        raise MemoryError

    for kind, arrays, facts, *wanted in heard:
        if kind == "train":
            with monkeypatch.context() as patched, pytest.raises(MemoryError):
                patched.setattr(clients, "train", fails)
                client.answer(kind, arrays, facts)
        assert_same_answer(*client.answer(kind, arrays, facts), *wanted)


def test_a_worker_answers_as_a_client_in_this_process_also_after_a_kill(toy_store, tmp_path):
    """With all that it loads, once."""
    _, heard = overheard(toy_store, tmp_path / "disks", "fedproto", models="tests.helpers.toys:tiny")
    home = Home(toy_store.root, "toy", 0, tmp_path / "other disks", ("tests.helpers.toys:tiny",))
    with working(home) as (found, told):
        assert told["client"] == 0 and told["data"]["ref"] == "toy@v1"
        for number, (kind, arrays, facts, *wanted) in enumerate(heard[1:]):
            if number == 2:
                found.process.kill()
            assert_same_answer(*found.answer(kind, arrays, facts), *wanted)
        kind, arrays, facts, *_ = heard[1]
        facts["terms"]["settings"]["models"] = "tests.helpers.toys:tiny,tests.helpers.toys:evil"
        error = found.answer(kind, arrays, facts)[1]["error"]  # of a server that names what the node's user did not
        assert "does not run 'tests.helpers.toys:evil', which is not part of fedktl" in error
        assert "reached client 0" in found.answer("train", {}, {"client": 1})[1]["error"]
        assert "KeyError" in found.answer("train", {}, {"client": 0})[1]["error"]
