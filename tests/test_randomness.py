"""Streams depend on their path alone."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.randomness import Rng, seeded

steady = settings(deadline=None, derandomize=True)
# Without "/", which separates parts.
parts = st.integers(-(2**63), 2**63) | st.text(st.characters(codec="utf-8", exclude_characters="/"), max_size=12)
paths = st.lists(parts, max_size=5).map(tuple)
seeds = st.integers(0, 2**64)


@steady
@given(seeds, paths, paths)
def test_a_path_may_be_walked_in_any_steps(seed, first, second):
    whole = Rng(seed, *first, *second).seed("x", 1)
    assert whole == Rng(seed).at(*first).at(*second).seed("x", 1) == Rng(seed).at(*first).seed(*second, "x", 1)
    assert 0 <= whole < 2**63


@steady
@given(seeds, seeds, paths, paths)
def test_other_seeds_and_other_paths_are_other_streams(seed, other, first, second):
    assert (Rng(seed).seed(*first) == Rng(other).seed(*second)) == ((seed, *first) == (other, *second))


@steady
@given(seeds, st.permutations([("round", r, "client", c) for r in range(3) for c in range(3)]))
def test_the_order_of_asking_changes_nothing(seed, order):
    root = Rng(seed)
    drawn = {path: root.at(*path).numpy("batches").integers(0, 2**60) for path in order}
    again = {path: Rng(seed).at(*path).numpy("batches").integers(0, 2**60) for path in sorted(order)}
    assert drawn == again and len(set(drawn.values())) == len(order)


def test_parts_of_different_type_are_different():
    assert len({Rng(0).seed(*path) for path in ((1,), ("1",), (1, ""), ("1", ""), (), ("",))}) == 6
    assert Rng(0, 1).seed() != Rng(0, "1").seed()


def test_parts_do_not_run_together():
    seeds = {Rng(0).seed(*path) for path in (("ab", "c"), ("a", "bc"), ("abc",), (1, 23), (12, 3), (123,))}
    assert len(seeds) == 6


def test_a_seeded_block_draws_what_torch_draws_and_leaves_no_trace(monkeypatch):
    torch.manual_seed(7)
    expected = torch.rand(3)
    before = torch.get_rng_state()
    monkeypatch.setattr("traceback.format_stack", pytest.fail)  # `torch.manual_seed` does it, and takes milliseconds
    with seeded(7):
        assert torch.equal(torch.rand(3), expected)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_same_path_gives_the_same_numbers_on_every_machine():
    """Written down once: a change here changes every result."""
    rng = Rng(0).at("round", 3, "client", 1)
    assert rng.seed("batches") == 5493031611002403572
    assert torch.equal(torch.rand(4, generator=rng.torch("a")), torch.rand(4, generator=rng.torch("a")))
    assert not torch.equal(torch.rand(4, generator=rng.torch("a")), torch.rand(4, generator=rng.torch("b")))
    assert (rng.numpy("a").random(4) == rng.numpy("a").random(4)).all()


def test_no_global_generator_is_touched():
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    rng = Rng(3)
    rng.numpy("a").random(4), torch.rand(4, generator=rng.torch("a"))
    assert before[0] == random.getstate() and before[1] == np.random.get_state()[1].tolist()
    assert torch.equal(before[2], torch.get_rng_state())


def test_streams_look_random():
    """Means of 2000 neighbouring streams stay within 5 standard errors of 1/2."""
    firsts = np.array([Rng(0).at("client", client).numpy().random() for client in range(2000)])
    assert abs(firsts.mean() - 0.5) < 5 * np.sqrt(1 / 12 / 2000)
    assert abs(np.corrcoef(firsts[:-1], firsts[1:])[0, 1]) < 5 / np.sqrt(2000)
