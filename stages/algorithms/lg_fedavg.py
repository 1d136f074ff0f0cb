"""LG-FedAvg (Liang et al., 2020, arXiv 2001.01523).

Clients keep their feature extractors and share the head. Up: a client's head. Down: the average of the heads,
weighted by training images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.algorithms import local
from stages.algorithms.contract import Algorithm, Batches, ClientState, Metrics, PairSource, Task
from stages.algorithms.sharing import Weights, average, linear_heads, predict_with_head, sent_head
from stages.randomness import Rng
from stages.settings import Settings


@dataclass(frozen=True)
class Hyper(Settings):
    """LG-FedAvg has none of its own."""


@dataclass(frozen=True)
class Upload:
    head: Weights
    count: Tensor  # int64 [], training images


@dataclass(frozen=True)
class Download:
    head: Weights


def init(hyper: Hyper, task: Task, rng: Rng) -> tuple[None, Task]:
    return None, task


def client_update(
    hyper: Hyper, shared: Task, client: ClientState, download: Download | None, batches: Batches, rng: Rng
) -> tuple[Upload, Metrics]:
    """Local training from the average head; in the first round, from the client's own."""
    if download is not None:
        client.model.head.load_state_dict(download.head)
    _, metrics = local.client_update(local.Hyper(), shared, client, None, batches, rng)
    return Upload(client.model.head.state_dict(), torch.tensor(len(batches.labels))), metrics


def server_update(
    hyper: Hyper, shared: Task, state: None, uploads: Mapping[int, Upload], pairs: PairSource | None, rng: Rng
) -> tuple[None, Download, Metrics]:
    uploaded = [uploads[client] for client in sorted(uploads)]
    return None, Download(average([u.head for u in uploaded], [u.count for u in uploaded])), {}


ALGORITHM = Algorithm(
    "lg-fedavg", "Liang et al., 2020, arXiv 2001.01523", Hyper, Download, init, client_update, server_update,
    predict_with_head, predictor=sent_head, check=lambda hyper, task, models: linear_heads("lg-fedavg", task, models),
)  # fmt: skip
