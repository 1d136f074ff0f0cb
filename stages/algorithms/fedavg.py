"""FedAvg (McMahan et al., AISTATS 2017, arXiv 1602.05629), for clients of one architecture.

Up: a client's model, BatchNorm's running statistics too. Down: the average of the models, weighted by training images:
everyone trains on from it, and it labels images. All start from the same weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from stages.algorithms import local
from stages.algorithms.common.batches import Batches
from stages.algorithms.common.records import tensors
from stages.algorithms.common.weights import Download, Upload, called_with, weighted_average
from stages.algorithms.contract import ClientState, Hyperparameters, Metrics, Stateless, Task
from stages.errors import UserError
from stages.models.split import SplitModel
from stages.randomness import Rng


def client_update(
    hyper: Hyperparameters, shared: Task, client: ClientState, download: Download | None, batches: Batches, rng: Rng
) -> tuple[Upload, Metrics]:
    """Local training from the newest average."""
    if download is not None:
        client.model.load_state_dict(download.weights)
    _, metrics = local.client_update(hyper, shared, client, None, batches, rng)
    return Upload(client.model.state_dict(), torch.tensor(batches.total)), metrics


def server_update(
    hyper: Hyperparameters, shared: Task, state: None, uploads: Mapping[int, Upload], rng: Rng
) -> tuple[None, Download, Metrics]:
    return None, Download(weighted_average(uploads)), {}


def predict(hyper: Hyperparameters, shared: Task, client: ClientState, download: Download | None, x: Tensor) -> Tensor:
    """Logits of the newest average; before there is one, of the client's own model."""
    return called_with(client.model, {} if download is None else download.weights, x)


def check(hyper: Hyperparameters, task: Task, models: Sequence[SplitModel]) -> None:
    """Raises UserError unless all models have the same tensors."""
    first, *others = ({name: tensor.shape for name, tensor in tensors(model).items()} for model in models)
    for client, shapes in enumerate(others, 1):
        if shapes != first:
            raise UserError(
                f"fedavg averages whole models, and client {client}'s has another architecture than client 0's; "
                "choose one for all, such as the group CNN."
            )


ALGORITHM = Stateless(
    "fedavg", "McMahan et al., AISTATS 2017, arXiv 1602.05629", Download=Download, client_update=client_update,
    server_update=server_update, predict=predict, check=check, same_start=True,
)  # fmt: skip
