"""Freed memory goes back to the system."""

import subprocess
import sys

import pytest
import torch

from stages import memory
from tests.helpers.memory import resident

# A large block freed makes glibc keep larger ends of heaps; the blocks of the thread are what Zarr's threads leave.
THREAD = """
import sys, threading
from stages import memory
from stages.artifacts.store import Store
from tests.helpers.memory import resident
Store(".")
large = b"x" * (30 << 20)
del large
thread = threading.Thread(target=lambda: [b"x" * 25_000 for _ in range(1600)] and None)
before = resident()
thread.start()
thread.join()
memory.give_back()
sys.exit(resident() > before + 4e6)
"""


@pytest.mark.skipif(memory.GLIBC is None, reason="needs glibc's mallinfo2")
def test_pages_of_freed_tensors_go_back_though_a_later_tensor_lives():
    tensors = [torch.zeros(25_000) for _ in range(1000)]  # 100 MB in blocks too small to be mapped one by one
    last = tensors.pop()
    del tensors
    before = resident()
    memory.give_back()
    assert resident() < before - 80e6
    assert last.sum() == 0


@pytest.mark.skipif(memory.GLIBC is None, reason="needs glibc's mallinfo2")
def test_pages_that_a_thread_freed_go_back_too():
    subprocess.run([sys.executable, "-c", THREAD], check=True)


@pytest.mark.skipif(memory.GLIBC is None, reason="needs glibc's mallinfo2")
def test_a_few_free_pages_are_kept_for_what_comes_next(monkeypatch):
    monkeypatch.setattr(memory, "SHARE", 1e9)
    monkeypatch.setattr(memory.GLIBC, "malloc_trim", lambda pad: pytest.fail("trimmed"))
    memory.give_back()


def test_without_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr(memory, "GLIBC", None)
    memory.share_heap()
    memory.give_back()
