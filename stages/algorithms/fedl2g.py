"""FedL2G (Zhang et al., 2024, arXiv 2410.06490): learning to guide.

One guiding vector per class, for the logits (FedL2G-l) or the features (FedL2G-f), that local training is drawn to.
The vectors are learned such that the guidance helps: a client takes one guided step on a batch, quizzes the result on
images it has held out, and sends the gradient of the quiz loss with respect to them. Up: that gradient, for the classes of
the batch. Down: all vectors.

The images held out are drawn once, at random; if training keeps a fixed order, they are the first, as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from stages import torch_private
from stages.algorithms.common.batches import Batches
from stages.algorithms.common.class_means import class_means
from stages.algorithms.common.records import concatenated
from stages.algorithms.common.sgd import SGD, LossAndMetrics
from stages.algorithms.common.weights import copied
from stages.algorithms.contract import Algorithm, ClientState, Hyperparameters, Metrics, Task
from stages.models.split import SplitModel
from stages.pixels import normalised
from stages.randomness import Rng
from stages.settings import setting

Labelled = tuple[Tensor, Tensor]  # images and their labels

MAX_NORM = 100.0  # of the gradient of a model, and of the vectors' gradient, as in the authors' code
SERVER_LR = {"logit": 0.1, "feature": 100.0}  # of the authors' runs


@dataclass(frozen=True)
class Hyper(Hyperparameters):
    variant: str = setting("logit", "What the vectors guide.", choices=("logit", "feature"), source="paper, -l and -f")
    server_lr: float | None = setting(
        None, "Learning rate of the vectors; if not given, 0.1 for logits and 100 for features.",
        above=0, source="the authors' code",
    )  # fmt: skip
    warm_up: int = setting(
        0, "First rounds, which learn the vectors only; the paper takes 50 and does not count them as rounds.",
        low=0, source="paper: 50",
    )  # fmt: skip


@dataclass(frozen=True)
class Upload:
    labels: Tensor  # int64 [k], classes of the study batch
    gradients: Tensor  # float32 [k, W], of the quiz loss with respect to their vectors


@dataclass(frozen=True)
class Download:
    vectors: Tensor  # float32 [C, W]
    rounds: Tensor  # int64 [], done


@dataclass(frozen=True)
class Shared:
    task: Task
    start: Tensor  # float32 [C, W], the vectors before the first round


@dataclass
class ServerState:
    vectors: Tensor
    rounds: Tensor


def init(hyper: Hyper, task: Task, rng: Rng) -> tuple[ServerState, Shared]:
    width = task.classes if hyper.variant == "logit" else task.feature_dim
    start = torch.randn(task.classes, width, generator=rng.torch("vectors")).to(task.device)
    return ServerState(start.clone(), torch.tensor(0)), Shared(task, start)


def client_update(
    hyper: Hyper, shared: Shared, client: ClientState, download: Download | None, batches: Batches, rng: Rng
) -> tuple[Upload, Metrics]:
    """Guided training on the study images, then the gradient of the quiz."""
    task, model = shared.task, client.model
    vectors, rounds = (download.vectors, int(download.rounds)) if download else (shared.start, 0)
    study, quiz = divided(client, batches, rng)
    model.train()

    def objective(x: Tensor, y: Tensor) -> LossAndMetrics:
        loss, guidance = losses(hyper, model, vectors, x, y)
        return loss + guidance, {"loss": loss}

    metrics: Metrics = {}
    if rounds >= hyper.warm_up:
        metrics = SGD(task.lr, model, max_norm=MAX_NORM).minimise(objective, study.steps(rng))
    drawn = torch.randperm(len(study.labels), generator=rng.torch("study")).to(task.device)[: max(2, task.batch_size)]
    batch = normalised(study.images[drawn]), study.labels[drawn]
    held_out = normalised(quiz.images), quiz.labels
    gradients, quiz_loss = quizzed(hyper, task.lr, model, vectors, batch, held_out)
    present = torch.unique(batch[1])
    return Upload(present, gradients[present]), {"loss": quiz_loss} | dict(metrics) | {"quiz": quiz_loss}


def divided(client: ClientState, batches: Batches, rng: Rng) -> tuple[Batches, Batches]:
    """The images to train on, and a batch held out for the quiz, the same in every round.

    A client of fewer than four images is quizzed on what it trains on.
    """
    count = len(batches.labels)
    if count < 4:
        return batches, batches
    if "quiz" not in client.private:
        order = torch.randperm(count, generator=rng.torch("quiz")) if batches.shuffle else torch.arange(count)
        client.private["quiz"] = order[: min(max(2, batches.size), count // 2)].to(batches.labels.device)
    study = torch.ones(count, dtype=torch.bool, device=batches.labels.device)
    study[client.private["quiz"]] = False
    return batches.only(study.nonzero().flatten()), batches.only(client.private["quiz"])


def losses(hyper: Hyper, model: SplitModel, vectors: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy, and the mean squared error to the guiding vectors of the images' classes."""
    features = model.features(x)
    logits = model.head(features)
    guided = logits if hyper.variant == "logit" else features
    return F.cross_entropy(logits, y), F.mse_loss(guided, vectors[y])


def quizzed(
    hyper: Hyper, lr: float, model: SplitModel, vectors: Tensor, study: Labelled, quiz: Labelled
) -> tuple[Tensor, Tensor]:
    """The quiz loss after one guided SGD step on the study batch, and its gradient with respect to the vectors, float32 [C, W].

    Returns the gradient first. The model stays as it is.
    """
    pupil, vectors = copied(model), vectors.clone().requires_grad_()
    moving = {name: parameter for name, parameter in pupil.named_parameters() if parameter.requires_grad}
    with sdpa_kernel(SDPBackend.MATH):  # the fast kernels of attention have no second derivative
        loss, guidance = losses(hyper, pupil, vectors, *study)
        slopes = torch.autograd.grad(loss + guidance, list(moving.values()), create_graph=True, allow_unused=True)
        each = zip(moving.items(), slopes, strict=True)
        stepped = {name: parameter - lr * slope for (name, parameter), slope in each if slope is not None}
        quiz_loss = F.cross_entropy(functional_call(pupil, stepped, (quiz[0],)), quiz[1])
        (gradient,) = torch.autograd.grad(quiz_loss, vectors)
    return gradient, quiz_loss.detach()


def server_update(
    hyper: Hyper, shared: Shared, state: ServerState, uploads: Mapping[int, Upload], rng: Rng
) -> tuple[ServerState, Download, Metrics]:
    """One SGD step on each vector, along the mean gradient over the clients that sent its class."""
    uploaded = concatenated(uploads.values())
    present, means, _ = class_means(uploaded.gradients, uploaded.labels, len(state.vectors))
    gradient = torch.zeros_like(state.vectors).index_copy(0, present, means)
    torch_private.clip([gradient], MAX_NORM)
    state.vectors = state.vectors - (hyper.server_lr or SERVER_LR[hyper.variant]) * gradient
    state.rounds = state.rounds + 1
    return state, Download(state.vectors.clone(), state.rounds.clone()), {}


ALGORITHM = Algorithm(
    "fedl2g", "Zhang et al., 2024, arXiv 2410.06490", Hyper=Hyper, Download=Download, init=init,
    client_update=client_update, server_update=server_update,
)  # fmt: skip
