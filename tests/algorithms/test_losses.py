"""Losses and geometry by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from stages.algorithms.common.losses import (
    BANDWIDTHS,
    arcface,
    distillation,
    median_bandwidths,
    mmd,
    prototypes,
    simplex_etf,
    squared_distances,
)


@given(st.integers(2, 40), st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_class_vectors_are_unit_and_equally_far_apart(classes, seed):
    vectors = simplex_etf(classes, torch.Generator().manual_seed(seed))
    expected = torch.full((classes, classes), -1 / (classes - 1)).fill_diagonal_(1)
    torch.testing.assert_close(vectors @ vectors.T, expected, atol=1e-6, rtol=0)


def test_arcface_of_two_opposite_classes():
    etf = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    at_60_degrees = torch.tensor([[0.5, math.sqrt(3) / 2]]) * 7  # length does not matter
    own, other = math.cos(math.pi / 3 + 0.5), -0.5
    expected = math.log(1 + math.exp(2 * (other - own)))
    assert float(arcface(at_60_degrees, torch.tensor([0]), etf, 0.5, 2.0)) == pytest.approx(expected, rel=1e-6)


def test_arcface_without_margin_is_cross_entropy_of_scaled_cosines():
    generator = torch.Generator().manual_seed(0)
    etf, projections = simplex_etf(4, generator), torch.randn(6, 4, generator=generator)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    expected = F.cross_entropy(10 * F.normalize(projections) @ etf.T, labels)
    torch.testing.assert_close(arcface(projections, labels, etf, 0.0, 10.0), expected)


def test_distillation_is_the_mean_divergence_from_the_teacher():
    student = torch.zeros(2, 2, requires_grad=True)
    teacher = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]], requires_grad=True)  # 3/4 1/4, and as the student
    loss = distillation(student, teacher)
    assert loss.item() == pytest.approx((0.75 * math.log(1.5) + 0.25 * math.log(0.5)) / 2)
    loss.backward()
    torch.testing.assert_close(student.grad, torch.tensor([[-0.125, 0.125], [0.0, 0.0]]))
    assert teacher.grad is None


def test_prototype_is_the_unit_mean_of_unit_projections():
    projections = torch.tensor([[3.0, 0.0], [0.0, 5.0], [-2.0, 0.0]])
    classes, protos = prototypes(projections, torch.tensor([4, 4, 1]), 6)
    assert classes.tolist() == [1, 4]
    torch.testing.assert_close(protos, torch.tensor([[-1.0, 0.0], [0.5**0.5, 0.5**0.5]]))


def test_mmd_of_two_points():
    x, y = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]])  # 25 apart, squared
    expected = 2 - 2 * math.exp(-25 / 20) + 2 - 2 * math.exp(-25 / 100)
    assert float(mmd(x, y, torch.tensor([10.0, 50.0]))) == pytest.approx(expected, rel=1e-6)


@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_mmd_is_symmetric_never_negative_and_zero_for_equal_sets(n, m, seed):
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(n, 3, generator=generator), torch.randn(m, 3, generator=generator)
    bandwidths = torch.tensor([1.0, 5.0])
    assert float(mmd(x, y, bandwidths)) == pytest.approx(float(mmd(y, x, bandwidths)), abs=1e-6)
    assert float(mmd(x, y, bandwidths)) >= -1e-6
    assert abs(float(mmd(x, x.flip(0), bandwidths))) < 1e-6


def test_median_bandwidth_follows_the_scale():
    latents = torch.tensor([[0.0], [1.0], [3.0]])  # squared distances 1, 4, 9
    torch.testing.assert_close(median_bandwidths(latents), torch.tensor([1.0, 2.0, 4.0, 8.0]))
    torch.testing.assert_close(median_bandwidths(10 * latents), 100 * median_bandwidths(latents))


def test_median_bandwidth_keeps_a_gradient_in_thousands_of_dimensions():
    generator = torch.Generator().manual_seed(0)
    latents, x = (
        torch.randn(20, 16384, generator=generator),
        torch.randn(20, 16384, generator=generator, requires_grad=True),
    )
    mmd(x, latents, median_bandwidths(latents)).backward()
    assert x.grad.abs().max() > 1e-6


def test_squared_distances_of_far_points_are_never_negative():
    far = torch.tensor([[1e4, 1e4 + 1.0, 3.0]]) + torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
    assert (squared_distances(far, far) >= 0).all()
    assert mmd(far, far + 0.5, torch.tensor(BANDWIDTHS)).isfinite()


def test_squared_distances():
    a, b = torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([[3.0, 4.0]])
    assert squared_distances(a, b).tolist() == [[25.0], [13.0]]
