"""A node's connection to its SuperLink: it fetches messages, and sends back what `answer` makes of them.

Flower's own SuperNode starts a process for each message, which costs seconds of imports before any work, and polls for
messages every three seconds. This module uses the same connection, and runs no code that comes through it. The connection
is private to Flower, so pyproject.toml pins the releases that have it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

from stages.engines.flower import reach
from stages.engines.flower.payload import Arrays, Facts, from_records, to_records
from stages.errors import UserError, printable

SOONEST, LATEST = 0.05, 3.0  # seconds between polls for a message
SHARE = 0.05  # of the time since the last message, until the next poll: about what polling adds to a round
PATIENCE = 10.0  # seconds for which Flower retries a request
AGAIN = 1.0  # seconds before connecting again
ADMISSION = 90.0  # seconds within which a server learns of a key, or notices that the node which had it is gone
Answer = Callable[[str, Arrays, Facts], tuple[Arrays, Facts]]


def serve(
    address: str, root_certificates: str | None, key: Path | None, answer: Answer, note: Callable[[str], None]
) -> None:
    """Answer the SuperLink's messages until Ctrl-C or SIGTERM. UserError if it does not accept this node in time."""
    from flwr.supernode.fleet_http_connection import http_request_response

    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    own = None if key is None else key_pair(key)
    place = address, root_certificates is None, root_certificates, own
    since: float | None = None  # when it was first refused
    with unbroken() as lost:
        while True:
            reach.wait(address, root_certificates, note)
            lost.clear()
            try:
                with http_request_response(
                    *place, max_wait_time=PATIENCE
                ) as connection:  # swallows what is raised inside
                    note(f"Connected to {address} as node {connection[0]}.")
                    since = None
                    attend(connection, answer, lost)
                note(f"The connection to {address} was lost; connecting again.")
            except Refused as error:
                why = refusal(address, own is not None, str(error))
                if since is None:
                    note(f"{why} Trying again for {ADMISSION:g} seconds.")
                since = since or time.monotonic()
                if time.monotonic() > since + ADMISSION:
                    raise UserError(why) from None
            time.sleep(AGAIN)


class Refused(Exception):
    """A SuperLink did not accept this node. The message is Flower's; it may be empty."""


def refusal(address: str, keyed: bool, said: str) -> str:
    if keyed:
        why = "it does not know this node's key, or another node was connected with that key less than a minute ago"
    else:
        why = "it may accept only nodes with a key"
    told = f" ({printable(' '.join(said.split()))})" if said else ""
    return f"The SuperLink at {address} does not accept this node: {why}{told}."


@contextmanager
def unbroken() -> Iterator[threading.Event]:
    """Within this block, Flower neither ends this process nor sends it signals when a SuperLink does not know the node.

    It raises Refused instead. The event is set once one of Flower's threads, such as that of the heartbeats, has failed.
    """
    from flwr.supercore.interceptors.http import runtime_version
    from flwr.supercore.retry import http_retry
    from flwr.supernode import fleet_http_connection

    lost = threading.Event()
    system = SimpleNamespace(**{**vars(os), "kill": lambda process, number: refuse(number)})
    with (
        replaced(fleet_http_connection, "flwr_exit", refuse),
        replaced(runtime_version, "flwr_exit", refuse),
        replaced(fleet_http_connection, "os", system),
        replaced(http_retry, "os", system),
        replaced(threading, "excepthook", lambda _: lost.set()),
    ):
        yield lost


@contextmanager
def replaced(module: ModuleType, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def refuse(code: int, message: str = "", **_: object) -> NoReturn:
    raise Refused(message.removeprefix("Failed to initialize the connection to the SuperLink.").strip())


def key_pair(key: Path) -> tuple[Any, Any]:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    try:
        private = load_ssh_private_key(key.read_bytes(), None)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UserError(f"{key} is not an OpenSSH private key without a passphrase ({error}).") from error
    if not isinstance(private, EllipticCurvePrivateKey):
        raise UserError(f"{key} is not the kind of key that Flower accepts; make one with ssh-keygen -t ecdsa -b 384.")
    return private, private.public_key()


def attend(connection: Any, answer: Answer, lost: threading.Event) -> None:
    """Take messages as they come, until the connection fails."""
    from flwr.supercore.run import RunNotRunningException

    _, receive, *_ = connection
    since = time.monotonic()
    while not lost.is_set():
        try:
            came = receive()
            if came is not None:
                reply(connection, came[0], came[1], answer)
                since = time.monotonic()
        except RunNotRunningException:  # it has ended: nobody waits for this answer
            came = None
        if came is None:
            time.sleep(min(max(SHARE * (time.monotonic() - since), SOONEST), LATEST))


def reply(connection: Any, told: Any, tree: Any, answer: Answer) -> None:
    """Fetch the parts of a message, and send the parts of its answer."""
    from flwr.app import Message
    from flwr.supercore.inflatable.inflatable_object import (
        get_all_nested_objects,
        get_object_tree,
        no_object_id_recompute,
    )
    from flwr.supercore.inflatable.inflatable_utils import pull_and_inflate_object_from_tree, push_objects

    _, _, send, _, _, pull_object, push_object, confirm = connection
    run, begun = told.metadata.run_id, time.monotonic()
    message = pull_and_inflate_object_from_tree(
        tree, lambda id: pull_object(run, id), lambda id: confirm(run, id), return_type=Message
    )
    message.metadata.__dict__["_message_id"] = tree.object_id  # as Flower's own SuperNode does
    try:
        own, facts = answer(message.metadata.message_type, *from_records(message.content))
    except UserError as error:
        own, facts = {}, {"error": str(error)}
    content = Message(to_records(own, facts), reply_to=message)
    content.metadata.__dict__["_message_id"] = content.object_id
    with no_object_id_recompute():
        parts, session = send(content, get_object_tree(content), time.monotonic() - begun)
        push_objects(
            get_all_nested_objects(content),
            lambda id, part: push_object(run, session, id, part),
            object_ids_to_push=parts,
        )
