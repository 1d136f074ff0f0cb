"""Freed memory goes back to the system."""

from pathlib import Path

import pytest
import torch

from stages import memory


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


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
def test_a_few_free_pages_are_kept_for_what_comes_next(monkeypatch):
    monkeypatch.setattr(memory, "SHARE", 1e9)
    monkeypatch.setattr(memory.GLIBC, "malloc_trim", lambda pad: pytest.fail("trimmed"))
    memory.give_back()


def test_without_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr(memory, "GLIBC", None)
    memory.share_heap()
    memory.give_back()
