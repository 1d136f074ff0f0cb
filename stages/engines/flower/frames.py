"""Facts and arrays over a socket between processes of one user: JSON and safetensors, of bounded size."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from stages.engines.flower.payload import Arrays, Facts

HEADER = struct.Struct("!QQ")  # bytes of the JSON, bytes of the arrays
MOST = 1 << 28, 1 << 36  # of each


def send(connection: socket.socket, facts: Facts, arrays: Arrays) -> None:
    text, blob = json.dumps(facts).encode(), save({name: np.asarray(v, order="C") for name, v in arrays.items()})
    connection.sendall(HEADER.pack(len(text), len(blob)) + text)
    connection.sendall(blob)


def receive(connection: socket.socket) -> tuple[dict[str, Any], Arrays]:
    """Raises ConnectionError when the other end has closed the socket, or announces more than any message has."""
    text, blob = HEADER.unpack(exactly(connection, HEADER.size))
    if text > MOST[0] or blob > MOST[1]:
        raise ConnectionError(f"the other end sends {text + blob} bytes")
    return json.loads(exactly(connection, text)), load(exactly(connection, blob))


def exactly(connection: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(min(count - len(parts), 1 << 20))
        if not part:
            raise ConnectionError("the other end closed the connection")
        parts += part
    return bytes(parts)
