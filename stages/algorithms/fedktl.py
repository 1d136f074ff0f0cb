"""FedKTL (Zhang, Liu, Hua, Cao, CVPR 2024, arXiv 2403.15760); `fedktl_reference.py` adds what only the reference does.

Up: the clients' class prototypes. Down: one image-latent pair per class, from a pre-trained generator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stages.algorithms.common.batches import Batches, Steps, endless, slices, two_or_more
from stages.algorithms.common.class_means import class_means
from stages.algorithms.common.losses import arcface, fixed_bandwidths, mmd, prototypes, simplex_etf
from stages.algorithms.common.one_pass import OnePass
from stages.algorithms.common.privacy import Protected
from stages.algorithms.common.records import concatenated
from stages.algorithms.common.sgd import SGD, Adam, LossAndMetrics
from stages.algorithms.contract import Algorithm, ClientState, Metrics, PairSource, Task
from stages.clock import phase
from stages.pixels import normalised
from stages.randomness import Rng, seeded
from stages.settings import setting

MAX_NORM = 100.0  # of the gradient of each module, on clients and server, as in the reference


@dataclass(frozen=True)
class Hyper(Protected):
    mu: float = setting(50.0, "Weight of the knowledge transfer from pairs.", low=0, source="paper, mu of L^M")
    lambda_: float = setting(1.0, "Weight of the pull to the class centroids.", low=0, source="paper, lambda of L^MSE")
    server_lr: float = setting(0.01, "Learning rate of the server's Adam.", above=0, source="reference")
    server_epochs: int = setting(100, "Passes over the prototypes per round.", low=1, source="reference")
    server_batch_size: int = setting(100, "Prototypes per step of the server.", low=2, source="reference")
    margin: float = setting(0.5, "Margin of ArcFace, in radians.", low=0, high=3.14, source="ArcFace; reference")
    scale: float = setting(64.0, "Scale of ArcFace.", above=0, source="ArcFace; reference")
    etf: bool = setting(True, "ETF classifier and ArcFace; off: learned head, cross-entropy.", source="paper, ablation")
    mmd: bool = setting(True, "Align transformed prototypes with the latents.", source="paper, ablation")
    transfer: bool = setting(True, "Transfer knowledge from pairs to the clients.", source="paper, ablation")

    def needs_latents(self) -> bool:
        return self.transfer

    def bandwidths(self, device: torch.device) -> Callable[[Tensor], Tensor]:
        """Of the MMD's kernels, for a batch of latents; the paper gives none, so these are the reference's."""
        return fixed_bandwidths(device)

    def tracks_pairs(self) -> bool:
        """Whether BatchNorm's running statistics follow the pairs' images as well as a client's own."""
        return False

    def received(self, features: Tensor, loss: Tensor) -> Tensor:
        """The pairs' features [B, F] as the transfer sees them, beside the classification loss of the same step."""
        return features


@dataclass(frozen=True)
class Upload:
    labels: Tensor  # int64 [k], the classes the client has
    prototypes: Tensor  # float32 [k, C], unit rows


@dataclass(frozen=True)
class Download:
    labels: Tensor  # int64 [M K]: K pairs (in the paper one) of each of M classes, class after class
    images: Tensor  # uint8, or float32 in 0..255, [M K, 3, size, size]
    latents: Tensor  # float32 [M K, H]


@dataclass(frozen=True)
class Shared:
    task: Task
    etf: Tensor  # float32 [C, C], rows are the class vectors
    projection: Mapping[str, Tensor]  # start of the linear map feature -> latent; every client, every round


@dataclass
class ServerState:
    transformer: nn.Sequential  # F: R^C -> R^H
    centroids: Tensor  # float32 [C, H], row c is Q^c
    seen: Tensor  # bool [C], classes that have been uploaded


def init(hyper: Hyper, task: Task, rng: Rng) -> tuple[ServerState, Shared]:
    classes, width = task.classes, task.latent_dim or 1
    with seeded(rng.seed("server")):
        projection = nn.Linear(task.feature_dim, width)
        hidden = nn.Linear(classes, classes), nn.BatchNorm1d(classes), nn.ReLU()
        transformer = nn.Sequential(*hidden, nn.Linear(classes, width)).to(task.device)
        centroids = torch.randn(classes, width).to(task.device)
    etf = simplex_etf(classes, rng.torch("etf")).to(task.device)
    state = ServerState(transformer, centroids, torch.zeros(classes, dtype=torch.bool))
    return state, Shared(task, etf, projection.to(task.device).state_dict())


def client_update(
    hyper: Hyper, shared: Shared, client: ClientState, download: Download | None, batches: Batches, rng: Rng
) -> tuple[Upload, Metrics]:
    """Local training with L^A + mu L^M, then the class prototypes P_i^c of what was trained on."""
    task, model = shared.task, client.model
    projection = nn.Linear(task.feature_dim, task.latent_dim or 1, device=task.device)
    projection.load_state_dict(shared.projection)
    sources = [batches.steps(rng)]
    if download is not None:
        sources.append(endless((normalised(download.images), download.latents), task.batch_size, rng.torch("pairs")))
    features_of_both = OnePass(model.train(), track_both=hyper.tracks_pairs())

    def objective(x: Tensor, y: Tensor, images: Tensor | None = None, latents: Tensor | None = None) -> LossAndMetrics:
        if images is None or latents is None:
            loss = classification_loss(hyper, shared, model(x), y)
            return loss, {"loss": loss, "transfer": torch.zeros_like(loss)}
        features, transferred = features_of_both(x, images)
        loss = classification_loss(hyper, shared, model.logits(features), y)
        transfer = F.mse_loss(projection(hyper.received(transferred, loss)), latents)
        return loss + hyper.mu * transfer, {"loss": loss, "transfer": transfer}

    metrics = SGD(task.lr, model, projection, max_norm=MAX_NORM).minimise(objective, *sources)
    with phase("prototypes"), torch.no_grad():
        model.eval()
        projections, labels = zip(*((model(x), y) for x, y in batches.once(model)), strict=True)
        return Upload(*prototypes(torch.cat(projections), torch.cat(labels), task.classes)), metrics


def classification_loss(hyper: Hyper, shared: Shared, projections: Tensor, labels: Tensor) -> Tensor:
    if hyper.etf:
        return arcface(projections, labels, shared.etf, hyper.margin, hyper.scale)
    return F.cross_entropy(projections, labels)


def server_update(
    hyper: Hyper, shared: Shared, state: ServerState, uploads: Mapping[int, Upload], pairs: PairSource, rng: Rng
) -> tuple[ServerState, Download, Metrics]:
    """Align the prototypes with the latent space (L^MMD + lambda L^MSE), then make a pair from each class centroid."""
    uploaded = concatenated(uploads.values())
    state.seen[uploaded.labels.cpu()] = True
    with phase("alignment"):
        state.centroids = class_centroids(state, uploaded)
        metrics = align(hyper, state, uploaded, pairs, rng)
        state.centroids = class_centroids(state, uploaded)
    return state, pairs_of(state, state.seen.nonzero().flatten(), pairs), metrics


@torch.no_grad()
def class_centroids(state: ServerState, uploaded: Upload) -> Tensor:
    """Q^c, the mean of F(P_i^c) over the clients i that uploaded class c; those of other classes stay."""
    present, means, _ = class_means(state.transformer.eval()(uploaded.prototypes), uploaded.labels, len(state.seen))
    return state.centroids.index_copy(0, present, means)


def align(hyper: Hyper, state: ServerState, uploaded: Upload, pairs: PairSource, rng: Rng) -> dict[str, Tensor]:
    """Train F, and the centroids with it, on the prototypes of all clients."""
    protos, labels = two_or_more(uploaded.prototypes), two_or_more(uploaded.labels)
    transformer, centroids = state.transformer.train(), nn.Parameter(state.centroids.clone())
    order_rng, latent_rng = rng.torch("order"), rng.torch("latents")
    bandwidths, sums = hyper.bandwidths(protos.device), torch.zeros(2, device=protos.device)

    def batches() -> Iterator[tuple[Tensor, ...]]:
        for _ in range(hyper.server_epochs):
            order = torch.randperm(len(protos), generator=order_rng).to(protos.device, non_blocking=True)
            epoch = protos[order], labels[order], pairs.sample_latents(len(protos), latent_rng)
            sums.zero_()  # the last epoch's are reported
            yield from (tuple(part[rows] for part in epoch) for rows in slices(len(order), hyper.server_batch_size))

    def objective(protos: Tensor, labels: Tensor, latents: Tensor) -> LossAndMetrics:
        mapped = transformer(protos)
        discrepancy = mmd(mapped, latents, bandwidths(latents))
        pull = F.mse_loss(mapped, F.embedding(labels, centroids))
        sums.add_(torch.stack([discrepancy.detach(), pull.detach()]), alpha=len(protos))
        return hyper.mmd * discrepancy + hyper.lambda_ * pull, {}

    trained = transformer, nn.ParameterList([centroids])
    Adam(hyper.server_lr, *trained, max_norm=MAX_NORM).minimise(objective, Steps(batches()))
    state.centroids = centroids.detach()
    return dict(zip(("mmd", "mse"), sums / len(protos), strict=True))


def pairs_of(state: ServerState, classes: Tensor, pairs: PairSource) -> Download:
    """(G(Q^c), Q^c) of these classes, int64 [M]; from a bank, its image and latent nearest to Q^c."""
    with phase("pairs"):
        classes = classes.to(state.centroids.device)
        images, latents = pairs.pairs(state.centroids[classes])
        return Download(classes.repeat_interleave(len(images) // len(classes)), images, latents)


def predict(hyper: Hyper, shared: Shared, client: ClientState, download: Download | None, x: Tensor) -> Tensor:
    """ArcFace's scale times the cosines with the class vectors; without these the learned head's logits."""
    projections = client.model(x)
    return hyper.scale * (F.normalize(projections) @ shared.etf.T) if hyper.etf else projections


ALGORITHM = Algorithm(
    "fedktl", "Zhang et al., CVPR 2024, arXiv 2403.15760", Hyper=Hyper, Download=Download, init=init,
    client_update=client_update, paired_server_update=server_update, predict=predict,
    unit_rows=("prototypes",), phases=("prototypes", "alignment", "pairs"),
    server_metrics={"mmd": "MMD to the latents", "mse": "MSE to the class centroids"},
    pictures=lambda download: (download.labels, download.images), centroids=lambda state: state.centroids,
)  # fmt: skip
