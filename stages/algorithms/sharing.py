"""What algorithms that exchange weights have in common: averages, one head for all, auxiliary models."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from stages.algorithms.contract import ClientState, Predictor, Task, tensors
from stages.errors import UserError
from stages.models import split
from stages.models.split import SplitModel
from stages.randomness import Rng

Weights = Mapping[str, Tensor]


def average(states: Sequence[Weights], counts: Sequence[Tensor] | None = None) -> dict[str, Tensor]:
    """Mean of equal-shaped weights, each state counting as much as its number of images, or all alike."""
    numbers = counts or [torch.ones(())] * len(states)
    shares = torch.stack([number.cpu() for number in numbers]).double()
    means = {name: torch.zeros_like(tensor, dtype=torch.float32) for name, tensor in states[0].items()}
    for state, share in zip(states, (shares / shares.sum()).tolist(), strict=True):
        for name, mean in means.items():
            mean.add_(state[name], alpha=share)
    return {name: mean.to(states[0][name].dtype) for name, mean in means.items()}


def linear_heads(algorithm: str, task: Task, models: Sequence[SplitModel]) -> None:
    """Raises UserError unless every client's head is the same linear layer, feature_dim -> classes."""
    shapes = {"weight": (task.classes, task.feature_dim), "bias": (task.classes,)}
    for client, model in enumerate(models):
        if {name: tuple(tensor.shape) for name, tensor in tensors(model.head).items()} != shapes:
            raise UserError(
                f"{algorithm} shares one head among all clients, a linear layer {task.feature_dim} -> {task.classes}, "
                f"and client {client}'s is another; choose models with equal heads, such as the group HtFE8."
            )


def predict_with_head(hyper: Any, shared: Any, client: ClientState, download: Any, x: Tensor) -> Tensor:
    """Logits of the client's features under the head sent last; before there is one, under its own."""
    if download is None:
        return client.model(x)
    return functional_call(client.model.head, dict(download.head), (client.model.features(x),))


def sent_head(hyper: Any, shared: Any, client: ClientState, download: Any) -> Predictor:
    if download is None:
        return Predictor()
    return Predictor(tensors={f"head.{name}": tensor for name, tensor in download.head.items()})


def auxiliary(architecture: str, task: Task, rng: Rng, feature_dim: int) -> SplitModel:
    """The auxiliary model at the start that everyone derives from the seed.

    Raises UserError for an architecture that there is not, or that does not take the images.
    """
    (name,) = split.architectures(architecture, 1)
    model = split.build(name, task.image_shape, task.classes, feature_dim, rng.seed("auxiliary"))
    split.shapes(model, task.image_shape)
    return model.to(task.device)


def copied(module: nn.Module, weights: Weights | None = None) -> Any:
    """A copy of a module to train, with these weights if they are given."""
    own = copy.deepcopy(module)
    if weights is not None:
        own.load_state_dict(weights)
    return own
