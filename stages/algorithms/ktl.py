"""KTL, the cloud-edge scheme of FedKTL (Zhang et al., CVPR 2024, arXiv 2403.15760): one client, no federation.

The client uploads its prototypes, the server aligns them with its generator's latents and sends pairs back: the same
loop as FedKTL's, for a single client with few images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from stages.algorithms import fedktl_reference
from stages.algorithms.contract import Task
from stages.errors import UserError
from stages.models.split import SplitModel
from stages.settings import setting


@dataclass(frozen=True)
class Hyper(fedktl_reference.Hyper):
    """FedKTL's, except for the centroids.

    A single client has one prototype a class, and BatchNorm's running statistics of ten prototypes lag behind them: class
    means taken with these statistics grew from round to round until the run diverged.
    """

    centroids: str = setting(
        "trained", "Class centroids: means of transformed prototypes, or a table trained by Adam.",
        choices=("mean", "trained"), source="reference",
    )  # fmt: skip


def single_client(hyper: fedktl_reference.Hyper, task: Task, models: Sequence[SplitModel]) -> None:
    if task.clients != 1:
        raise UserError(
            f"ktl serves one client, and the data has {task.clients}; use fedktl, or data prepared with `clients=1`."
        )


ALGORITHM = replace(fedktl_reference.ALGORITHM, name="ktl", Hyper=Hyper, check=single_client)
