"""A small federation that every stage's tests share: 4 clients, 5 classes, images that give their class away."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from stages.artifacts.store import Store
from tests.helpers.toy_store import write_toy_data, write_toy_latents


def pytest_configure(config):
    """What is promised bit for bit is promised on a CPU, so a GPU is used by the tests that are about it, alone."""
    if "gpu" not in (config.getoption("markexpr") or ""):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a GPU, and to be asked for: pytest -m gpu"))


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Several threads change the order of sums, and slow small models down."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def written_toys(tmp_path_factory) -> Path:
    """A store with data `toy` and latents `bank`, not to be written to."""
    store = Store(tmp_path_factory.mktemp("toys") / "store")
    write_toy_data(store)
    write_toy_latents(store)
    return store.root


@pytest.fixture
def toy_store(written_toys, tmp_path) -> Store:
    """A copy of it, which takes a tenth of the time that writing takes."""
    return Store(shutil.copytree(written_toys, tmp_path / "store"))
