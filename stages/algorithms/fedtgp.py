"""FedTGP (Zhang et al., AAAI 2024, arXiv 2401.03230): FedProto with global prototypes that the server trains.

Up: the mean feature of each class a client has, from the model it has just trained. The server trains one prototype
per class against them, contrastively, with a margin that follows their spread. Down: the trained prototypes.

The public library uploads what the model of the round before gave. Its pull to the prototypes, and the one here, is 10
times a mean squared error; the paper has 0.1 times a Euclidean distance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stages.algorithms import fedproto
from stages.algorithms.common.batches import Batches, passes
from stages.algorithms.common.class_means import class_means
from stages.algorithms.common.privacy import Protected
from stages.algorithms.common.records import concatenated
from stages.algorithms.common.sgd import SGD, LossAndMetrics
from stages.algorithms.contract import Algorithm, ClientState, Metrics, Task
from stages.algorithms.fedproto import Download, Upload
from stages.clock import phase
from stages.randomness import Rng, seeded
from stages.settings import setting


@dataclass(frozen=True)
class Hyper(Protected):
    lambda_: float = setting(10.0, "Weight of the pull to the global prototypes.", low=0, source="public library")
    margin: str = setting(
        "farthest", "The margin: the largest distance between two class centres, or from any centre to its nearest.",
        choices=("farthest", "nearest"), source="farthest: paper; nearest: public library",
    )  # fmt: skip
    tau: float = setting(100.0, "Largest margin.", low=0, source="paper, tau")
    server_lr: float = setting(0.01, "Learning rate of the prototypes.", above=0, source="public library")
    server_epochs: int = setting(100, "Passes over the uploads per round.", low=1, source="paper, S")
    server_batch_size: int = setting(
        10, "Uploaded prototypes per step.", low=1, source="public library: the clients' batch size"
    )


@dataclass
class ServerState:
    prototypes: nn.Sequential  # class -> global prototype
    seen: Tensor  # bool [C], classes that have been uploaded


def init(hyper: Hyper, task: Task, rng: Rng) -> tuple[ServerState, Task]:
    width = task.feature_dim
    with seeded(rng.seed("prototypes")):
        prototypes = nn.Sequential(
            nn.Embedding(task.classes, width), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)
        ).to(task.device)
    return ServerState(prototypes, torch.zeros(task.classes, dtype=torch.bool, device=task.device)), task


def client_update(
    hyper: Hyper, shared: Task, client: ClientState, download: Download | None, batches: Batches, rng: Rng
) -> tuple[Upload, Metrics]:
    """FedProto's, the prototypes from the trained model."""
    own = fedproto.Hyper(lambda_=hyper.lambda_, collected="after")
    return fedproto.client_update(own, shared, client, download, batches, rng)


def server_update(
    hyper: Hyper, shared: Task, state: ServerState, uploads: Mapping[int, Upload], rng: Rng
) -> tuple[ServerState, Download, Metrics]:
    """Train the global prototypes; those of classes that anyone has sent so far go down."""
    together = concatenated(uploads.values())
    uploaded, labels = together.prototypes, together.labels
    margin = adaptive_margin(hyper, uploaded, labels, shared.classes)
    every = torch.arange(shared.classes, device=shared.device)
    total = torch.zeros((), device=shared.device)  # of the last pass

    def objective(uploads: Tensor, classes: Tensor) -> LossAndMetrics:
        loss = contrast(uploads, classes, state.prototypes(every), margin)
        total.add_(loss.detach(), alpha=len(classes))
        return loss, {}

    with phase("alignment"):
        SGD(hyper.server_lr, state.prototypes).minimise(
            objective,
            passes((uploaded, labels), hyper.server_batch_size, hyper.server_epochs, rng.torch("order"), total.zero_),
        )
    state.seen = state.seen.index_fill(0, labels, True)
    classes = state.seen.nonzero().flatten()
    with torch.no_grad():
        download = Download(classes, state.prototypes(classes))
    return state, download, {"contrast": total / len(labels), "margin": margin}


def adaptive_margin(hyper: Hyper, uploaded: Tensor, labels: Tensor, classes: int) -> Tensor:
    """How far the class centres lie apart, at most tau; a centre is the mean over the clients. Scalar."""
    _, centres, _ = class_means(uploaded, labels, classes)
    distances = torch.cdist(centres, centres)
    if hyper.margin == "nearest":
        distances = distances.fill_diagonal_(torch.inf).min(1).values
    return distances.max().clamp(max=hyper.tau)


def contrast(uploaded: Tensor, labels: Tensor, prototypes: Tensor, margin: Tensor) -> Tensor:
    """The loss of adaptive-margin-enhanced contrastive learning. Scalar.

    Cross-entropy of negative distances from uploads float32 [B, D] of classes int64 [B] to all prototypes
    float32 [C, D], the distance to the own class's prototype made longer by the margin.
    """
    distances = torch.cdist(uploaded, prototypes)
    return F.cross_entropy(-(distances + margin * F.one_hot(labels, len(prototypes))), labels)


ALGORITHM = Algorithm(
    "fedtgp", "Zhang et al., AAAI 2024, arXiv 2401.03230", Hyper=Hyper, Download=Download, init=init,
    client_update=client_update, server_update=server_update, predict=fedproto.predict,
    phases=("prototypes", "alignment"),
    server_metrics={"contrast": "contrastive loss of the prototypes", "margin": "margin"},
)  # fmt: skip
