"""Real clients: the nodes of a SuperLink on this machine, which runs our relay so that this process can reach them."""

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
from stages.engines.flower.reach import absent, parsed
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
clientapp = "stages.engines.flower.server_app:client"

[tool.flwr.app.config]
socket = ""
"""
START = 60.0  # seconds for the SuperLink to start the relay


@contextmanager
def deployed(address: str, root_certificates: str | None) -> Iterator[RelayLink]:
    """A link to the nodes of the SuperLink at `address`, until the block ends. UserError if there is none."""
    parsed(address)
    with socket_folder() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "relay"))  # only this user can access the folder
        listener.listen(1)
        listener.settimeout(START)
        submit(folder, address, root_certificates)
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            raise UserError(
                f"The SuperLink at {address} accepted the run but did not start it within {START:g} seconds. It must run on "
                "this machine, with this fedktl installed; see its log."
            ) from None
        connection.settimeout(None)
        with connection:
            yield RelayLink(connection)


def submit(folder: Path, address: str, root_certificates: str | None) -> None:
    """Make the SuperLink run the relay."""
    if nobody := absent(address, root_certificates):
        raise UserError(f"{nobody} Start it with fedktl federation up.")
    (folder / "app").mkdir()
    (folder / "app" / "pyproject.toml").write_text(APP, encoding="utf-8")
    told = flwr(
        folder, address, root_certificates, "run", str(folder / "app"), "fedktl", "-c", f'socket="{folder}/relay"'
    )
    if not told.get("success"):
        why = str(told.get("error-message") or told).strip().splitlines()
        raise UserError(f"The SuperLink at {address} refuses the run ({why[-1] if why else 'no reason given'}).")


def flwr(folder: Path, address: str, root_certificates: str | None, *arguments: str) -> Mapping[str, Any]:
    """The JSON that Flower's own command prints, with a connection to `address` named fedktl; `folder` is its home."""
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
    """The connection in the format of Flower's config.toml."""
    security = (
        f"root-certificates = {json.dumps(str(Path(root_certificates).absolute()))}"
        if root_certificates
        else "insecure = true"
    )
    return f'[superlink]\ndefault = "fedktl"\n\n[superlink.fedktl]\naddress = {json.dumps(address)}\n{security}\n'


def enlist(address: str, root_certificates: str, key: Path, running: Callable[[], bool]) -> None:
    """Let the node with this public key join. Retries while the SuperLink starts; UserError if it refuses the key."""
    deadline = time.monotonic() + START
    with tempfile.TemporaryDirectory(prefix="fedktl-") as scratch:
        while True:
            told = flwr(Path(scratch), address, root_certificates, "supernode", "register", str(key), "fedktl")
            why = str(told.get("error-message") or told)
            if told.get("success") or "already" in why:
                return
            if not running() or time.monotonic() > deadline:
                raise UserError(f"The SuperLink at {address} refuses the key {key} ({why.strip()}).")
            time.sleep(1)
