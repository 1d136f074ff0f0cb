"""The store that the tests of reporting fill."""

import pytest

from stages.artifacts.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)
