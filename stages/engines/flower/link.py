"""How the server reaches nodes. `GridLink` talks to Flower; `RelayLink` talks to a GridLink in another process.

A SuperLink runs the server's code in a process of its own. The training, its store and its terminal stay in the user's
process, so the SuperLink only runs a relay, which connects to a Unix socket and carries out the requests it gets there.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from stages.engines.flower.frames import receive, send
from stages.engines.flower.payload import Arrays, Facts, from_records, size, to_records
from stages.errors import UserError, printable

if TYPE_CHECKING:
    from flwr.app import Context, Message
    from flwr.serverapp import Grid

LONGEST = 120.0  # seconds that the SuperLink has for a request


@dataclass(frozen=True)
class Reply:
    """What a node answered; `error` says why there is no answer, and is empty if there is one."""

    arrays: Arrays
    facts: Facts
    size: int = 0  # bytes
    error: str = ""


@dataclass(frozen=True)
class Sent:
    id: str
    size: int  # bytes


class Link(Protocol):
    def nodes(self) -> set[int]:
        """The connected nodes."""

    def push(self, kind: str, arrays: Arrays, facts: Mapping[int, Facts], ttl: float) -> dict[int, Sent]:
        """Send each node in `facts` its facts, and all of them the same arrays; a reply must come within `ttl` seconds."""

    def pull(self, ids: Iterable[str]) -> dict[str, Reply]:
        """The replies that have arrived, by the id of the message they answer."""


class GridLink:
    """A link over Flower's grid."""

    def __init__(self, grid: Grid):
        self.grid = grid

    def nodes(self) -> set[int]:
        return set(self.grid.get_node_ids())

    def push(self, kind: str, arrays: Arrays, facts: Mapping[int, Facts], ttl: float) -> dict[int, Sent]:
        from flwr.app import Message

        contents = {node: to_records(arrays, own) for node, own in facts.items()}
        messages = [Message(c, dst_node_id=node, message_type=kind, ttl=ttl) for node, c in contents.items()]
        ids = self.grid.push_messages(messages)
        sent = zip(contents.items(), ids, strict=True)
        return {node: Sent(id, size(content)) for (node, content), id in sent if id}

    def pull(self, ids: Iterable[str]) -> dict[str, Reply]:
        wanted = list(ids)
        try:
            messages = list(self.grid.pull_messages(wanted))
        except Exception as error:  # Flower can't open one of the messages; ask for them one by one
            if len(wanted) == 1:
                return {wanted[0]: Reply({}, {}, error=f"Flower can't open its message ({type(error).__name__})")}
            return {id: found for one in wanted for id, found in self.pull([one]).items()}
        return {message.metadata.reply_to_message_id: reply(message) for message in messages}


def reply(message: Message) -> Reply:
    if message.has_error():
        reason = printable(message.error.reason or "no reason given", 1000)
        return Reply({}, {}, error=f"Flower's error {message.error.code}: {reason}")
    try:
        arrays, facts = from_records(message.content)
    except UserError as error:
        return Reply({}, {}, error=str(error))
    return Reply(arrays, facts, size(message.content))


class RelayLink:
    """The server's end of the socket."""

    def __init__(self, connection: socket.socket):
        self.connection = connection

    def nodes(self) -> set[int]:
        return set(self._ask({"do": "nodes"})[0]["nodes"])

    def push(self, kind: str, arrays: Arrays, facts: Mapping[int, Facts], ttl: float) -> dict[int, Sent]:
        told, _ = self._ask({"do": "push", "kind": kind, "ttl": ttl, "facts": list(facts.items())}, arrays)
        return {node: Sent(*sent) for node, sent in told["sent"]}

    def pull(self, ids: Iterable[str]) -> dict[str, Reply]:
        told, arrays = self._ask({"do": "pull", "ids": list(ids)})
        own: dict[str, dict[str, np.ndarray]] = {id: {} for id in told["replies"]}
        for name, value in arrays.items():
            id, _, inner = name.partition("/")
            own[id][inner] = value
        return {id: Reply(own[id], *rest) for id, rest in told["replies"].items()}

    def _ask(self, question: dict[str, Any], arrays: Arrays | None = None) -> tuple[dict[str, Any], Arrays]:
        try:
            send(self.connection, question, arrays or {})
            return receive(self.connection)
        except OSError as error:
            raise UserError(f"The SuperLink ended this run ({error}); see its log, then resume the run.") from error


def relay(grid: Grid, context: Context) -> None:
    """What the SuperLink runs: serves a GridLink over the socket until the other end closes it."""
    link = GridLink(grid)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(context.run_config["socket"]))
        while True:
            try:
                asked, arrays = receive(connection)
            except OSError:
                return
            with at_most(LONGEST):
                carry_out(link, connection, asked, arrays)


def carry_out(link: GridLink, connection: socket.socket, asked: Mapping[str, Any], arrays: Arrays) -> None:
    if asked["do"] == "nodes":
        send(connection, {"nodes": sorted(link.nodes())}, {})
    elif asked["do"] == "push":
        sent = link.push(asked["kind"], arrays, dict(asked["facts"]), asked["ttl"])
        send(connection, {"sent": [(node, (one.id, one.size)) for node, one in sent.items()]}, {})
    else:
        replies = link.pull(asked["ids"])
        told = {id: (one.facts, one.size, one.error) for id, one in replies.items()}
        joint = {f"{id}/{name}": value for id, one in replies.items() for name, value in one.arrays.items()}
        send(connection, {"replies": told}, joint)


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """End this process if the block takes longer: Flower's requests to a SuperLink that was killed may never return."""
    timer = threading.Timer(seconds, os._exit, (1,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
