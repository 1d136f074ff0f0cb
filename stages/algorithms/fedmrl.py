"""FedMRL (Yi et al., NeurIPS 2024, arXiv 2406.00488).

A client's features and those of a small auxiliary model are fused by a projection of its own into a Matryoshka
representation: its first part goes to the auxiliary head, the whole to the client's. Up and down: the auxiliary model,
averaged by training images.

The public library never stores the projection it trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stages.algorithms.common.batches import Batches
from stages.algorithms.common.sgd import SGD, LossAndMetrics
from stages.algorithms.common.weights import (
    Download,
    Upload,
    auxiliary,
    average,
    called_with,
    copied,
    weighted_average,
)
from stages.algorithms.contract import Algorithm, ClientState, Hyperparameters, Metrics, Task
from stages.models.split import SplitModel
from stages.randomness import Rng, seeded
from stages.settings import WIDEST, setting


@dataclass(frozen=True)
class Hyper(Hyperparameters):
    sub_feature_dim: int = setting(
        128, "Width of the auxiliary model's features; at most that of the clients'.", low=1, high=WIDEST,
        source="public library",
    )  # fmt: skip
    auxiliary: str = setting("FedAvgCNN", "Architecture of the auxiliary model.", source="public library")
    weighting: str = setting(
        "samples", "Average auxiliary models over clients by their training images, or every client alike.",
        choices=("samples", "uniform"), source="samples: paper; uniform: public library",
    )  # fmt: skip


@dataclass(frozen=True)
class Shared:
    task: Task
    start: SplitModel  # the auxiliary model before the first round
    projection: nn.Linear  # start of every client's projection


def init(hyper: Hyper, task: Task, rng: Rng) -> tuple[None, Shared]:
    width = min(hyper.sub_feature_dim, task.feature_dim)
    with seeded(rng.seed("projection")):
        projection = nn.Linear(width + task.feature_dim, task.feature_dim).to(task.device)
    return None, Shared(task, auxiliary(hyper.auxiliary, task, rng, width), projection)


def client_update(
    hyper: Hyper, shared: Shared, client: ClientState, download: Download | None, batches: Batches, rng: Rng
) -> tuple[Upload, Metrics]:
    """Cross-entropy of both heads on their part of the representation."""
    model, small = client.model, copied(shared.start, download.weights if download else None)
    projection = copied(shared.projection, client.private or None)
    model.train()
    small.train()

    def objective(x: Tensor, y: Tensor) -> LossAndMetrics:
        logits, small_logits = both(model, small, projection, x)
        loss, small_loss = F.cross_entropy(logits, y), F.cross_entropy(small_logits, y)
        return loss + small_loss, {"loss": loss, "auxiliary": small_loss}

    metrics = SGD(shared.task.lr, model, small, projection).minimise(objective, batches.steps(rng))
    client.private = dict(projection.state_dict())
    return Upload(small.state_dict(), torch.tensor(batches.total)), metrics


def both(model: SplitModel, small: SplitModel, projection: nn.Linear, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of the client's head and of the auxiliary head."""
    general = small.features(x)
    fused = projection(torch.cat([general, model.features(x)], 1))
    return model.head(fused), small.head(fused[:, : general.shape[1]])


def server_update(
    hyper: Hyper, shared: Shared, state: None, uploads: Mapping[int, Upload], rng: Rng
) -> tuple[None, Download, Metrics]:
    if hyper.weighting == "samples":
        return None, Download(weighted_average(uploads)), {}
    return None, Download(average([upload.weights for upload in uploads.values()])), {}


def predict(hyper: Hyper, shared: Shared, client: ClientState, download: Download | None, x: Tensor) -> Tensor:
    """Logits of the client's head, with the auxiliary model as it was sent last."""
    sent = {} if download is None else download.weights
    base = {name.removeprefix("base."): weight for name, weight in sent.items() if name.startswith("base.")}
    general = called_with(shared.start.base.eval(), base, x)
    fused = called_with(shared.projection, client.private, torch.cat([general, client.model.features(x)], 1))
    return client.model.logits(fused)


ALGORITHM = Algorithm(
    "fedmrl", "Yi et al., NeurIPS 2024, arXiv 2406.00488", Hyper=Hyper, Download=Download, init=init,
    client_update=client_update, server_update=server_update, predict=predict,
)  # fmt: skip
