"""FedGen (Zhu et al., ICML 2021, arXiv 2105.10056).

The server trains a generator of features that the ensemble of the clients' heads assigns to a wanted class; clients
learn their own images and the generated features. Up: a client's head and how many images of each class it has.
Down: the average head, the generator, and the class counts.

The public library never stores the generator it trained, so that its clients always learn from the initial one; here
they have none until one was trained. As in the library, heads are weighted by training images, and the generator has no
diversity term, which is in the authors' code but not in the paper's objective.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stages.algorithms.common import one_head
from stages.algorithms.common.batches import Batches, Steps
from stages.algorithms.common.sgd import SGD, Adam, LossAndMetrics
from stages.algorithms.common.weights import Weights, average, copied
from stages.algorithms.contract import Algorithm, ClientState, Metrics, Task
from stages.clock import phase
from stages.randomness import Rng, seeded
from stages.settings import WIDEST, setting


@dataclass(frozen=True)
class Hyper(one_head.Hyper):
    noise_dim: int = setting(
        32, "Width of the generator's noise.", low=1, high=WIDEST, source="the public library's runs"
    )
    noise: str = setting(
        "gaussian", "Distribution of the noise: standard normal, or uniform in 0..1.", choices=("gaussian", "uniform"),
        source="gaussian: paper; uniform: public library",
    )  # fmt: skip
    hidden_dim: int = setting(
        512, "Width of the generator's hidden layer.", low=1, high=WIDEST, source="the public library's runs"
    )
    generator_lr: float = setting(
        0.005, "Learning rate of the generator's Adam.", above=0, source="public library's default"
    )
    server_epochs: int = setting(100, "Steps of the generator per round.", low=1, source="public library")
    server_batch_size: int = setting(
        10, "Features generated per step of the server.", low=2, source="public library: the clients' batch size"
    )


@dataclass(frozen=True)
class Upload:
    head: Weights
    counts: Tensor  # int64 [C], images per class that it was trained on
    total: Tensor  # int64 [], training images


@dataclass(frozen=True)
class Download:
    head: Weights
    generator: Weights
    counts: Tensor  # int64 [C], over all clients that sent their head: the label prior


@dataclass(frozen=True)
class Shared:
    task: Task
    head: Weights | None  # that all start from; None if each starts from its own
    start: nn.Sequential  # the generator before the first round


@dataclass
class ServerState:
    generator: nn.Sequential


def init(hyper: Hyper, task: Task, rng: Rng) -> tuple[ServerState, Shared]:
    with seeded(rng.seed("generator")):
        generator = nn.Sequential(
            nn.Linear(hyper.noise_dim + task.classes, hyper.hidden_dim),
            nn.BatchNorm1d(hyper.hidden_dim, track_running_stats=False),
            nn.ReLU(),
            nn.Linear(hyper.hidden_dim, task.feature_dim),
        ).to(task.device)
    return ServerState(copied(generator)), Shared(task, one_head.first(hyper, task, rng), generator)


def draws(hyper: Hyper, counts: Tensor, steps: int, size: int, rng: Rng) -> tuple[Tensor, Tensor]:
    """Labels int64 [steps, size] from the label prior, and generator inputs float32 [steps, size, noise_dim + C]."""
    generator = rng.torch("generated")
    labels = torch.multinomial(counts.float().cpu(), steps * size, replacement=True, generator=generator)
    sampled = torch.rand if hyper.noise == "uniform" else torch.randn
    noise = sampled(steps * size, hyper.noise_dim, generator=generator)
    inputs = torch.cat([noise, F.one_hot(labels, len(counts)).float()], 1)
    return labels.view(steps, size).to(counts.device), inputs.view(steps, size, -1).to(counts.device)


def client_update(
    hyper: Hyper, shared: Shared, client: ClientState, download: Download | None, batches: Batches, rng: Rng
) -> tuple[Upload, Metrics]:
    """Cross-entropy of the own images + of generated features under the head (Eq. 5)."""
    task, model = shared.task, client.model
    sources = [batches.steps(rng)]
    one_head.take(client, shared, download)
    if download is not None:
        generator = copied(shared.start, download.generator)
        drawn = draws(hyper, download.counts, len(batches), max(2, task.batch_size), rng)
        sources.append(Steps(zip(*drawn, strict=True)))
    model.train()

    def objective(x: Tensor, y: Tensor, wanted: Tensor | None = None, inputs: Tensor | None = None) -> LossAndMetrics:
        loss = F.cross_entropy(model(x), y)
        if wanted is None:
            return loss, {"loss": loss, "generated": torch.zeros_like(loss)}
        with torch.no_grad():
            features = generator(inputs)
        extra = F.cross_entropy(model.head(features), wanted)
        return loss + extra, {"loss": loss, "generated": extra}

    metrics = SGD(task.lr, model).minimise(objective, *sources)
    counts = torch.bincount(batches.labels, minlength=task.classes)
    return Upload(model.head.state_dict(), counts, torch.tensor(batches.total)), metrics


def server_update(
    hyper: Hyper, shared: Shared, state: ServerState, uploads: Mapping[int, Upload], rng: Rng
) -> tuple[ServerState, Download, Metrics]:
    """Train the generator against the ensemble of heads (Eq. 4).

    The heads are linear: the mean of their logits is the logit of the mean head.
    """
    uploaded = list(uploads.values())
    counts = torch.stack([upload.counts for upload in uploaded])
    head = average([upload.head for upload in uploaded], [upload.total for upload in uploaded])
    with phase("alignment"):
        loss = train_generator(hyper, state.generator, head, counts.sum(0), rng)
    return state, Download(head, copied(state.generator).state_dict(), counts.sum(0)), {"generator": loss}


def train_generator(hyper: Hyper, generator: nn.Sequential, head: Weights, counts: Tensor, rng: Rng) -> Tensor:
    """Steps towards features that the head assigns to their label; the loss of the last step."""
    last = torch.zeros((), device=counts.device)

    def objective(wanted: Tensor, drawn: Tensor) -> LossAndMetrics:
        loss = F.cross_entropy(F.linear(generator(drawn), **head), wanted)
        last.copy_(loss.detach())
        return loss, {}

    drawn = draws(hyper, counts, hyper.server_epochs, hyper.server_batch_size, rng)
    Adam(hyper.generator_lr, generator).minimise(objective, Steps(zip(*drawn, strict=True)))
    return last


ALGORITHM = Algorithm(
    "fedgen", "Zhu et al., ICML 2021, arXiv 2105.10056", Hyper=Hyper, Download=Download, init=init,
    client_update=client_update, server_update=server_update, predict=one_head.predict, check=one_head.check,
    phases=("alignment",), server_metrics={"generator": "loss of the generator"},
)  # fmt: skip
