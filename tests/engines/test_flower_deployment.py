"""A real federation on loopback: a SuperLink and three nodes, as a user starts them. Run with -m slow."""

import re
import signal

import pytest

pytest.importorskip("flwr")
pytest.importorskip("cryptography")

from stages.artifacts.schemas import read
from stages.artifacts.store import Store
from stages.engines.flower.deployment import enlist
from tests.helpers.federations import PLAN, certificates, deal
from tests.helpers.toy_runs import CODE

pytestmark = pytest.mark.slow
CLIENTS = 3


@pytest.fixture
def shares(tmp_path):
    deal(tmp_path, CLIENTS)


def test_a_node_killed_in_a_round_is_missed_and_taken_back(terminals, shares, tmp_path):
    port = terminals.up()
    terminals.until("up", "running on")
    for client in range(CLIENTS):
        terminals.join(port, client)
    training = terminals.train(port, *PLAN, "--rounds", 60, "--round-timeout", 20, "--checkpoint-every", 1)
    terminals.until("train", r" 1/60 +accuracy")
    terminals.end("node1", signal.SIGKILL)
    terminals.until("train", r"Client 1 is missing after round \d+")
    terminals.join(port, 1)
    terminals.until("node1", r"Connected(.|\n)*Connected")
    before = len(re.findall(r"/60 +accuracy", terminals.log("train")))
    terminals.until("train", rf"{before + 4}/60 +accuracy")
    training.send_signal(signal.SIGINT)  # Ctrl-C: it stops after the round
    assert training.wait(300) == 130, terminals.log("train")
    (rounds,) = re.findall(r"Stopped far@v1 after round (\d+)", terminals.log("train"))
    done = int(rounds) + 1
    terminals.start(
        "more", "-v", "--store", "server", "train", "--resume", "far", "--rounds", done, "--models", CODE["models"]
    )
    assert terminals.running["more"].wait(400) == 0, terminals.log("more")
    run = read(Store(tmp_path / "server").open("far"))
    assert {client for _, client, _ in run.missing.tolist()} == {1}
    assert run.joined.all() and run.uploaded[0].all() and run.uploaded[-1].all() and not run.uploaded[:, 1].all()
    assert not run.artifact.names("clients") and list((tmp_path / "share1" / "clients").rglob("*.safetensors"))


def test_over_tls_a_node_whose_key_is_not_known_is_refused(terminals, shares, tmp_path):
    certificates(tmp_path)
    tls = ["--certificate", "server.pem", "--key", "server.key", "--authority", "ca.pem"]
    port = terminals.up(*tls, "--node-key", "a.pub")
    terminals.until("up", "1 nodes may join")
    terminals.join(port, 0, "--root-certificates", "ca.pem", "--node-key", "a.key")
    terminals.join(port, 1, "--root-certificates", "ca.pem", "--node-key", "b.key")
    assert terminals.running["node1"].wait(300) == 2, terminals.log("node1")
    assert "does not accept this node" in terminals.log("node1")
    training = terminals.train(port, *PLAN, "--rounds", 1, "--root-certificates", "ca.pem", "--round-timeout", 20)
    assert training.wait(400) == 2
    assert "No node connected for clients 1, 2 within 20 seconds" in terminals.log("train")


def test_a_node_comes_back_to_a_server_that_is_told_of_its_key_later(terminals, shares, tmp_path):
    certificates(tmp_path)
    tls = ["--certificate", "server.pem", "--key", "server.key", "--authority", "ca.pem"]
    port = terminals.up(*tls, "--node-key", "a.pub")
    node = terminals.join(port, 0, "--root-certificates", "ca.pem", "--node-key", "a.key")
    terminals.until("node0", "Connected")
    terminals.end("up", signal.SIGKILL)
    terminals.start("up", "federation", "up", "--port", port, *tls, "--node-key", "b.pub")
    terminals.until("node0", "does not accept this node: it does not know this node's key")
    enlist(f"127.0.0.1:{port}", str(tmp_path / "ca.pem"), tmp_path / "a.pub", lambda: True)
    terminals.until("node0", r"Connected(.|\n)*Connected")
    assert node.poll() is None
