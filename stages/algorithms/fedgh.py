"""FedGH (Yi et al., ACM MM 2023, arXiv 2303.13137).

Up: the mean feature of each class a client has. The server trains one global head on them. Down: that head, which
takes the place of every client's own.

The paper trains on one feature after the other, once (`server_epochs=1`, `server_batch_size=1`); the public library,
from which the published tables come, takes 100 passes in batches of 10.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stages.algorithms import local
from stages.algorithms.contract import Algorithm, Batches, ClientState, Metrics, PairSource, Task
from stages.algorithms.descent import Descent
from stages.algorithms.fedproto import Upload, class_means
from stages.algorithms.sharing import Weights, copied, linear_heads, predict_with_head, sent_head
from stages.clock import phase
from stages.randomness import Rng, seeded
from stages.settings import Settings, setting


@dataclass(frozen=True)
class Hyper(Settings):
    server_lr: float = setting(0.01, "Learning rate of the global head.", above=0, source="paper; public library")
    server_epochs: int = setting(
        100, "Passes over the uploaded features per round.", low=1, source="public library; the paper takes one"
    )
    server_batch_size: int = setting(
        10, "Features per step of the server.", low=1, source="public library; the paper takes one"
    )


@dataclass(frozen=True)
class Download:
    head: Weights


@dataclass
class ServerState:
    head: nn.Linear


def init(hyper: Hyper, task: Task, rng: Rng) -> tuple[ServerState, Task]:
    with seeded(rng.seed("head")):
        head = nn.Linear(task.feature_dim, task.classes).to(task.device)
    return ServerState(head), task


def client_update(
    hyper: Hyper, shared: Task, client: ClientState, download: Download | None, batches: Batches, rng: Rng
) -> tuple[Upload, Metrics]:
    """Local training from the global head, then the mean feature of each class."""
    if download is not None:
        client.model.head.load_state_dict(download.head)
    _, metrics = local.client_update(local.Hyper(), shared, client, None, batches, rng)
    with phase("prototypes"), torch.no_grad():
        client.model.eval()
        return class_means(client.model, batches, shared), metrics


def server_update(
    hyper: Hyper, shared: Task, state: ServerState, uploads: Mapping[int, Upload], pairs: PairSource | None, rng: Rng
) -> tuple[ServerState, Download, Metrics]:
    features = torch.cat([uploads[client].prototypes for client in sorted(uploads)])
    labels = torch.cat([uploads[client].labels for client in sorted(uploads)])
    with phase("alignment"):
        loss = train_head(hyper, state.head, features, labels, rng)
    return state, Download(copied(state.head).state_dict()), {"head": loss}


def train_head(hyper: Hyper, head: nn.Linear, features: Tensor, labels: Tensor, rng: Rng) -> Tensor:
    """SGD on features float32 [P, feature_dim] of classes int64 [P]; the mean loss of the last pass."""
    descent, order_rng = Descent(hyper.server_lr, head), rng.torch("order")
    for _ in range(hyper.server_epochs):
        total = torch.zeros((), device=features.device)
        for rows in torch.randperm(len(labels), generator=order_rng).to(labels.device).split(hyper.server_batch_size):
            loss = F.cross_entropy(head(features[rows]), labels[rows])
            descent.step(loss)
            total += len(rows) * loss.detach()
    return total / len(labels)


ALGORITHM = Algorithm(
    "fedgh", "Yi et al., ACM MM 2023, arXiv 2303.13137", Hyper, Download, init, client_update, server_update,
    predict_with_head, predictor=sent_head, check=lambda hyper, task, models: linear_heads("fedgh", task, models),
)  # fmt: skip
