"""A node's working process: it holds the client's images, its model and the libraries for as long as the node lives.

Its parent, which talks to the server, loads none of these. The two speak over a pair of sockets that nobody else can reach.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

from stages import plugins, processes
from stages.engines.flower.frames import receive, send
from stages.engines.flower.payload import Arrays, Facts
from stages.errors import UserError, printable

if TYPE_CHECKING:
    from stages.engines.flower.node import Client

TRIES = 2  # at a message whose worker dies


@dataclass(frozen=True)
class Home:
    """Where a client lives, for its process: the store and artifact with its images, the folder of its models.

    `code` is all the user's own code on this machine that a server may have run.
    """

    store: Path
    data: str
    client: int
    folder: Path
    code: tuple[str, ...] = ()


class Worker:
    """The parent's end. If the process dies, a new one is started and answers its message.

    Nothing is lost: a model is on the client's disk before its answer is sent, and training a round again gives the same
    bits.
    """

    def __init__(self, home: Home):
        self.home = home
        self.process: BaseProcess | None = None
        self.connection: socket.socket | None = None

    def start(self) -> Facts:
        """Start a process; returns how its client describes itself. UserError if it has no such client."""
        self.end()
        ours, theirs = socket.socketpair()
        self.connection = ours
        with theirs:
            self.process = processes.started(work, theirs, self.home, daemon=True)
        try:
            told, _ = receive(ours)
        except OSError as error:
            raise UserError(f"The process of client {self.home.client} died as it started ({error}).") from error
        if "error" in told:
            raise UserError(told["error"])
        return told

    def answer(self, kind: str, arrays: Arrays, facts: Facts) -> tuple[Arrays, Facts]:
        """The client's answer to a message; if it failed, the answer says why."""
        for _ in range(TRIES):
            try:
                if self.connection is None:
                    self.start()
                assert self.connection is not None
                send(self.connection, {"kind": kind, "facts": facts}, arrays)
                told, own = receive(self.connection)
                return own, told
            except OSError:
                self.end()
            except UserError as error:
                self.end()
                return {}, {"error": str(error)}
        return {}, {"error": f"The process of client {self.home.client} died {TRIES} times on this message."}

    def end(self) -> None:
        """Kill the process; unfinished work is done again when the server next asks."""
        if self.process is not None and self.connection is not None:
            self.connection.close()
            self.process.kill()
            self.process.join()
        self.process = self.connection = None


@contextmanager
def working(home: Home) -> Iterator[tuple[Worker, Facts]]:
    """A worker, and how its client describes itself, until the block ends. UserError if there is no such client."""
    worker = Worker(home)
    try:
        yield worker, worker.start()
    finally:
        worker.end()


def work(connection: socket.socket, home: Home) -> None:
    """What the process runs: message after message, until its parent ends it."""
    from stages.artifacts.store import Store
    from stages.engines.flower.node import Client, ClientNode, secret_in

    try:
        data = Store(home.store).open(home.data, "data")
        client = Client(ClientNode(home.client, data, home.folder, secret_in(home.folder)))
        send(connection, client.answer("query", {}, {})[1], {})
        while True:
            asked, arrays = receive(connection)
            with plugins.only(home.code):
                own, told = answered(client, asked["kind"], arrays, asked["facts"])
            send(connection, told, own)
    except UserError as error:
        send(connection, {"error": str(error)}, {})
    except ConnectionError:
        return


def answered(client: Client, kind: str, arrays: Arrays, facts: Facts) -> tuple[Arrays, Facts]:
    try:
        return client.answer(kind, arrays, facts)
    except plugins.Unnamed as error:
        why = (
            f"its node does not run '{error.path}', which is not part of fedktl; name it there as `code` when it joins"
        )
    except UserError as error:
        why = str(error)
    except Exception as error:  # a server may ask for anything, and a user's own model raise anything
        why = f"{type(error).__name__}: {error}"
    return {}, {"error": printable(why, 1000)}
