"""fedktl federation: the server and the clients of a federation over several machines."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from fedktl_cli.commands import Group
from fedktl_cli.terminal import Terminal, guarded, here, stopping
from stages import plugins
from stages.errors import UserError, printable
from stages.settings import MOST

app = typer.Typer(help=r"Start the server and the clients of a real federation (needs fedktl\[flower]).", cls=Group)


@app.command("up")
@guarded
def up(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen on.", metavar="HOST")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535, metavar="N")] = 8000,
    certificate: Annotated[
        Path | None, typer.Option(help="The server's TLS certificate (PEM).", metavar="FILE")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="The certificate's private key (PEM).", metavar="FILE")] = None,
    authority: Annotated[
        Path | None, typer.Option(help="Certificate of the authority that signed it (PEM).", metavar="FILE")
    ] = None,
    node_key: Annotated[
        list[Path] | None,
        typer.Option(
            help="Public key of a node that may join; repeatable. Without any, every node may.", metavar="FILE"
        ),
    ] = None,
) -> None:
    """Run a SuperLink until Ctrl-C. Training runs on the same machine, with --federation HOST:PORT.

    [dim]fedktl federation up --host 0.0.0.0 --certificate server.pem --key server.key --authority ca.pem --node-key a.pub[/]
    """
    terminal, tls = here(context), (certificate, key, authority)
    if any(tls) and not all(tls):
        raise UserError("TLS needs all three: --certificate, --key and --authority.")
    if not any(tls) and (node_key or host not in ("127.0.0.1", "localhost", "::1")):
        raise UserError(
            "Node keys, and a host other than this machine, need TLS; give --certificate, --key and --authority."
        )
    command = ["flower-superlink", "--host", host, "--port", str(port), "--disable-runtime-dependency-installation"]
    if certificate and key and authority:
        for flag, file in zip(("certfile", "keyfile", "ca-certfile"), (certificate, key, authority), strict=True):
            command += [f"--ssl-{flag}", str(existing(file))]
    else:
        command.append("--insecure")
    if not node_key:
        hold(terminal, command)
        return
    keys = [existing(file) for file in node_key]
    with started(terminal, [*command, "--enable-supernode-auth"]) as server:
        register(terminal, server, f"{'127.0.0.1' if host == '0.0.0.0' else host}:{port}", keys, str(authority))
        wait(server)


@app.command("join")
@guarded
def join(
    context: typer.Context,
    address: Annotated[str, typer.Argument(help="HOST:PORT of the SuperLink.", metavar="ADDRESS")],
    data: Annotated[str, typer.Option(help="Data artifact with this client's images.", metavar="REF")],
    client: Annotated[int, typer.Option(help="This client's number, from 0.", min=0, max=MOST, metavar="N")],
    models: Annotated[
        Path | None,
        typer.Option(help="Folder of this client's models; default: `clients` in the store.", metavar="DIR"),
    ] = None,
    root_certificates: Annotated[
        Path | None,
        typer.Option(
            help="Certificate of the authority that signed the SuperLink's (PEM); without it, no TLS.", metavar="FILE"
        ),
    ] = None,
    node_key: Annotated[Path | None, typer.Option(help="This node's private key.", metavar="FILE")] = None,
    code: Annotated[
        list[str] | None,
        typer.Option(
            help="Algorithm or model of your own, package.module:name, that the server may have run here; repeatable.",
            metavar="NAME",
        ),
    ] = None,
) -> None:
    """Serve one client to a SuperLink until Ctrl-C. Its images and models stay on this machine.

    [dim]fedktl --store share federation join server:8000 --data cifar10-client-003 --client 3[/]
    """
    terminal = here(context)
    require()
    from stages.engines.flower import fleet, reach
    from stages.engines.flower.worker import Home, working

    reach.parsed(address)
    check_names(code or [])
    if node_key and not root_certificates:
        raise UserError("A node's key needs a connection with TLS; add --root-certificates.")
    authority = str(existing(root_certificates)) if root_certificates else None
    key = existing(node_key) if node_key else None
    store = terminal.store.root.absolute()
    home = Home(store, data, client, (models or store / "clients").absolute(), tuple(code or ()))
    with stopping(signal.default_int_handler), working(home) as (worker, described):
        terminal.say(
            f"Client {client} of {described['clients']}, with {described['sizes']['train']} images to train on."
        )
        fleet.serve(address, authority, key, worker.answer, terminal.say)


def check_names(code: list[str]) -> None:
    for name in code:
        if not all(map(plugins.PATH.fullmatch, name.split(","))):
            raise UserError(f"'{printable(name, 80)}' is not the name of code; write package.module:name.")


def existing(file: Path) -> Path:
    if not file.is_file():
        raise UserError(f"There is no file {file}.")
    return file.absolute()


def require() -> None:
    from stages.engines import flower

    flower.require()


@contextmanager
def started(terminal: Terminal, command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run one of Flower's programs: it is announced before it starts, and ends with this process."""
    require()
    terminal.say(f"$ {shlex.join(command)}")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # where it looks for Flower's other programs
    program = shutil.which(command[0], path=path) or command[0]
    running, stopped = False, False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        if running:
            raise KeyboardInterrupt

    with stopping(stop):
        process = subprocess.Popen([program, *command[1:]], env={**os.environ, "PATH": path})
        try:
            running = True
            if stopped:  # while it started, when nobody could have ended it
                raise KeyboardInterrupt
            yield process
        finally:
            process.terminate()
            process.wait()


def hold(terminal: Terminal, command: list[str]) -> None:
    with started(terminal, command) as process:
        wait(process)


def wait(process: subprocess.Popen[bytes]) -> None:
    if code := process.wait():
        raise UserError(f"{Path(str(process.args[0])).name} ended with code {code}; its output says why.")  # type: ignore[index]


def register(
    terminal: Terminal, server: subprocess.Popen[bytes], address: str, keys: list[Path], authority: str
) -> None:
    """Tell the SuperLink, once it listens, which keys may join."""
    from stages.engines.flower.deployment import enlist

    for key in keys:
        terminal.say(f"$ flwr supernode register {shlex.quote(str(key))} fedktl")
        enlist(address, authority, key, lambda: server.poll() is None)
    terminal.say(f"{len(keys)} nodes may join.")
