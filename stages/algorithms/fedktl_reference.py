"""FedKTL with what its public reference implementation does differently from the paper, each as a setting that is off.

This is what the name `fedktl` stands for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from stages.algorithms import fedktl
from stages.algorithms.common.losses import median_bandwidths
from stages.algorithms.common.records import concatenated
from stages.algorithms.contract import Algorithm, Metrics, PairSource
from stages.algorithms.fedktl import Download, ServerState, Shared, Upload
from stages.clock import phase
from stages.randomness import Rng
from stages.settings import setting


@dataclass(frozen=True)
class Hyper(fedktl.Hyper):
    centroids: str = setting(
        "mean", "Class centroids: means of transformed prototypes, or a table trained by Adam.",
        choices=("mean", "trained"), source="mean: paper; trained: what the reference computes",
    )  # fmt: skip
    mmd_bandwidth: str = setting(
        "reference", "Bandwidths of the MMD kernels: the reference's, or scaled to the latents.",
        choices=("reference", "median"), source="reference",
    )  # fmt: skip
    statistics: str = setting(
        "own", "The images that BatchNorm's running statistics follow: a client's own, or the pairs' as well.",
        choices=("own", "both"), source="both: what the reference computes",
    )  # fmt: skip

    def bandwidths(self, device: torch.device) -> Callable[[Tensor], Tensor]:
        return median_bandwidths if self.mmd_bandwidth == "median" else super().bandwidths(device)

    def tracks_pairs(self) -> bool:
        return self.statistics == "both"


def server_update(
    hyper: Hyper, shared: Shared, state: ServerState, uploads: Mapping[int, Upload], pairs: PairSource, rng: Rng
) -> tuple[ServerState, Download, Metrics]:
    """The paper's; or the trained table as it is, with a pair for every row, uploaded or not."""
    if hyper.centroids == "mean":
        return fedktl.server_update(hyper, shared, state, uploads, pairs, rng)
    uploaded = concatenated(uploads.values())
    state.seen[uploaded.labels.cpu()] = True
    with phase("alignment"):
        metrics = fedktl.align(hyper, state, uploaded, pairs, rng)
    return state, fedktl.pairs_of(state, torch.arange(len(state.centroids)), pairs), metrics


paper = cast(
    "Algorithm[Hyper, Shared, ServerState, Upload, Download]", fedktl.ALGORITHM
)  # its functions take any Hyper
ALGORITHM = replace(paper, Hyper=Hyper, paired_server_update=server_update)
