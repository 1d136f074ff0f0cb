"""A node's line to its SuperLink: messages come, and what `answer` makes of them goes back.

Flower's own SuperNode starts a process for each message, which costs seconds of imports before any work, and looks for
messages every three seconds. This speaks to the SuperLink through the same connection, and runs nothing that comes from
there. The connection is a private part of Flower's, so pyproject.toml names the releases that have it.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from stages.engines.flower import reach
from stages.engines.flower.payload import Arrays, Facts, from_records, to_records
from stages.errors import UserError

SOONEST, LATEST = 0.05, 3.0  # seconds between looks for a message
SHARE = 0.05  # of the time since the last one: about how much longer a round gets by it
PATIENCE = 10.0  # seconds in which Flower tries a request again
AGAIN = 1.0  # seconds before a connection is tried again
ADMISSION = 90.0  # seconds in which a server is told of a key, or notices that the node which had it is gone
Answer = Callable[[str, Arrays, Facts], tuple[Arrays, Facts]]


def serve(
    address: str, root_certificates: str | None, key: Path | None, answer: Answer, note: Callable[[str], None]
) -> None:
    """Answer the SuperLink's messages until Ctrl-C or SIGTERM. UserError if it does not take this node in time."""
    from flwr.supernode.fleet_http_connection import http_request_response

    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    own = None if key is None else key_pair(key)
    place = address, root_certificates is None, root_certificates, own
    since: float | None = None  # when it was refused first
    with unbroken() as lost:
        while True:
            reach.wait(address, root_certificates, note)
            lost.clear()
            try:
                with http_request_response(*place, max_wait_time=PATIENCE) as connection:  # keeps what is raised within
                    note(f"Connected to {address} as node {connection[0]}.")
                    since = None
                    attend(connection, answer, lost)
                note(f"The connection to {address} was lost; connecting again.")
            except Refused:
                why = refusal(address, own is not None)
                if since is None:
                    note(f"{why} Trying again for {ADMISSION:g} seconds.")
                since = since or time.monotonic()
                if time.monotonic() > since + ADMISSION:
                    raise UserError(why) from None
            time.sleep(AGAIN)


class Refused(Exception):
    """A SuperLink did not take this node."""


def refusal(address: str, keyed: bool) -> str:
    if keyed:
        why = "it does not know its key, or another node that has the key was there until a minute ago"
    else:
        why = "it may take nodes with a key alone"
    return f"The SuperLink at {address} does not take this node: {why}."


@contextmanager
def unbroken() -> Iterator[threading.Event]:
    """Within this block, Flower does not end this process.

    Where a SuperLink does not take the node, Refused is raised instead. Where it does not know it any more, Flower would
    send SIGINT, which harms nothing where that is ignored; the event is set when one of Flower's threads has failed, as that of the heartbeats does then.
    """
    from flwr.supernode import fleet_http_connection

    lost, mask, flower = threading.Event(), {signal.SIGINT}, vars(fleet_http_connection)
    before = threading.excepthook, flower["flwr_exit"]
    threading.excepthook, flower["flwr_exit"] = lambda _: lost.set(), refuse
    if hasattr(signal, "sigwaitinfo") and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.pthread_sigmask(signal.SIG_BLOCK, mask)
        threading.Thread(target=pass_on, args=(mask,), daemon=True).start()
    try:
        yield lost
    finally:
        threading.excepthook, flower["flwr_exit"] = before


def refuse(*told: Any) -> NoReturn:
    raise Refused


def pass_on(mask: set[signal.Signals]) -> None:
    """Turn SIGINT, unless this process has sent it itself, into SIGTERM."""
    while True:
        if signal.sigwaitinfo(mask).si_pid != os.getpid():
            os.kill(os.getpid(), signal.SIGTERM)


def key_pair(key: Path) -> tuple[Any, Any]:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    try:
        private = load_ssh_private_key(key.read_bytes(), None)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UserError(f"{key} is no private key of OpenSSH without a passphrase ({error}).") from error
    if not isinstance(private, EllipticCurvePrivateKey):
        raise UserError(f"{key} is no key of the kind that Flower takes; make one with ssh-keygen -t ecdsa -b 384.")
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
        except RunNotRunningException:  # which ended meanwhile: nobody waits for this answer
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
