"""FedKTL (Zhang, Liu, Hua, Cao, CVPR 2024, arXiv 2403.15760).

Up: the clients' class prototypes. Down: one image-latent pair per class, from a pre-trained generator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stages.algorithms.common.batches import Batches, Steps, slices
from stages.algorithms.common.losses import BANDWIDTHS, arcface, median_bandwidths, mmd, prototypes, simplex_etf
from stages.algorithms.common.one_pass import OnePass
from stages.algorithms.common.sgd import SGD, Adam, LossAndMetrics
from stages.algorithms.contract import Algorithm, ClientState, Metrics, PairSource, Predictor, Task
from stages.clock import phase
from stages.pixels import normalised
from stages.randomness import Rng, seeded
from stages.settings import Settings, setting

MAX_NORM = 100.0  # of the gradient of each module, on clients and server, as in the reference


@dataclass(frozen=True)
class Hyper(Settings):
    mu: float = setting(50.0, "Weight of the knowledge transfer from pairs.", low=0, source="paper, mu of L^M")
    lambda_: float = setting(1.0, "Weight of the pull to the class centroids.", low=0, source="paper, lambda of L^MSE")
    server_lr: float = setting(0.01, "Learning rate of the server's Adam.", above=0, source="reference")
    server_epochs: int = setting(100, "Passes over the prototypes per round.", low=1, source="reference")
    server_batch_size: int = setting(100, "Prototypes per step of the server.", low=2, source="reference")
    margin: float = setting(0.5, "Margin of ArcFace, in radians.", low=0, high=3.14, source="ArcFace; reference")
    scale: float = setting(64.0, "Scale of ArcFace.", above=0, source="ArcFace; reference")
    centroids: str = setting(
        "mean", "Class centroids: means of transformed prototypes, or a table trained by Adam.",
        choices=("mean", "trained"), source="mean: paper; trained: what the reference computes",
    )  # fmt: skip
    mmd_bandwidth: str = setting(
        "reference", "Bandwidths of the MMD kernels: the reference's, or scaled to the latents.",
        choices=("reference", "median"), source="reference",
    )  # fmt: skip
    statistics: str = setting(
        "own", "What BatchNorm's running statistics are of: a client's own images, or the pairs' images as well.",
        choices=("own", "both"), source="both: what the reference computes",
    )  # fmt: skip
    etf: bool = setting(True, "ETF classifier and ArcFace; off: learned head, cross-entropy.", source="paper, ablation")
    mmd: bool = setting(True, "Align transformed prototypes with the latents.", source="paper, ablation")
    mse: bool = setting(True, "Pull transformed prototypes to their centroid.", source="paper, ablation")
    transfer: bool = setting(True, "Transfer knowledge from pairs to the clients.", source="paper, ablation")


@dataclass(frozen=True)
class Upload:
    labels: Tensor  # int64 [k], the classes the client has
    prototypes: Tensor  # float32 [k, C], unit rows


@dataclass(frozen=True)
class Download:
    """K pairs of each of M classes, the pairs of a class one after the other; the paper has K = 1."""

    labels: Tensor  # int64 [M K]
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
        transformer = nn.Sequential(
            nn.Linear(classes, classes), nn.BatchNorm1d(classes), nn.ReLU(), nn.Linear(classes, width)
        )
        centroids = torch.randn(classes, width)
    etf = simplex_etf(classes, rng.torch("etf"))
    start = {name: tensor.detach().to(task.device) for name, tensor in projection.state_dict().items()}
    state = ServerState(transformer.to(task.device), centroids.to(task.device), torch.zeros(classes, dtype=torch.bool))
    return state, Shared(task, etf.to(task.device), start)


def client_update(
    hyper: Hyper, shared: Shared, client: ClientState, download: Download | None, batches: Batches, rng: Rng
) -> tuple[Upload, Metrics]:
    """Local training with L^A + mu L^M, then the class prototypes P_i^c of what was trained on."""
    task, model = shared.task, client.model
    projection = nn.Linear(task.feature_dim, task.latent_dim or 1, device=task.device)
    projection.load_state_dict(shared.projection)
    sources = [batches.steps(rng)]
    if download and hyper.transfer:
        sources.append(endless_pairs(download, task.batch_size, rng))
    model.train()
    features_of_both = OnePass(model, track_both=hyper.statistics == "both")

    def objective(x: Tensor, y: Tensor, images: Tensor | None = None, latents: Tensor | None = None) -> LossAndMetrics:
        if images is None or latents is None:
            loss = classification_loss(hyper, shared, model(x), y)
            return loss, {"loss": loss, "transfer": torch.zeros_like(loss)}
        features, transferred = features_of_both(x, images)
        loss = classification_loss(hyper, shared, model.head(features), y)
        transfer = F.mse_loss(projection(transferred), latents)
        return loss + hyper.mu * transfer, {"loss": loss, "transfer": transfer}

    metrics = SGD(task.lr, model, projection, max_norm=MAX_NORM).minimise(objective, *sources)
    with phase("prototypes"), torch.no_grad():
        model.eval()
        projections, labels = zip(*((model(x), y) for x, y in batches.once()), strict=True)
        upload = Upload(*prototypes(torch.cat(projections), torch.cat(labels), task.classes))
    return upload, metrics


def classification_loss(hyper: Hyper, shared: Shared, projections: Tensor, labels: Tensor) -> Tensor:
    if hyper.etf:
        return arcface(projections, labels, shared.etf, hyper.margin, hyper.scale)
    return F.cross_entropy(projections, labels)


def endless_pairs(download: Download, size: int, rng: Rng) -> Steps:
    """Batches of pairs, pass after pass, each pass in a new order; the last batch of a pass may be smaller."""
    images, latents, generator = normalised(download.images), download.latents, rng.torch("pairs")
    if len(images) == 1:  # BatchNorm has no variance over one
        images, latents = images.repeat(2, 1, 1, 1), latents.repeat(2, 1)

    def orders() -> Iterator[tuple[Tensor]]:
        while True:
            order = torch.randperm(len(images), generator=generator).to(images.device, non_blocking=True)
            yield from ((order[rows],) for rows in slices(len(order), size))

    return Steps(orders(), lambda rows: (images[rows], latents[rows]))


def server_update(
    hyper: Hyper, shared: Shared, state: ServerState, uploads: Mapping[int, Upload], pairs: PairSource, rng: Rng
) -> tuple[ServerState, Download | None, Metrics]:
    """Align the prototypes with the latent space (L^MMD + lambda L^MSE), then make a pair from each class centroid."""
    if not hyper.transfer:
        return state, None, {}
    uploaded = [uploads[client] for client in sorted(uploads)]
    protos = torch.cat([upload.prototypes for upload in uploaded])
    labels = torch.cat([upload.labels for upload in uploaded])
    state.seen[labels.cpu()] = True
    with phase("alignment"):
        metrics = align(hyper, state, protos, labels, pairs, rng)
    with phase("pairs"):
        # the reference makes a pair for every row of its table, uploaded or not
        classes = state.seen.nonzero().flatten() if hyper.centroids == "mean" else torch.arange(len(state.seen))
        classes = classes.to(state.centroids.device)
        images, latents = pairs.pairs(state.centroids[classes])
        download = Download(classes.repeat_interleave(len(images) // len(classes)), images, latents)
    return state, download, metrics


def align(
    hyper: Hyper, state: ServerState, protos: Tensor, labels: Tensor, pairs: PairSource, rng: Rng
) -> dict[str, Tensor]:
    """Train F and the centroid table on the uploaded prototypes float32 [P, C] of classes int64 [P]."""
    transformer, table = state.transformer, nn.Parameter(state.centroids.clone())
    if len(protos) == 1:  # BatchNorm has no variance over one
        protos, labels = protos.repeat(2, 1), labels.repeat(2)
    if hyper.centroids == "mean":
        set_class_means(table, transformer, protos, labels)
    fixed = torch.tensor(BANDWIDTHS, device=protos.device)
    order_rng, latent_rng = rng.torch("order"), rng.torch("latents")
    sums = torch.zeros(2, device=protos.device)
    transformer.train()

    def batches() -> Iterator[tuple[Tensor, ...]]:
        for _ in range(hyper.server_epochs):
            order = torch.randperm(len(protos), generator=order_rng).to(protos.device, non_blocking=True)
            sampled = pairs.sample_latents(len(protos), latent_rng)
            sums.zero_()  # the last epoch's are reported
            epoch = protos[order], labels[order], sampled
            yield from (tuple(table[rows] for table in epoch) for rows in slices(len(order), hyper.server_batch_size))

    def objective(protos: Tensor, labels: Tensor, latents: Tensor) -> LossAndMetrics:
        mapped = transformer(protos)
        bandwidths = fixed if hyper.mmd_bandwidth == "reference" else median_bandwidths(latents)
        discrepancy = mmd(mapped, latents, bandwidths)
        pull = F.mse_loss(mapped, F.embedding(labels, table))
        sums.add_(torch.stack([discrepancy.detach(), pull.detach()]), alpha=len(protos))
        return hyper.mmd * discrepancy + hyper.mse * hyper.lambda_ * pull, {}

    adam = Adam(hyper.server_lr, transformer, nn.ParameterList([table]), max_norm=MAX_NORM)
    adam.minimise(objective, Steps(batches()))
    if hyper.centroids == "mean":
        set_class_means(table, transformer, protos, labels)
    state.centroids = table.detach()
    last_epoch = sums / len(protos)
    return {"mmd": last_epoch[0], "mse": last_epoch[1]}


@torch.no_grad()
def set_class_means(table: Tensor, transformer: nn.Sequential, protos: Tensor, labels: Tensor) -> None:
    """Q^c = mean of F(P_i^c) over the clients i that uploaded class c ; other rows stay."""
    transformer.eval()
    mapped = transformer(protos)
    transformer.train()
    sums = torch.zeros_like(table).index_add_(0, labels, mapped)
    counts = torch.bincount(labels, minlength=len(table))[:, None]
    table.copy_(torch.where(counts > 0, sums / counts.clamp(min=1), table))


def predict(hyper: Hyper, shared: Shared, client: ClientState, download: Download | None, x: Tensor) -> Tensor:
    """Cosines with the class vectors, or the learned head's logits."""
    projections = client.model(x)
    return F.normalize(projections) @ shared.etf.T if hyper.etf else projections


def predictor(hyper: Hyper, shared: Shared, client: ClientState, download: Download | None) -> Predictor:
    if not hyper.etf:
        return Predictor()
    return Predictor("the row of etf with the highest cosine to head(base(x))", {"etf": shared.etf})


ALGORITHM = Algorithm(
    "fedktl", "Zhang et al., CVPR 2024, arXiv 2403.15760", Hyper, Download, init, client_update, server_update, predict,
    needs_latents=lambda hyper: hyper.transfer, unit_rows=("prototypes",), predictor=predictor,
)  # fmt: skip
