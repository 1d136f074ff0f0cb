"""Nodes of a federation: in this process, and as a user starts them."""

import pytest

from tests.helpers.toy_store import CLIENTS


@pytest.fixture
def homes(toy_store, tmp_path):
    """A node for each client of the toy federation."""
    from stages.engines.flower.node import ClientNode

    data = toy_store.open("toy")
    return [ClientNode(client, data, tmp_path / "disks") for client in range(CLIENTS)]


@pytest.fixture
def terminals(tmp_path, signals):
    """Processes of a federation on loopback, ended with the test."""
    from tests.helpers.federations import Terminals

    found = Terminals(tmp_path)
    yield found
    for name in list(found.running):
        found.end(name)
