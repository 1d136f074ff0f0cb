"""FedKD (Wu et al., Nature Communications 2022, arXiv 2108.13323).

Every client's own model (the mentor) and a copy of a shared auxiliary model (the mentee) teach each other, and the
more so the better they classify. Up: what a round changed in the mentee. Down: what all rounds changed in it since its start,
which everyone derives from the seed; so a client that sat out rounds misses nothing. Both travel as truncated singular
value decompositions that keep a part of the energy, which rises over the rounds.

The public library lets the gradient of each loss through the teacher too, divides the divergence by the number of
classes, decomposes the weights themselves rather than their changes, cuts 5x5 kernels one by one so that messages
grow, and picks rank 0 (a weight of zeros) where no proper rank keeps enough. Here a kernel is one matrix
[out, in * height * width], the rank is the smallest that keeps enough, and what would not shrink travels whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stages.algorithms.common.batches import Batches
from stages.algorithms.common.losses import distillation
from stages.algorithms.common.sgd import SGD, LossAndMetrics
from stages.algorithms.common.weights import Weights, auxiliary, average, copied
from stages.algorithms.contract import Algorithm, ClientState, Hyperparameters, Metrics, Task
from stages.models.split import SplitModel
from stages.randomness import Rng, seeded
from stages.settings import setting

MAX_NORM = 10.0  # of the gradient of each model and of the projection, as in the public library
LEAST_LOSS = (
    0.01  # without it, images that both models classify perfectly would give their mutual losses an infinite weight
)


@dataclass(frozen=True)
class Hyper(Hyperparameters):
    energy_start: float = setting(
        0.95, "Part of a matrix's energy that messages keep at first.", above=0, high=1, source="paper, T_start"
    )
    energy_end: float = setting(0.98, "The same after energy_rounds.", above=0, high=1, source="paper, T_end")
    energy_rounds: int = setting(
        100, "Rounds over which the kept energy rises evenly.", low=1, source="paper: the whole training"
    )
    auxiliary: str = setting("FedAvgCNN", "Architecture of the auxiliary model.", source="public library")


@dataclass(frozen=True)
class Upload:
    change: Weights  # compressed, of this round


@dataclass(frozen=True)
class Download:
    change: Weights  # compressed, since the start
    rounds: Tensor  # int64 [], done


@dataclass(frozen=True)
class Shared:
    task: Task
    start: SplitModel  # the mentee before the first round
    projection: nn.Linear  # start of the map from the mentee's features to the mentor's


@dataclass
class ServerState:
    mentee: SplitModel
    rounds: Tensor  # int64 []


def init(hyper: Hyper, task: Task, rng: Rng) -> tuple[ServerState, Shared]:
    start = auxiliary(hyper.auxiliary, task, rng, task.feature_dim)
    with seeded(rng.seed("projection")):
        projection = nn.Linear(task.feature_dim, task.feature_dim, bias=False).to(task.device)
    return ServerState(copied(start), torch.tensor(0)), Shared(task, start, projection)


def client_update(
    hyper: Hyper, shared: Shared, client: ClientState, download: Download | None, batches: Batches, rng: Rng
) -> tuple[Upload, Metrics]:
    mentor, received = client.model, dict(shared.start.state_dict())
    rounds = 0
    if download is not None:
        received = plus(received, expanded(download.change, received))
        rounds = int(download.rounds)
    mentee = copied(shared.start, received)
    projection = copied(shared.projection, client.private or None)
    mentor.train()
    mentee.train()

    def objective(x: Tensor, y: Tensor) -> LossAndMetrics:
        features, mentee_features = mentor.features(x), mentee.features(x)
        logits, mentee_logits = mentor.head(features), mentee.head(mentee_features)
        loss, mentee_loss = F.cross_entropy(logits, y), F.cross_entropy(mentee_logits, y)
        hidden = F.mse_loss(projection(mentee_features), features)
        mutual = mutual_loss(logits, mentee_logits, hidden, loss + mentee_loss)
        return loss + mentee_loss + mutual, {"loss": loss, "auxiliary": mentee_loss}

    sgd = SGD(shared.task.lr, mentor, mentee, projection, max_norm=MAX_NORM)
    metrics = sgd.minimise(objective, batches.steps(rng))
    client.private = dict(projection.state_dict())
    change = {name: tensor - received[name] for name, tensor in mentee.state_dict().items()}
    return Upload(compressed(change, energy(hyper, rounds))), metrics


def mutual_loss(mentor: Tensor, mentee: Tensor, hidden: Tensor, losses: Tensor) -> Tensor:
    """Distillation both ways between logits float32 [B, C] + the hidden loss, divided by the classification losses."""
    mutual = distillation(mentor, mentee) + distillation(mentee, mentor) + hidden
    return mutual / losses.detach().clamp(min=LEAST_LOSS)


def energy(hyper: Hyper, rounds: int) -> float:
    """Part of the energy to keep after so many rounds."""
    return hyper.energy_start + (hyper.energy_end - hyper.energy_start) * min(1.0, rounds / hyper.energy_rounds)


def rank(singular: Tensor, part: float) -> int:
    """The fewest singular values, largest first, that hold `part` of the sum of all squares; at least one."""
    kept = singular.square().cumsum(0)
    return int((kept < part * kept[-1]).sum()) + 1


def compressed(change: Weights, part: float) -> dict[str, Tensor]:
    """Every matrix `name` [P, Q] as `name:u` [P, K], `name:s` [K] and `name:v` [K, Q] if these are fewer numbers.

    Vectors, and what is not finite, travel whole.
    """
    parts: dict[str, Tensor] = {}
    for name, tensor in change.items():
        parts[name] = tensor
        if tensor.ndim < 2 or not tensor.isfinite().all():
            continue
        matrix = tensor.flatten(1)
        u, s, v = decomposed(matrix)
        k = rank(s, part)
        if k * (matrix.shape[0] + 1 + matrix.shape[1]) < matrix.numel():
            del parts[name]
            parts |= {f"{name}:u": u[:, :k].clone(), f"{name}:s": s[:k].clone(), f"{name}:v": v[:k].clone()}
    return parts


def decomposed(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The singular value decomposition of [P, Q], values largest first, from the smaller of the two Gram matrices.

    In float64 that is as exact as float32 can hold for values that are worth keeping. A GPU's own decomposition is many times
    slower, and does not always converge.
    """
    if matrix.shape[0] > matrix.shape[1]:
        v, s, u = decomposed(matrix.T)
        return u.T, s, v.T
    exact = matrix.double()
    squares, vectors = torch.linalg.eigh(exact @ exact.T)  # smallest first
    u, s = vectors.flip(1), squares.flip(0).clamp(min=0).sqrt()
    v = u.T @ exact / s.clamp(min=torch.finfo(torch.float64).tiny)[:, None]
    return u.to(matrix.dtype), s.to(matrix.dtype), v.to(matrix.dtype)


def expanded(parts: Weights, like: Weights) -> dict[str, Tensor]:
    """What `compressed` made, in the shapes of `like` again."""
    return {
        name: parts[name]
        if name in parts
        else ((parts[f"{name}:u"] * parts[f"{name}:s"]) @ parts[f"{name}:v"]).view_as(tensor)
        for name, tensor in like.items()
    }


def fixed_shapes(upload: Upload) -> dict[str, Tensor]:
    """The matrices of an upload, whatever their ranks; what travelled whole, flat too."""
    parts, whole = upload.change, {}
    for name in dict.fromkeys(part.rpartition(":")[0] or part for part in parts):
        found = parts[name] if name in parts else (parts[f"{name}:u"] * parts[f"{name}:s"]) @ parts[f"{name}:v"]
        whole[name] = found.flatten(1) if found.ndim > 1 else found
    return whole


def plus(weights: Weights, change: Weights) -> dict[str, Tensor]:
    return {name: tensor + change[name] for name, tensor in weights.items()}


def server_update(
    hyper: Hyper, shared: Shared, state: ServerState, uploads: Mapping[int, Upload], rng: Rng
) -> tuple[ServerState, Download, Metrics]:
    """Average the changes, every client alike. The server keeps the mentee exactly; only messages are truncated."""
    start, weights = shared.start.state_dict(), state.mentee.state_dict()
    changes = [expanded(upload.change, weights) for upload in uploads.values()]
    weights = plus(weights, average(changes))
    state.mentee.load_state_dict(weights)
    state.rounds = state.rounds + 1
    change = {name: tensor - start[name] for name, tensor in weights.items()}
    return state, Download(compressed(change, energy(hyper, int(state.rounds))), state.rounds.clone()), {}


ALGORITHM = Algorithm(
    "fedkd", "Wu et al., Nature Communications 2022, arXiv 2108.13323", Hyper=Hyper, Download=Download,
    init=init, client_update=client_update, server_update=server_update, fixed_shapes=fixed_shapes,
)  # fmt: skip
