"""A real federation on loopback, started as a user starts it: commands in terminals, the clients' stores, keys and certificates."""

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

from stages.artifacts.store import Store
from stages.export import export
from tests.helpers.toy_runs import CODE
from tests.helpers.toy_store import write_toy_data

ROOT = Path(__file__).parents[2]


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


PLAN = ["--algorithm", "fedproto", "--feature-dim", 16, "--batch-size", 8, "--models", CODE["models"], "--name", "far"]


class Terminals:
    """Commands in terminals of their own, each a process group with a log."""

    def __init__(self, folder):
        self.folder, self.running = folder, {}

    def start(self, name, *arguments):
        """A command of fedktl."""
        return self.run(name, "fedktl_cli", *arguments)

    def run(self, name, module, *arguments):
        environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "FLWR_HOME": str(self.folder / "flwr")
        }  # fmt: skip
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", module, *map(str, arguments)], stdout=log, stderr=log, cwd=self.folder,
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

    def up(self, *more):
        """Start the SuperLink; returns its port."""
        port = free_port()
        self.start("up", "federation", "up", "--port", port, *more)
        return port

    def join(self, port, client, *more):
        return self.start(
            f"node{client}", "--store", f"share{client}", "federation", "join", f"127.0.0.1:{port}", "--data",
            f"toy-client-{client:03d}", "--client", client, "--code", CODE["models"], *more,
        )  # fmt: skip

    def train(self, port, *more, name="train"):
        return self.start(
            name, "-v", "--store", "server", "train", "--engine", "flower", "--federation", f"127.0.0.1:{port}", *more
        )


def deal(folder, clients, **toy):
    """A store for each client, with its images and nobody else's; returns the data that they are of."""
    data = write_toy_data(Store(folder / "all"), clients=clients, **toy)
    for client in range(clients):
        export(data, None, folder / f"share{client}", client)
    return data


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
