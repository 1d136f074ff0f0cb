"""FedGH (Yi et al., ACM MM 2023, arXiv 2303.13137).

Up: the mean feature of each class a client has. The server trains one global head on them. Down: that head, which
takes the place of every client's own.

The paper trains on one feature after the other, once. The tables of FedKTL's paper were made with one pass in batches
of 10, the clients' batch size; today the public library takes 100 unless told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stages.algorithms import local
from stages.algorithms.common import one_head
from stages.algorithms.common.batches import Batches, passes
from stages.algorithms.common.one_head import Download, Shared
from stages.algorithms.common.privacy import Protected
from stages.algorithms.common.records import concatenated
from stages.algorithms.common.sgd import SGD, LossAndMetrics
from stages.algorithms.common.weights import copied
from stages.algorithms.contract import Algorithm, ClientState, Metrics, Task
from stages.algorithms.fedproto import Upload, mean_features
from stages.clock import phase
from stages.randomness import Rng
from stages.settings import setting


@dataclass(frozen=True)
class Hyper(one_head.Hyper, Protected):
    server_lr: float = setting(0.01, "Learning rate of the global head.", above=0, source="paper; public library")
    server_epochs: int = setting(1, "Passes over the uploaded features per round.", low=1, source="paper")
    server_batch_size: int = setting(1, "Features per step of the server.", low=1, source="paper")


@dataclass
class ServerState:
    head: nn.Linear


def init(hyper: Hyper, task: Task, rng: Rng) -> tuple[ServerState, Shared]:
    return ServerState(one_head.drawn(task, rng)), Shared(task, one_head.first(hyper, task, rng))


def client_update(
    hyper: Hyper, shared: Shared, client: ClientState, download: Download | None, batches: Batches, rng: Rng
) -> tuple[Upload, Metrics]:
    """Local training from the global head, then the mean feature of each class."""
    one_head.take(client, shared, download)
    _, metrics = local.client_update(hyper, shared.task, client, None, batches, rng)
    with phase("prototypes"), torch.no_grad():
        client.model.eval()
        return mean_features(client.model, batches, shared.task), metrics


def server_update(
    hyper: Hyper, shared: Shared, state: ServerState, uploads: Mapping[int, Upload], rng: Rng
) -> tuple[ServerState, Download, Metrics]:
    uploaded = concatenated(uploads.values())
    with phase("alignment"):
        loss = train_head(hyper, state.head, uploaded.prototypes, uploaded.labels, rng)
    return state, Download(copied(state.head).state_dict()), {"head": loss}


def train_head(hyper: Hyper, head: nn.Linear, features: Tensor, labels: Tensor, rng: Rng) -> Tensor:
    """SGD on features float32 [P, feature_dim] of classes int64 [P]; the mean loss of the last pass."""
    total = torch.zeros((), device=features.device)

    def objective(some: Tensor, classes: Tensor) -> LossAndMetrics:
        loss = F.cross_entropy(head(some), classes)
        total.add_(loss.detach(), alpha=len(classes))
        return loss, {}

    drawn = passes((features, labels), hyper.server_batch_size, hyper.server_epochs, rng.torch("order"), total.zero_)
    SGD(hyper.server_lr, head).minimise(objective, drawn)
    return total / len(labels)


ALGORITHM = Algorithm(
    "fedgh", "Yi et al., ACM MM 2023, arXiv 2303.13137", Hyper=Hyper, Download=Download, init=init,
    client_update=client_update, server_update=server_update, predict=one_head.predict, check=one_head.check,
    phases=("prototypes", "alignment"),
    server_metrics={"head": "loss of the global head"},
)  # fmt: skip
