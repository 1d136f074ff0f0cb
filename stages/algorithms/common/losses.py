"""Losses and geometry as functions of tensors; L and P are named as in FedKTL (Zhang et al., CVPR 2024)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from stages.algorithms.common.class_means import class_means

BANDWIDTHS = (10.0, 15.0, 20.0, 50.0)  # of the public reference
EDGE = 1 - 1e-6  # arccos has no slope at +-1


def simplex_etf(classes: int, rng: torch.Generator) -> Tensor:
    """A simplex equiangular tight frame float32 [classes, classes] of which the rows are the class vectors.

    Unit rows with pairwise cosine -1/(classes - 1), turned by a random rotation. Float64 inside.
    """
    rotation, _ = torch.linalg.qr(torch.rand(classes, classes, generator=rng, dtype=torch.float64))
    centred = torch.eye(classes, dtype=torch.float64) - 1 / classes
    return F.normalize((rotation @ centred).T * (classes / (classes - 1)) ** 0.5).float()


def arcface(projections: Tensor, labels: Tensor, etf: Tensor, margin: float, scale: float) -> Tensor:
    """ArcFace loss against the fixed class vectors (L^A of the paper; Deng et al., CVPR 2019). Scalar.

    projections float32 [B, C] of any length, labels int64 [B], etf float32 [C, C] unit rows, margin in radians.
    Cosines are clamped before the arccos: a projection exactly on a class vector has a finite gradient.
    """
    cosines = F.normalize(projections) @ etf.T
    own = labels[:, None]
    with_margin = torch.cos(torch.acos(cosines.gather(1, own).clamp(-EDGE, EDGE)) + margin)
    return F.cross_entropy(cosines.scatter(1, own, with_margin) * scale, labels)


def distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) of the class probabilities behind logits float32 [B, C], mean over the batch. Scalar.

    The teacher is given: no gradient reaches it.
    """
    log_teacher = F.log_softmax(teacher.detach(), 1)
    return F.kl_div(F.log_softmax(student, 1), log_teacher, reduction="batchmean", log_target=True)


def prototypes(projections: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Class-wise prototypes P_i^c: unit mean of unit projections.

    projections float32 [n, D], labels int64 [n]. Returns the classes present int64 [k], ascending, and float32 [k, D].
    """
    present, means, _ = class_means(F.normalize(projections), labels, classes)
    return present, F.normalize(means)


def mmd(x: Tensor, y: Tensor, bandwidths: Tensor) -> Tensor:
    """Squared maximum mean discrepancy (L^MMD of the paper) with kernels exp(-|a - b|^2 / 2b) summed over bandwidths.

    x float32 [n, H], y float32 [m, H], bandwidths float32 [k]. Biased V-statistic: diagonals are included. Scalar,
    with a gradient for x only.
    """
    discrepancy: Tensor = MeanDiscrepancy.apply(x, y, bandwidths)
    return discrepancy


class MeanDiscrepancy(torch.autograd.Function):
    """`mmd` with its gradient in closed form, in half the matrix products that autograd would take."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, bandwidths: Tensor) -> Tensor:
        n, m, points = len(x), len(y), torch.cat([x, y])
        weights = torch.cat([x.new_full((n,), 1 / n**2), x.new_full((m,), -2 / (n * m))])  # of a pair (x_i, point_j)
        values, slopes = kernel(squared_distances(x, points), bandwidths)
        within, _ = kernel(squared_distances(y, y), bandwidths)
        pulls = slopes * weights * torch.where(weights > 0, 4, 2)  # x_i and x_j both move
        ctx.save_for_backward(torch.addmm(pulls.sum(1, keepdim=True) * x, pulls, points, alpha=-1))
        return (values * weights).sum() + within.mean()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return gradient * slope, None, None


def kernel(distances: Tensor, bandwidths: Tensor) -> tuple[Tensor, Tensor]:
    """The kernels' sum at squared distances [n, m], and its slope there."""
    rates = -0.5 / bandwidths
    values = (rates[:, None, None] * distances).exp_().flatten(1)
    both = torch.stack([torch.ones_like(rates), rates]) @ values
    return both[0].view_as(distances), both[1].view_as(distances)


def fixed_bandwidths(device: torch.device) -> Callable[[Tensor], Tensor]:
    """The public reference's bandwidths, whatever the latents."""
    bandwidths = torch.tensor(BANDWIDTHS, device=device)
    return lambda latents: bandwidths


def median_bandwidths(latents: Tensor) -> Tensor:
    """Bandwidths that fit the scale of the latents [n, H], n > 1: 1/4, 1/2, 1 and 2 of their median squared distance.

    In thousands of dimensions the fixed bandwidths make every kernel value between distinct points vanish.
    """
    median = F.pdist(latents).square().median()
    return torch.stack([median * factor for factor in (0.25, 0.5, 1.0, 2.0)])


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """|a_i - b_j|^2 for rows of a [n, H] and b [m, H]: float32 [n, m], never below 0 by rounding."""
    return (torch.addmm(b.square().sum(1), a, b.T, alpha=-2) + a.square().sum(1)[:, None]).clamp_(min=0)
