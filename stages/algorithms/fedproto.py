"""FedProto (Tan et al., AAAI 2022, arXiv 2105.00243).

Up: the mean feature of each class a client has. Down: their average over the clients, the global prototypes; a class
that nobody sent in the round has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from stages.algorithms.common.batches import Batches
from stages.algorithms.common.class_means import ClassMeans, class_means
from stages.algorithms.common.losses import squared_distances
from stages.algorithms.common.privacy import Protected
from stages.algorithms.common.records import concatenated
from stages.algorithms.common.sgd import SGD, LossAndMetrics
from stages.algorithms.contract import ClientState, Hyperparameters, Metrics, Stateless, Task
from stages.clock import phase
from stages.models.split import SplitModel
from stages.randomness import Rng
from stages.settings import setting


@dataclass(frozen=True)
class Hyper(Protected):
    lambda_: float = setting(
        1.0, "Weight of the pull to the global prototypes.", low=0, source="paper, Section 5, and the authors' code"
    )
    collected: str = setting(
        "training", "Features that a prototype averages: those seen during training, or all computed after it.",
        choices=("training", "after"), source="training: paper, Algorithm 1, and public library",
    )  # fmt: skip
    weighting: str = setting(
        "samples", "Average prototypes over clients by their images of the class, or every client alike.",
        choices=("samples", "uniform"), source="samples: paper; uniform: the public library",
    )  # fmt: skip


@dataclass(frozen=True)
class Upload:
    labels: Tensor  # int64 [k], the classes the client has
    prototypes: Tensor  # float32 [k, feature_dim]
    counts: Tensor  # int64 [k], images behind each prototype


@dataclass(frozen=True)
class Download:
    labels: Tensor  # int64 [M]
    prototypes: Tensor  # float32 [M, feature_dim]


def client_update(
    hyper: Hyper, shared: Task, client: ClientState, download: Download | None, batches: Batches, rng: Rng
) -> tuple[Upload, Metrics]:
    """Cross-entropy + lambda x MSE to the global prototype of each image's class, where there is one."""
    model = client.model.train()
    table, known = dense(shared, download)
    means = ClassMeans(shared.classes, shared.feature_dim, shared.device)

    def objective(x: Tensor, y: Tensor) -> LossAndMetrics:
        features = model.features(x)
        means.add(features.detach(), y)
        loss = F.cross_entropy(model.head(features), y)
        if download is None:
            return loss, {"loss": loss, "pull": torch.zeros_like(loss)}
        targets = torch.where(known[y, None], table[y], features.detach())
        pull = F.mse_loss(features, targets)
        return loss + hyper.lambda_ * pull, {"loss": loss, "pull": pull}

    metrics = SGD(shared.lr, model).minimise(objective, batches.steps(rng))
    if hyper.collected == "training":
        return Upload(*means.result()), metrics
    with phase("prototypes"), torch.no_grad():
        model.eval()
        return mean_features(model, batches, shared), metrics


def mean_features(model: SplitModel, batches: Batches, task: Task) -> Upload:
    means = ClassMeans(task.classes, task.feature_dim, task.device)
    for x, y in batches.once(model):
        means.add(model.features(x), y)
    return Upload(*means.result())


def server_update(
    hyper: Hyper, shared: Task, state: None, uploads: Mapping[int, Upload], rng: Rng
) -> tuple[None, Download, Metrics]:
    """Average each class over the clients that sent it."""
    uploaded = concatenated(uploads.values())
    weights = uploaded.counts.float() if hyper.weighting == "samples" else None
    sent, means, _ = class_means(uploaded.prototypes, uploaded.labels, shared.classes, weights)
    return None, Download(sent, means), {}


def predict(hyper: Hyperparameters, shared: Task, client: ClientState, download: Download | None, x: Tensor) -> Tensor:
    """The nearest global prototype; before there is one, the head."""
    if download is None:
        return client.model(x)
    table, known = dense(shared, download)
    return -squared_distances(client.model.features(x), table).masked_fill(~known, torch.inf)


def dense(task: Task, download: Download | None) -> tuple[Tensor, Tensor]:
    """Global prototypes as a table float32 [C, feature_dim], and which rows are known, bool [C]."""
    table = torch.zeros(task.classes, task.feature_dim, device=task.device)
    known = torch.zeros(task.classes, dtype=torch.bool, device=task.device)
    if download is not None:
        table[download.labels] = download.prototypes
        known[download.labels] = True
    return table, known


ALGORITHM = Stateless(
    "fedproto", "Tan et al., AAAI 2022, arXiv 2105.00243", Hyper=Hyper, Download=Download,
    client_update=client_update, server_update=server_update, predict=predict,
    phases=("prototypes",),
)  # fmt: skip
