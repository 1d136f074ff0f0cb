"""A real federation on loopback: a SuperLink and three SuperNodes, as a user starts them. Minutes: run with -m slow."""

import datetime
import ipaddress
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("flwr")
pytest.importorskip("cryptography")

from stages.artifacts.schemas import read
from stages.artifacts.store import Store
from stages.export import export
from tests.helpers.toy_store import write_toy_data

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
CLIENTS = 3


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Terminals:
    """Commands in terminals of their own, each a process group with a log."""

    def __init__(self, folder):
        self.folder, self.running = folder, {}

    def start(self, name, *arguments):
        environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "FLWR_HOME": str(self.folder / "flwr")
        }  # fmt: skip
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", "fedktl_cli", *map(str, arguments)], stdout=log, stderr=log, cwd=self.folder,
                env=environment, start_new_session=True,
            )  # fmt: skip
        return self.running[name]

    def log(self, name):
        return (self.folder / f"{name}.log").read_text()

    def end(self, name, how=signal.SIGTERM):
        process = self.running.pop(name)
        if process.poll() is None:
            os.killpg(process.pid, how)
        process.wait(60)

    def until(self, name, pattern, seconds=240):
        deadline = time.monotonic() + seconds
        while not re.search(pattern, self.log(name)):
            assert time.monotonic() < deadline, self.log(name)
            time.sleep(0.2)


@pytest.fixture
def terminals(tmp_path):
    found = Terminals(tmp_path)
    yield found
    for name in list(found.running):
        found.end(name)


@pytest.fixture
def shares(tmp_path):
    """A store for each client, with its images and nobody else's."""
    data = write_toy_data(Store(tmp_path / "all"), clients=CLIENTS)
    for client in range(CLIENTS):
        export(data, None, tmp_path / f"share{client}", client)


def joined(terminals, port, client, *more):
    terminals.start(
        f"node{client}", "--store", f"share{client}", "federation", "join", f"127.0.0.1:{port}", "--data",
        f"toy-client-{client:03d}", "--client", client, "--port", free_port(), *more,
    )  # fmt: skip


TRAIN = [
    "--models",
    "tests.helpers.toys:tiny,tests.helpers.toys:narrow",
    "--feature-dim",
    "16",
    "--batch-size",
    "8",
    "--algorithm",
    "fedproto",
    "--name",
    "far",
]


def test_a_node_killed_in_a_round_is_missed_and_taken_back(terminals, shares, tmp_path):
    port = free_port()
    terminals.start("up", "federation", "up", "--port", port)
    terminals.until("up", "running on")
    for client in range(CLIENTS):
        joined(terminals, port, client)
    training = terminals.start(
        "train", "-v", "--store", "server", "train", "--engine", "flower", "--federation", f"127.0.0.1:{port}", *TRAIN,
        "--rounds", 60, "--round-timeout", 120, "--checkpoint-every", 1,
    )  # fmt: skip
    terminals.until("train", r"1/60 accuracy")
    terminals.end("node1", signal.SIGKILL)
    terminals.until("train", r"Client 1 is missing after round \d+")
    joined(terminals, port, 1)
    terminals.until("node1", "train message", 600)
    before = len(re.findall(r"/60 accuracy", terminals.log("train")))
    terminals.until("train", rf"{before + 2}/60 accuracy", 600)
    training.send_signal(signal.SIGINT)  # Ctrl-C: it stops after the round
    assert training.wait(300) == 130, terminals.log("train")
    (rounds,) = re.findall(r"Stopped after round (\d+)", terminals.log("train"))
    done = int(rounds) + 1
    terminals.start("more", "-v", "--store", "server", "train", "--resume", "far", "--rounds", done)
    assert terminals.running["more"].wait(400) == 0, terminals.log("more")
    run = read(Store(tmp_path / "server").open("far"))
    assert {client for _, client, _ in run.missing.tolist()} == {1}
    assert run.joined.all() and run.uploaded[0].all() and run.uploaded[-1].all() and not run.uploaded[:, 1].all()
    assert not run.artifact.names("clients") and list((tmp_path / "share1" / "clients").rglob("*.safetensors"))


def certificates(folder):
    """ca.pem, server.pem and server.key for 127.0.0.1; and for nodes a and b a.key, a.pub, ..."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric import ec

    def key(path=None, form=forms.PrivateFormat.PKCS8):
        made = ec.generate_private_key(ec.SECP384R1())
        if path:
            path.write_bytes(made.private_bytes(forms.Encoding.PEM, form, forms.NoEncryption()))
        return made

    def certificate(path, name, own, issuer, signer, authority):
        now = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(own.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(1))
            .not_valid_after(now + datetime.timedelta(2))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
            .sign(signer, hashes.SHA256())
        )  # fmt: skip
        path.write_bytes(made.public_bytes(forms.Encoding.PEM))

    def named(text):
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    root, server = key(), key(folder / "server.key")
    certificate(folder / "ca.pem", named("authority"), root, named("authority"), root, True)
    certificate(folder / "server.pem", named("server"), server, named("authority"), root, False)
    for node in ("a", "b"):
        public = key(folder / f"{node}.key", forms.PrivateFormat.OpenSSH).public_key()
        (folder / f"{node}.pub").write_bytes(public.public_bytes(forms.Encoding.OpenSSH, forms.PublicFormat.OpenSSH))


def test_over_tls_a_node_whose_key_is_not_known_is_refused(terminals, shares, tmp_path):
    certificates(tmp_path)
    port = free_port()
    tls = ["--certificate", "server.pem", "--key", "server.key", "--authority", "ca.pem"]
    terminals.start("up", "federation", "up", "--port", port, *tls, "--node-key", "a.pub")
    terminals.until("up", "1 nodes may join")
    joined(terminals, port, 0, "--root-certificates", "ca.pem", "--node-key", "a.key")
    joined(terminals, port, 1, "--root-certificates", "ca.pem", "--node-key", "b.key")
    assert terminals.running["node1"].wait(300) == 2, terminals.log("node1")
    assert "Exit Code: 305" in terminals.log("node1")  # Flower's: the SuperLink does not know the key
    training = terminals.start(
        "train", "-v", "--store", "server", "train", "--engine", "flower", "--federation", f"127.0.0.1:{port}", *TRAIN,
        "--rounds", 1, "--root-certificates", "ca.pem", "--round-timeout", 90,
    )  # fmt: skip
    assert training.wait(400) == 2
    assert "No node came for clients 1, 2 in 90 seconds" in terminals.log("train")
