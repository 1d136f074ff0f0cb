"""FedKTL with a transfer that waits for the task: gentle, and only as far as the task is learned.

In the paper a pair pulls at a client's features with the same weight from the first step to the last. A client that
takes few steps then fits latents instead of its own labels: in a federation of handwritten digits the paper's weight,
a learned head and a hundred pairs a class end far below training alone. Here the gradient that a pair has at its feature is

- no longer than `pull`, about as long as the gradient that a wrongly classified image has there at first, and
- multiplied by p^gate, p being the geometric mean of the probabilities that the batch's true classes get.

So a client begins as if alone, and the pairs take hold where its own images have no more to teach. Two gradients of
different tasks are often brought to one scale (GradNorm: Chen et al., ICML 2018, arXiv 1711.02257); this rule needs no
trained weights and no second backward pass. Meant for many pairs: `--pairs-per-class 100`. Evidence:
`tests/benchmarks/README.md`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from stages.algorithms import fedktl, fedktl_reference
from stages.algorithms.contract import Algorithm
from stages.settings import setting


@dataclass(frozen=True)
class Hyper(fedktl_reference.Hyper):
    etf: bool = setting(False, "ETF classifier and ArcFace; off: learned head, cross-entropy.", source="fedktl")
    gate: float = setting(
        10.0,
        "Power of the true classes' probability that weighs the transfer; 0: always in full.",
        low=0,
        source="fedktl",
    )
    pull: float = setting(
        0.5, "Largest gradient of a pair at its feature, times the batch size.", above=0, source="fedktl"
    )

    def received(self, features: Tensor, loss: Tensor) -> Tensor:
        """The pairs' features, whose gradient (float32 [B, F]) is shortened and weighed on its way to the model."""
        gate, longest = torch.exp(-self.gate * loss.detach()), self.pull / len(features)

        def gently(gradient: Tensor) -> Tensor:
            lengths = gradient.norm(dim=1, keepdim=True).clamp(min=torch.finfo(gradient.dtype).tiny)
            shortened: Tensor = gradient * (longest / lengths).clamp(max=1)
            return shortened * gate

        features.register_hook(gently)
        return features


gated = cast(
    "Algorithm[Hyper, fedktl.Shared, fedktl.ServerState, fedktl.Upload, fedktl.Download]", fedktl_reference.ALGORITHM
)
ALGORITHM = replace(gated, name="fedktl-gated", source="FedKTL; the gate is this program's own", Hyper=Hyper)
