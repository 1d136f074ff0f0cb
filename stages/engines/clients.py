"""What a client does in a round, on any engine: functions of its own state and images and of the download."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stages import memory
from stages.algorithms.common.batches import Batches, eval_batch
from stages.algorithms.contract import ClientState
from stages.artifacts.schemas import EVALUATED
from stages.engines.federation import ClientData, Diverged, Federation
from stages.models.split import parameters
from stages.pixels import normalised
from stages.randomness import seeded


@dataclass(frozen=True)
class Answer:
    """What comes back from a client that trained."""

    upload: Any  # the algorithm's record, or None
    metrics: dict[str, float]


def train(
    federation: Federation, client: int, state: ClientState, share: ClientData, rounds: int, download: Any
) -> Answer:
    """Local training in the round that follows `rounds` finished ones; changes `state`."""
    rng = federation.rng.at("round", rounds).at("client", client)
    with seeded(rng.seed("layers"), federation.device):  # for dropout and the like in a user's model
        upload, metrics = federation.algorithm.client_update(
            federation.hyper, federation.shared, state, download, batches(federation, share), rng
        )
        upload = federation.hyper.released(upload, federation.algorithm.unit_rows, rng)
        answer = Answer(upload, scalars(metrics))
    memory.give_back()
    return answer


def batches(federation: Federation, share: ClientData) -> Batches:
    settings = federation.settings
    return Batches(
        share.images, share.labels, settings.batch_size, settings.local_epochs, settings.shuffle, settings.drop_last
    )


def evaluated(
    federation: Federation, state: ClientState, shares: Mapping[str, ClientData], download: Any
) -> dict[str, Tensor]:
    """By split, how many images the client classifies correctly, int64 []; of test also `test_auc`, float64 [], and
    `test_confusion`, int64 [C, C]: its images by class and by the label they get. On the device."""
    measured = {}
    for split in EVALUATED:
        scores, labels = scored(federation, state, shares[split], download), shares[split].labels
        measured[split] = (scores.argmax(1) == labels).sum()
        if split == "test":
            measured["test_auc"] = micro_auc(scores, labels)
            measured["test_confusion"] = confusion(scores.argmax(1), labels, federation.classes)
    return measured


@torch.no_grad()
def scored(federation: Federation, state: ClientState, share: ClientData, download: Any) -> Tensor:
    """The client's class scores for its images, float32 [n, C]."""
    if not len(share.labels):
        return torch.zeros(0, federation.classes, device=federation.device)
    model = state.model.eval()
    parts = share.images.split(eval_batch(share.images, parameters(model)))
    predict, known = federation.algorithm.predict, (federation.hyper, federation.shared, state, download)
    scores = torch.cat([predict(*known, normalised(images)) for images in parts])
    model.train()
    return scores


def micro_auc(scores: Tensor, labels: Tensor) -> Tensor:
    """Micro-averaged area under the ROC curve of all scores [n, C], float64 []: own class against the others.

    The fraction of (own score, other score) pairs with the own one higher, where ties count half; NaN without images.
    """
    own = labels[:, None]
    positives, others = scores.gather(1, own), scores.scatter(1, own, torch.inf).flatten().sort().values
    lower = torch.searchsorted(others, positives) + torch.searchsorted(others, positives, right=True)
    return lower.double().mean() / (2 * (scores.numel() - len(scores)))


def confusion(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """int64 [C, C]: how many images of each class (row) get each label (column)."""
    return torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, classes)


def scalars(metrics: Mapping[str, Tensor]) -> dict[str, float]:
    """Metrics as numbers: the one point in a client's round that waits for the device."""
    return {name: float(value) for name, value in metrics.items()}


def check_finite(metrics: Mapping[str, float], who: str, rounds: int) -> None:
    """Raises Diverged for a metric that is not finite, in the round that follows `rounds` finished ones."""
    for name, value in metrics.items():
        if not torch.tensor(value).isfinite():
            raise Diverged(f"{who} diverged in round {rounds + 1}: its {name} is {value}")
