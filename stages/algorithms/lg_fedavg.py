"""LG-FedAvg (Liang et al., 2020, arXiv 2001.01523).

Clients keep their feature extractors and share the head. Up: a client's head. Down: the average of the heads,
weighted by training images. All start from one head.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from stages.algorithms import local
from stages.algorithms.common import one_head
from stages.algorithms.common.batches import Batches
from stages.algorithms.common.one_head import Download, Hyper, Shared
from stages.algorithms.common.weights import Upload, weighted_average
from stages.algorithms.contract import Algorithm, ClientState, Metrics, Task
from stages.randomness import Rng


def init(hyper: Hyper, task: Task, rng: Rng) -> tuple[None, Shared]:
    return None, Shared(task, one_head.first(hyper, task, rng))


def client_update(
    hyper: Hyper, shared: Shared, client: ClientState, download: Download | None, batches: Batches, rng: Rng
) -> tuple[Upload, Metrics]:
    """Local training from the newest head."""
    one_head.take(client, shared, download)
    _, metrics = local.client_update(hyper, shared.task, client, None, batches, rng)
    return Upload(client.model.head.state_dict(), torch.tensor(batches.total)), metrics


def server_update(
    hyper: Hyper, shared: Shared, state: None, uploads: Mapping[int, Upload], rng: Rng
) -> tuple[None, Download, Metrics]:
    return None, Download(weighted_average(uploads)), {}


ALGORITHM = Algorithm(
    "lg-fedavg", "Liang et al., 2020, arXiv 2001.01523", Hyper=Hyper, Download=Download, init=init,
    client_update=client_update, server_update=server_update, predict=one_head.predict, check=one_head.check,
    
)  # fmt: skip
