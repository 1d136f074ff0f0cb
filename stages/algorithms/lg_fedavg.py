"""LG-FedAvg (Liang et al., 2020, arXiv 2001.01523).

Clients keep their feature extractors and share the head. Up: a client's head. Down: the average of the heads,
weighted by training images. All start from one head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.algorithms import local
from stages.algorithms.common import one_head
from stages.algorithms.common.batches import Batches
from stages.algorithms.common.one_head import Shared
from stages.algorithms.common.weights import Weights, average
from stages.algorithms.contract import Algorithm, ClientState, Metrics, PairSource, Task
from stages.randomness import Rng


@dataclass(frozen=True)
class Hyper(one_head.Hyper):
    """LG-FedAvg has none of its own."""


@dataclass(frozen=True)
class Upload:
    head: Weights
    count: Tensor  # int64 [], training images


@dataclass(frozen=True)
class Download:
    head: Weights


def init(hyper: Hyper, task: Task, rng: Rng) -> tuple[None, Shared]:
    return None, Shared(task, one_head.first(hyper, task, rng))


def client_update(
    hyper: Hyper, shared: Shared, client: ClientState, download: Download | None, batches: Batches, rng: Rng
) -> tuple[Upload, Metrics]:
    """Local training from the newest head."""
    one_head.take(client, shared, download)
    _, metrics = local.client_update(local.Hyper(), shared.task, client, None, batches, rng)
    return Upload(client.model.head.state_dict(), torch.tensor(batches.total)), metrics


def server_update(
    hyper: Hyper, shared: Shared, state: None, uploads: Mapping[int, Upload], pairs: PairSource | None, rng: Rng
) -> tuple[None, Download, Metrics]:
    uploaded = [uploads[client] for client in sorted(uploads)]
    return None, Download(average([u.head for u in uploaded], [u.count for u in uploaded])), {}


ALGORITHM = Algorithm(
    "lg-fedavg", "Liang et al., 2020, arXiv 2001.01523", Hyper, Download, init, client_update, server_update,
    one_head.predict, check=lambda hyper, task, models: one_head.check("lg-fedavg", task, models),
    predictor=one_head.predictor,
)  # fmt: skip
