"""Clipping and Gaussian noise on uploaded prototypes, and what they promise. Both are off unless asked for.

The unit of privacy is a whole client: all its images may be replaced by others of the same classes. The tempting bound
on a mean of n images, 2 clip / n for one of them, would be wrong here, because the network that computed the features
was trained on that image too, and moves with it all the prototypes of the client. What holds whatever the network
does: a row is no longer than `clip`, so other images move k rows together by 2 clip sqrt(k) at most (Frobenius norm).
Noise of `noise` times that on every number is one Gaussian mechanism of multiplier `noise`; a run is as many of them,
each chosen after the ones before it, as the client joined rounds. The server sees who joined, so that drawing
the clients amplifies nothing.

Not covered: which classes a client has, the counts beside the prototypes, losses and accuracies, and other runs over
the same images, whose losses of privacy add up. The noise is of floats from an ordinary generator.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional as F

from stages.algorithms.common.records import tensors
from stages.algorithms.contract import Hyperparameters
from stages.errors import UserError
from stages.randomness import Rng
from stages.settings import setting

DELTA = 1e-5
LEAST = 0.001  # noise; less protects nothing


@dataclass(frozen=True)
class Protected(Hyperparameters):
    """Hyperparameters of an algorithm that uploads prototypes."""

    clip: float = setting(
        0.0, "Largest length of an uploaded prototype; a longer one is shortened, 0: none is.", low=0, source="off"
    )
    noise: float = setting(
        0.0, "Gaussian noise on uploaded prototypes, times the most that other images could move them; needs clip.",
        low=0, source="off",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noise and not self.clip:
            raise UserError("noise needs a clip, the largest length of a prototype; 1, say.")
        if 0 < self.noise < LEAST:
            raise UserError(f"noise must be 0 or at least {LEAST}; less protects nothing.")

    def released(self, upload: Any, unit_rows: Collection[str], rng: Rng) -> Any:
        """An upload clipped and with noise; unit rows get length 1 again. UserError if other floats would leave with it."""
        if upload is None or not self.clip:
            return upload
        floats = {name for name, value in tensors(upload).items() if value.is_floating_point()}
        if floats != {"prototypes"}:
            raise UserError(
                f"clip and noise protect uploads whose only floats are prototypes; this algorithm's are {_listed(floats)}."
            )
        rows = upload.prototypes
        rows = rows * (self.clip / rows.norm(dim=1, keepdim=True)).clamp(max=1)
        if self.noise:
            drawn = torch.randn(rows.shape, generator=rng.hidden("noise"))
            rows = rows + self.noise * sensitivity(self.clip, len(rows)) * drawn.to(rows.device)
            rows = F.normalize(rows) if "prototypes" in unit_rows else rows
        return replace(upload, prototypes=rows)

    def privacy(self, releases: int) -> dict[str, Any] | None:
        if not (self.noise and releases):
            return None
        return {
            "protects": "prototypes", "unit": "all images of a client, with the same classes", "noise": self.noise,
            "clip": self.clip, "releases": releases, "delta": DELTA, "epsilon": epsilon(self.noise, releases),
        }  # fmt: skip


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def sensitivity(clip: float, rows: int) -> float:
    """How far all rows together move at most, each from one place in a ball of that radius to another."""
    return 2 * clip * math.sqrt(rows)


def epsilon(noise: float, releases: int) -> float | None:
    """Epsilon at DELTA of so many Gaussian mechanisms in a row, by Opacus's accountant; None where that is missing."""
    try:
        from opacus.accountants import RDPAccountant
    except ImportError:
        return None
    accountant = RDPAccountant()
    accountant.history = [(noise, 1.0, releases)]  # nobody is left out by chance: every release counts in full
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a bound this loose could be a little tighter
        return float(accountant.get_epsilon(DELTA))
