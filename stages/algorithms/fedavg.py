"""FedAvg (McMahan et al., AISTATS 2017, arXiv 1602.05629), for clients of one architecture.

Up: a client's model, BatchNorm's running statistics too. Down: the average of the models, weighted by training images,
from which everyone trains on and which labels images. All start from the same weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.algorithms import local
from stages.algorithms.common.batches import Batches
from stages.algorithms.common.records import tensors
from stages.algorithms.common.weights import Weights, average, copied
from stages.algorithms.contract import Algorithm, ClientState, Metrics, PairSource, Predictor, Task
from stages.errors import UserError
from stages.models.split import SplitModel
from stages.randomness import Rng
from stages.settings import Settings


@dataclass(frozen=True)
class Hyper(Settings):
    """FedAvg has none of its own."""


@dataclass(frozen=True)
class Upload:
    weights: Weights
    count: Tensor  # int64 [], training images


@dataclass(frozen=True)
class Download:
    weights: Weights


def init(hyper: Hyper, task: Task, rng: Rng) -> tuple[None, Task]:
    return None, task


def client_update(
    hyper: Hyper, shared: Task, client: ClientState, download: Download | None, batches: Batches, rng: Rng
) -> tuple[Upload, Metrics]:
    """Local training from the newest average."""
    if download is not None:
        client.model.load_state_dict(download.weights)
    _, metrics = local.client_update(local.Hyper(), shared, client, None, batches, rng)
    return Upload(client.model.state_dict(), torch.tensor(batches.total)), metrics


def server_update(
    hyper: Hyper, shared: Task, state: None, uploads: Mapping[int, Upload], pairs: PairSource | None, rng: Rng
) -> tuple[None, Download, Metrics]:
    uploaded = [uploads[client] for client in sorted(uploads)]
    return None, Download(average([u.weights for u in uploaded], [u.count for u in uploaded])), {}


def predict(hyper: Hyper, shared: Task, client: ClientState, download: Download | None, x: Tensor) -> Tensor:
    """Logits of the newest average."""
    return client.model(x) if download is None else copied(client.model, download.weights)(x)


def predictor(hyper: Hyper, shared: Task, client: ClientState, download: Download | None) -> Predictor:
    return Predictor(tensors={} if download is None else download.weights)


def check(hyper: Hyper, task: Task, models: Sequence[SplitModel]) -> None:
    """Raises UserError unless all models have the same tensors."""
    first, *others = ({name: tensor.shape for name, tensor in tensors(model).items()} for model in models)
    for client, shapes in enumerate(others, 1):
        if shapes != first:
            raise UserError(
                f"fedavg averages whole models, and client {client}'s has another architecture than client 0's; "
                "choose one for all, such as the group CNN."
            )


ALGORITHM = Algorithm(
    "fedavg", "McMahan et al., AISTATS 2017, arXiv 1602.05629", Hyper, Download, init, client_update, server_update,
    predict, check=check, predictor=predictor, same_start=True,
)  # fmt: skip
