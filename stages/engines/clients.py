"""What a client does in a round, wherever it lives: functions of its own state and images and of what came down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stages import memory
from stages.algorithms.contract import Batches, ClientState, eval_batch, normalised
from stages.engines.federation import Diverged, Federation, Share


@dataclass(frozen=True)
class Answer:
    """What comes back from a client that trained."""

    upload: Any  # the algorithm's record, or None
    metrics: dict[str, float]


def train(federation: Federation, client: int, state: ClientState, share: Share, rounds: int, download: Any) -> Answer:
    """Local training in the round after `rounds` are done; changes `state`."""
    rng = federation.rng.at("round", rounds).at("client", client)
    with torch.random.fork_rng(device_list(federation.device)):
        torch.manual_seed(rng.seed("layers"))  # for dropout and the like inside a user's model
        upload, metrics = federation.algorithm.client_update(
            federation.hyper, federation.shared, state, download, batches(federation, share), rng
        )
        answer = Answer(upload, scalars(metrics))
    memory.give_back()
    return answer


def batches(federation: Federation, share: Share) -> Batches:
    settings = federation.settings
    return Batches(
        share.images, share.labels, settings.batch_size, settings.local_epochs, settings.shuffle, settings.drop_last
    )


@torch.no_grad()
def right(federation: Federation, state: ClientState, share: Share, download: Any) -> Tensor:
    """How many images of a share its client labels rightly: int64 [], on the device."""
    hits, size = torch.zeros((), dtype=torch.int64, device=federation.device), eval_batch(federation.device)
    if not len(share.labels):
        return hits
    model = state.model.eval()
    for images, labels in zip(share.images.split(size), share.labels.split(size), strict=True):
        scores = federation.algorithm.predict(federation.hyper, federation.shared, state, download, normalised(images))
        hits += (scores.argmax(1) == labels).sum()
    model.train()
    return hits


def scalars(metrics: Mapping[str, Tensor]) -> dict[str, float]:
    """Metrics as numbers, the one point of a client's round that waits for the device."""
    return {name: float(value) for name, value in metrics.items()}


def check_finite(metrics: Mapping[str, float], who: str, rounds: int) -> None:
    """Raises Diverged for a metric of the round after `rounds` that is no number."""
    for name, value in metrics.items():
        if not torch.tensor(value).isfinite():
            raise Diverged(f"{who} diverged in round {rounds + 1}: its {name} is {value}")


def device_list(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []
