"""Real clients: the nodes of a SuperLink on this machine. It runs our relay, which hands this process its grid."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.engines.flower.link import RelayLink
from stages.environment import socket_folder
from stages.errors import UserError

APP = """\
[project]
name = "fedktl-federation"
version = "1.0.0"
dependencies = []

[tool.flwr.app]
publisher = "fedktl"

[tool.flwr.app.components]
serverapp = "stages.engines.flower.server_app:app"
clientapp = "stages.engines.flower.client_app:app"

[tool.flwr.app.config]
socket = ""
"""
START = 60.0  # seconds for the SuperLink to run the relay


@contextmanager
def deployed(address: str, root_certificates: str | None) -> Iterator[RelayLink]:
    """A link to the nodes of the SuperLink at `address`, until the block ends. UserError if it can't be had."""
    with socket_folder() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "relay"))  # only this user may enter the folder
        listener.listen(1)
        listener.settimeout(START)
        submit(folder, address, root_certificates)
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            raise UserError(
                f"The SuperLink at {address} took the run but did not start it in {START:g} seconds. It must be on "
                "this machine, with this fedktl installed; its log says more."
            ) from None
        connection.settimeout(None)
        with connection:
            yield RelayLink(connection)


def submit(folder: Path, address: str, root_certificates: str | None) -> None:
    """Have the SuperLink run the relay."""
    (folder / "app").mkdir()
    (folder / "app" / "pyproject.toml").write_text(APP, encoding="utf-8")
    told = flwr(
        folder, address, root_certificates, "run", str(folder / "app"), "fedktl", "-c", f'socket="{folder}/relay"'
    )
    if not told.get("success"):
        why = str(told.get("error-message") or told).strip().splitlines()
        raise UserError(f"The SuperLink at {address} does not take the run ({why[-1] if why else 'no reason'}).")


def flwr(folder: Path, address: str, root_certificates: str | None, *arguments: str) -> Mapping[str, Any]:
    """What Flower's own command says, as JSON, with a connection to `address` called fedktl; `folder` is its home."""
    (folder / "config.toml").write_text(connection(address, root_certificates), encoding="utf-8")
    command = [sys.executable, "-m", "flwr.cli.app", *arguments, "--format", "json"]
    done = subprocess.run(
        command,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        env={**os.environ, "FLWR_HOME": str(folder), "PYTHONIOENCODING": "utf-8"},
    )
    try:
        told = json.loads(done.stdout)
    except ValueError:
        told = None
    return told if isinstance(told, dict) else {"success": False, "error-message": done.stderr or done.stdout}


def connection(address: str, root_certificates: str | None) -> str:
    """The connection as Flower's config.toml says it."""
    security = (
        f"root-certificates = {json.dumps(str(Path(root_certificates).absolute()))}"
        if root_certificates
        else "insecure = true"
    )
    return f'[superlink]\ndefault = "fedktl"\n\n[superlink.fedktl]\naddress = {json.dumps(address)}\n{security}\n'


def enlist(address: str, root_certificates: str, key: Path, running: Callable[[], bool]) -> None:
    """Let the node with this public key join. Tries while the SuperLink starts; UserError if it does not take the key."""
    deadline = time.monotonic() + START
    with tempfile.TemporaryDirectory(prefix="fedktl-") as scratch:
        while True:
            told = flwr(Path(scratch), address, root_certificates, "supernode", "register", str(key), "fedktl")
            why = str(told.get("error-message") or told)
            if told.get("success") or "already" in why:
                return
            if not running() or time.monotonic() > deadline:
                raise UserError(f"The SuperLink at {address} does not take the key {key} ({why.strip()}).")
            time.sleep(1)
