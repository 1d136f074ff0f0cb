"""Federated distillation, FD or FedDistill (Jeong et al., 2018, arXiv 1811.11479).

Up: the mean class probabilities that a client's model gave the images of each class. Down: their average over the
clients. A client takes its own part out of the average, so that it learns from the others only.

The public library averages logits and leaves out the softmax over them, so that the loss has no lower bound and runs
diverge; it also leaves a client's own part in (`own_part=on`). Here probabilities travel, as in the paper, and a class
that no other client has sent is not distilled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from stages.algorithms.common.batches import Batches
from stages.algorithms.common.class_means import ClassMeans, class_means
from stages.algorithms.common.sgd import SGD, LossAndMetrics
from stages.algorithms.contract import ClientState, Hyperparameters, Metrics, Stateless, Task
from stages.randomness import Rng
from stages.settings import setting


@dataclass(frozen=True)
class Hyper(Hyperparameters):
    own_part: bool = setting(
        False, "Leave a client's own part in the average it learns from.", source="off: paper; on: public library"
    )
    gamma: float = setting(1.0, "Weight of the distillation.", low=0, source="public library; the paper leaves it open")


@dataclass(frozen=True)
class Upload:
    labels: Tensor  # int64 [k], the classes the client has
    outputs: Tensor  # float32 [k, C], mean probabilities over the images of each class
    receipt: Tensor  # int64 [], a number of the client's choice


@dataclass(frozen=True)
class Download:
    labels: Tensor  # int64 [M], the classes that were sent
    outputs: Tensor  # float32 [M, C], average over the senders
    senders: Tensor  # int64 [M], how many clients sent the class
    receipts: Tensor  # int64 [K], whose uploads arrived


def client_update(
    hyper: Hyper, shared: Task, client: ClientState, download: Download | None, batches: Batches, rng: Rng
) -> tuple[Upload, Metrics]:
    """Cross-entropy + gamma x cross-entropy with the others' output for the image's class; outputs are kept as they
    come up in training (Algorithm 1)."""
    model = client.model.train()
    teachers, known = teachers_of(hyper, shared, client, download)
    means = ClassMeans(shared.classes, shared.classes, shared.device)

    def objective(x: Tensor, y: Tensor) -> LossAndMetrics:
        logits = model(x)
        loss = F.cross_entropy(logits, y)
        distance = (known[y] * F.cross_entropy(logits, teachers[y], reduction="none")).mean()
        means.add(logits.detach().softmax(1), y)
        return loss + hyper.gamma * distance, {"loss": loss, "distillation": distance}

    metrics = SGD(shared.lr, model).minimise(objective, batches.steps(rng))
    labels, outputs, _ = means.result()
    upload = Upload(labels, outputs, torch.tensor(rng.seed("receipt"), device=shared.device))
    client.private = {"labels": upload.labels, "outputs": upload.outputs, "receipt": upload.receipt}
    return upload, metrics


def teachers_of(hyper: Hyper, task: Task, client: ClientState, download: Download | None) -> tuple[Tensor, Tensor]:
    """The average output per class, float32 [C, C], without the client's own part, and for which classes there is one, bool [C]."""
    sums = torch.zeros(task.classes, task.classes, device=task.device)
    senders = torch.zeros(task.classes, device=task.device)
    if download is not None:
        sums[download.labels] = download.outputs * download.senders[:, None]
        senders[download.labels] = download.senders.float()
        sent = client.private
        if sent and not hyper.own_part and bool((download.receipts == sent["receipt"]).any()):
            sums[sent["labels"]] -= sent["outputs"]
            senders[sent["labels"]] -= 1
    return sums.clamp(min=0) / senders.clamp(min=1)[:, None], senders > 0


def server_update(
    hyper: Hyper, shared: Task, state: None, uploads: Mapping[int, Upload], rng: Rng
) -> tuple[None, Download, Metrics]:
    """Average each class over the clients that sent it, every client alike."""
    uploaded = list(uploads.values())
    labels = torch.cat([upload.labels for upload in uploaded])
    outputs = torch.cat([upload.outputs for upload in uploaded])
    receipts = torch.stack([upload.receipt for upload in uploaded])
    return None, Download(*class_means(outputs, labels, shared.classes), receipts), {}


ALGORITHM = Stateless(
    "fd", "Jeong et al., 2018, arXiv 1811.11479", Hyper=Hyper, Download=Download, client_update=client_update,
    server_update=server_update, unit_rows=("outputs",),
)  # fmt: skip
