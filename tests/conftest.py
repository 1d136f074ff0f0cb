"""A small federation that every stage's tests share: 4 clients, 5 classes, images that give their class away.

PyTorch is imported by the fixtures: the process that deals the tests to others has no need of it.
"""

import gc
import os
import shutil
import signal
import tempfile
from functools import cache
from pathlib import Path

import pytest
from typer.main import get_command

from stages.artifacts.store import Store

os.environ["OMP_NUM_THREADS"] = "1"  # for PyTorch, which is imported later, here and in processes from here
gc.set_threshold(100_000, 50, 100)  # looking for garbage among all that is imported took a ninth of the time
MEMORY, ROOM = Path("/dev/shm"), 4 << 30


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    """What is promised bit for bit is promised on a CPU, so a GPU is used by the tests that are about it, alone.

    The many small files of the tests lie in memory, where it has room for them, unless --basetemp says otherwise.
    """
    if "gpu" not in (config.getoption("markexpr") or ""):
        os.environ |= {"CUDA_VISIBLE_DEVICES": "", "TRITON_INTERPRET": "1"}  # Triton's kernels run as Python
    if not config.option.basetemp and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM:
        config.option.basetemp = config.files_in_memory = tempfile.mkdtemp(prefix="fedktl-tests-", dir=MEMORY)


def pytest_unconfigure(config):
    gc.collect()
    gc.freeze()  # pytest looks for garbage several times now, among all that was imported
    shutil.rmtree(getattr(config, "files_in_memory", MEMORY / "none"), ignore_errors=True)


def pytest_collection_modifyitems(items):
    import torch

    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a GPU, and to be asked for: pytest -m gpu"))


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Several threads change the order of sums, and slow small models down."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def no_power_cuts():
    """What is written need not outlast one, and waiting for the disk would take much of the time."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("os.fsync", lambda handle: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def one_program():
    """Its commands are read once, not for each command line, for which that takes 25 ms."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("typer.testing._get_command", cache(get_command))
        yield


@pytest.fixture
def undrawn(monkeypatch):
    """Reports without figures, which take most of a report's time."""
    monkeypatch.setattr("stages.reporting.figures.pictures", lambda *groups_and_labels: [])


@pytest.fixture
def signals():
    """What asks to stop has its effect here and on processes started from here, even where pytest itself ignores it."""
    effects = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, effect) for number, effect in effects.items()}
    yield
    for number, effect in before.items():
        signal.signal(number, effect)


@pytest.fixture(scope="session")
def written_toys(tmp_path_factory) -> Path:
    """A store with data `toy` and latents `bank`, not to be written to."""
    from tests.helpers.toy_store import write_toy_data, write_toy_latents

    store = Store(tmp_path_factory.mktemp("toys") / "store")
    write_toy_data(store)
    write_toy_latents(store)
    return store.root


@pytest.fixture
def toy_store(written_toys, tmp_path) -> Store:
    """A copy of it, which takes a tenth of the time that writing takes."""
    return Store(shutil.copytree(written_toys, tmp_path / "store"))
