"""The store that commands are given."""

from pathlib import Path

import pytest


@pytest.fixture
def store(toy_store) -> Path:
    return toy_store.root
