"""A federation over real sockets whose nodes answer badly or not at all, or are killed: it goes on, and nothing is lost."""

import os
import random
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr")

import stages
from stages.artifacts.partial import unfinished
from stages.artifacts.schemas import read
from stages.artifacts.store import Store
from stages.engines.federation import Missing
from tests.helpers.federations import PLAN, deal
from tests.helpers.toy_runs import settings

pytestmark = pytest.mark.slow
CLIENTS = 3


def test_bad_answers_are_refused_late_ones_are_not_waited_for_and_the_others_go_on(terminals, tmp_path):
    deal(tmp_path, CLIENTS)
    port = terminals.up()
    for client in (0, 2):
        terminals.join(port, client)
    place = f"127.0.0.1:{port}", tmp_path / "share1", "toy-client-001", 1
    terminals.run("bad", "tests.helpers.spoiling_node", *place, "fine,nan,shape,other,huge,fail,late,fine,die")
    rounds = 60
    training = terminals.train(port, *PLAN, "--rounds", rounds, "--round-timeout", 5)
    assert terminals.running["bad"].wait(200) == 1  # it died in a round
    terminals.until("train", r"did not answer in time(.|\n)*did not answer in time|is missing.*Flower's error")
    terminals.join(port, 1)  # and comes again
    terminals.until("node1", "Connected")
    before = len(re.findall(r"/60 +accuracy", terminals.log("train")))
    terminals.until("train", rf" {before + 4}/60 +accuracy")
    training.send_signal(signal.SIGINT)
    assert training.wait(100) == 130, terminals.log("train")
    log = terminals.log("train")
    for sentence in (
        "its prototypes is not finite", r"its prototypes is float32 \[\d, 15\], not float32 \[\d, 16\]", "it says it is client 0",
        r"its prototypes has values up to [\d.e+]+, every other client's", "out of order", "it did not answer in time",
    ):  # fmt: skip
        assert re.search(f"Client 1 is missing after round .*{sentence}", log), (sentence, log)
    assert not re.search("Client [02] is missing", log)
    (done,) = re.findall(r"Stopped far@v1 after round (\d+)", log)
    more = terminals.train(port, *PLAN, "--rounds", int(done) + 1, "--round-timeout", 5, name="more")
    assert more.wait(100) == 0, terminals.log("more")
    run = read(Store(tmp_path / "server").open("far"))
    reasons = [reason for _, client, reason in run.missing.tolist() if client == 1]
    assert reasons[:6] == [Missing.REFUSED] * 4 + [Missing.FAILED, Missing.LATE]
    assert run.uploaded[0].all() and run.uploaded[-1].all() and run.uploaded[:, [0, 2]].all()


def test_nodes_outlive_the_server_and_the_run_goes_on_with_the_next_one(terminals, tmp_path):
    deal(tmp_path, 2)
    port = terminals.up()
    nodes = [terminals.join(port, client) for client in range(2)]
    plan = [*PLAN, "--rounds", 6, "--round-timeout", 60, "--checkpoint-every", 1]
    training = terminals.train(port, *plan)
    terminals.until("train", r" 2/6 +accuracy")
    terminals.end("up", signal.SIGKILL)
    assert training.wait(200) == 3
    assert "The SuperLink ended this run" in terminals.log("train")
    terminals.start("up", "federation", "up", "--port", port)
    terminals.until("node1", r"connecting again(.|\n)*Connected")
    assert terminals.train(port, *plan, name="more").wait(200) == 0, terminals.log("more")
    assert read(Store(tmp_path / "server").open("far")).uploaded.all()
    workers = [worker_of(node.pid) for node in nodes]
    nodes[0].send_signal(signal.SIGINT)  # Ctrl-C
    nodes[1].send_signal(signal.SIGTERM)
    assert [node.wait(30) for node in nodes] == [130, 130]
    assert all(workers) and not any(map(killed, workers)) and "Traceback" not in terminals.log("node0")


def worker_of(node):
    """The process in which a node works: the one below it that holds PyTorch and computes."""
    below = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        below.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [child for server in below.get(node, []) for child in below.get(server, [])]
    return found[-1] if found else None


def killed(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("kills", [50])
def test_nothing_is_lost_however_nodes_workers_and_the_server_are_killed(terminals, tmp_path, kills):
    """The run is the one that nobody disturbed, bit for bit: a round counts only once all have answered."""
    data, rounds, rng = deal(tmp_path, CLIENTS), 80, random.Random(0)
    (near,) = stages.train(
        Store(tmp_path / "all"), "near", settings(algorithm="fedproto", rounds=rounds, data="toy"), {}
    )
    port = terminals.up()
    for client in range(CLIENTS):
        terminals.join(port, client)
    plan = [*PLAN, "--rounds", rounds, "--round-timeout", 6, "--min-clients", CLIENTS, "--checkpoint-every", 1]
    store, done, killings = Store(tmp_path / "server"), 0, {"node": 0, "worker": 0, "server": 0}
    deadline = time.monotonic() + 3000
    while not (store.root / "runs").exists() or not store.versions("run", "far"):
        assert time.monotonic() < deadline, terminals.log("train")
        if "train" not in terminals.running or terminals.running["train"].poll() is not None:
            terminals.train(port, *plan)
        for client in range(CLIENTS):
            if terminals.running[f"node{client}"].poll() is not None:
                terminals.join(port, client)
        time.sleep(rng.uniform(0.1, 4))
        if done < kills:
            fewest = [what for what, times in killings.items() if times == min(killings.values())]
            what, client = rng.choice(fewest), rng.randrange(CLIENTS)
            process = terminals.running["train" if what == "server" else f"node{client}"]
            victim = worker_of(process.pid) if what == "worker" else process.pid
            if process.poll() is None and victim and killed(victim):
                done += 1
                killings[what] += 1
                if what != "worker":
                    process.wait()
    assert done == kills and min(killings.values()) >= kills // 3
    far, near = read(store.open("far", thorough=True)), read(near)
    assert not unfinished(store) and not len(far.missing) and far.joined.all() and far.uploaded.all()
    for name in ("test_accuracy", "validation_accuracy"):
        assert np.array_equal(getattr(far, name), getattr(near, name)), name
    assert np.array_equal(far.artifact.array("client_metrics/loss"), near.artifact.array("client_metrics/loss"))
    assert far.artifact.attributes["made_from"]["data"] == data.identity
