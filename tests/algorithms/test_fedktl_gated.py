"""The gate of FedKTL's transfer: how far pairs pull, by hand, and FedKTL itself when it stands wide open."""

import math

import pytest
import torch

from stages.algorithms.fedktl_gated import Hyper
from tests.helpers.toy_runs import planned, played, same, weights


def gradient_through(hyper, given, loss):
    """What is left of the gradient `given` [B, F] of the pairs' features."""
    features = torch.zeros(given.shape, requires_grad=True)
    (hyper.received(features * 1.0, torch.tensor(loss)) * given).sum().backward()
    return features.grad


def test_a_pairs_pull_is_shortened_to_its_bound_and_a_shorter_one_is_left():
    given = torch.tensor([[3.0, 4.0], [0.03, -0.04], [0.0, 0.0]])
    left = gradient_through(Hyper(pull=0.5, gate=0), given, loss=2.0)
    longest = 0.5 / 3
    expected = torch.tensor([[0.6 * longest, 0.8 * longest], [0.03, -0.04], [0.0, 0.0]])
    torch.testing.assert_close(left, expected)


@pytest.mark.parametrize("loss", [0.0, 0.1, math.log(10)])
def test_it_is_weighed_by_a_power_of_the_probability_of_the_true_classes(loss):
    left = gradient_through(Hyper(pull=1e6, gate=10), torch.tensor([[1.0, -2.0]]), loss)
    probability = math.exp(-loss)
    torch.testing.assert_close(left, probability**10 * torch.tensor([[1.0, -2.0]]))


def test_the_value_of_the_transfer_and_the_training_of_its_projection_are_fedktls():
    features, projection = torch.randn(4, 3, requires_grad=True), torch.nn.Linear(3, 2)
    received = Hyper(pull=1e-3).received(features * 1.0, torch.tensor(1.0))
    (of_gated,) = torch.autograd.grad(projection(received).square().mean(), projection.weight)
    (expected,) = torch.autograd.grad(projection(features).square().mean(), projection.weight)
    assert torch.equal(of_gated, expected) and torch.equal(received, features)


def test_wide_open_it_is_fedktl_with_a_learned_head(toy_store):
    _, opened = played(planned(toy_store, "fedktl-gated", hyper={"gate": 0, "pull": 1e6, "server_epochs": 2}))
    _, plain = played(planned(toy_store, "fedktl", hyper={"etf": False}))
    assert same(weights(opened), weights(plain))


def test_shut_it_is_no_transfer(toy_store):
    """Up to rounding, which differs when two batches share a pass; without dropout, which draws for both."""
    of = {"models": "tests.helpers.toys:tiny"}
    _, gated = played(planned(toy_store, "fedktl-gated", hyper={"gate": 1e6, "server_epochs": 2}, **of))
    _, alone = played(planned(toy_store, "fedktl", hyper={"etf": False, "transfer": False}, **of))
    torch.testing.assert_close(weights(gated), weights(alone), rtol=1e-4, atol=1e-5)
