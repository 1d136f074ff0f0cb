"""Federated Mutual Learning, FML (Shen et al., 2020, arXiv 2006.16765).

Every client trains its own model and a copy of a shared auxiliary model (the paper's meme model), each learning from
the other's predictions. Up and down: the auxiliary model, averaged over the clients.

As in deep mutual learning the teacher is given, and the divergence is the mean over the images. The public library lets
the gradient of each loss through the teacher too, and divides the divergence by the number of classes (`divergence`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from stages.algorithms.common.batches import Batches
from stages.algorithms.common.losses import distillation
from stages.algorithms.common.sgd import SGD, LossAndMetrics
from stages.algorithms.common.weights import Download, Weights, auxiliary, average, copied
from stages.algorithms.contract import Algorithm, ClientState, Hyperparameters, Metrics, Task
from stages.models.split import SplitModel
from stages.randomness import Rng
from stages.settings import setting

MAX_NORM = 10.0  # of the gradient of each model, as in the public library


@dataclass(frozen=True)
class Hyper(Hyperparameters):
    alpha: float = setting(
        0.5, "Weight of the labels for the own model; the rest is for the auxiliary model's predictions.",
        low=0, high=1, source="public library",
    )  # fmt: skip
    beta: float = setting(
        0.5, "Weight of the labels for the auxiliary model; the rest is for the own model's predictions.",
        low=0, high=1, source="public library",
    )  # fmt: skip
    divergence: str = setting(
        "taught", "What one model learns from the other: its given predictions, or both models move, by the mean over "
        "images and classes.", choices=("taught", "mutual"),
        source="taught: deep mutual learning; mutual: public library",
    )  # fmt: skip
    auxiliary: str = setting("FedAvgCNN", "Architecture of the auxiliary model.", source="public library")


@dataclass(frozen=True)
class Upload:
    weights: Weights  # of the auxiliary model


@dataclass(frozen=True)
class Shared:
    task: Task
    start: SplitModel  # the auxiliary model before the first round


def init(hyper: Hyper, task: Task, rng: Rng) -> tuple[None, Shared]:
    return None, Shared(task, auxiliary(hyper.auxiliary, task, rng, task.feature_dim))


def client_update(
    hyper: Hyper, shared: Shared, client: ClientState, download: Download | None, batches: Batches, rng: Rng
) -> tuple[Upload, Metrics]:
    model, meme = client.model, copied(shared.start, download.weights if download else None)
    model.train()
    meme.train()

    def objective(x: Tensor, y: Tensor) -> LossAndMetrics:
        loss, meme_loss = mutual_losses(hyper, model(x), meme(x), y)
        return loss + meme_loss, {"loss": loss, "auxiliary": meme_loss}

    metrics = SGD(shared.task.lr, model, meme, max_norm=MAX_NORM).minimise(objective, batches.steps(rng))
    return Upload(meme.state_dict()), metrics


def mutual_losses(hyper: Hyper, own: Tensor, meme: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Losses of the own and of the auxiliary model, from their logits float32 [B, C] and labels int64 [B]."""
    divergence = distillation if hyper.divergence == "taught" else mutual_divergence
    loss = hyper.alpha * F.cross_entropy(own, labels) + (1 - hyper.alpha) * divergence(own, meme)
    meme_loss = hyper.beta * F.cross_entropy(meme, labels) + (1 - hyper.beta) * divergence(meme, own)
    return loss, meme_loss


def mutual_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) between logits float32 [B, C], mean over images and classes; both have a gradient. Scalar."""
    log_student, log_teacher = F.log_softmax(student, 1), F.log_softmax(teacher, 1)
    return F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True) / student.shape[1]


def server_update(
    hyper: Hyper, shared: Shared, state: None, uploads: Mapping[int, Upload], rng: Rng
) -> tuple[None, Download, Metrics]:
    """Average the auxiliary models, every client alike."""
    return None, Download(average([upload.weights for upload in uploads.values()])), {}


ALGORITHM = Algorithm(
    "fml", "Shen et al., 2020, arXiv 2006.16765", Hyper=Hyper, Download=Download, init=init, client_update=client_update,
    server_update=server_update,
)  # fmt: skip
