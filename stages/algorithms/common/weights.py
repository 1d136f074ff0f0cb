"""What algorithms that exchange weights have in common: averages, auxiliary models."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from stages.algorithms.contract import Task
from stages.errors import UserError, printable
from stages.models import split
from stages.models.split import SplitModel
from stages.randomness import Rng

Weights = Mapping[str, Tensor]
Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Upload:
    """A model, or the part of one that clients exchange."""

    weights: Weights
    count: Tensor  # int64 [], training images


@dataclass(frozen=True)
class Download:
    """The average over the clients."""

    weights: Weights


def weighted_average(uploads: Mapping[int, Upload]) -> dict[str, Tensor]:
    """Mean of the uploaded weights, each client counting as much as its training images."""
    return average([upload.weights for upload in uploads.values()], [upload.count for upload in uploads.values()])


def average(states: Sequence[Weights], counts: Sequence[Tensor] | None = None) -> dict[str, Tensor]:
    """Mean of equal-shaped weights, each state counting as much as its number of images, or all alike.

    Whole numbers, such as BatchNorm's count of batches, are rounded.
    """
    numbers = counts or [torch.ones(())] * len(states)
    shares = torch.stack([number.cpu() for number in numbers]).double()
    means = {name: torch.zeros_like(tensor, dtype=torch.float32) for name, tensor in states[0].items()}
    for state, share in zip(states, (shares / shares.sum()).tolist(), strict=True):
        for name, mean in means.items():
            mean.add_(state[name], alpha=share)
    kinds = {name: tensor.dtype for name, tensor in states[0].items()}
    return {
        name: (mean if kinds[name].is_floating_point else mean.round()).to(kinds[name]) for name, mean in means.items()
    }


def auxiliary(architecture: str, task: Task, rng: Rng, feature_dim: int) -> SplitModel:
    """The auxiliary model at the start that everyone derives from the seed.

    Raises UserError for an architecture that does not exist or does not take the images, and for several.
    """
    name, *more = split.listed(architecture)
    if more:
        raise UserError(f"The auxiliary model is one architecture, and '{printable(architecture)}' is {1 + len(more)}.")
    model = split.build(name, task.image_shape, task.classes, feature_dim, rng.seed("auxiliary"))
    split.shapes(model, task.image_shape)
    return split.laid_out(model.to(task.device), task.channels_last, task.device)


def called_with(module: nn.Module, weights: Weights, x: Tensor) -> Tensor:
    """What the module makes of x with these weights in the place of its own; any that are missing stay its own.

    Those that came from another process lie otherwise in memory, and convolutions would round otherwise. Layers that share
    weights find them under each of their names.
    """
    own = *module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)
    strides = {name: tensor.stride() for name, tensor in own}
    alike = {name: strided(value, strides[name]) for name, value in weights.items()}
    found: Tensor = functional_call(module, alike, (x,), tie_weights=False)
    return found


def strided(tensor: Tensor, strides: tuple[int, ...]) -> Tensor:
    """The tensor, or a copy with these strides if its own are others."""
    if tensor.stride() == strides:
        return tensor
    return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=tensor.device).copy_(tensor)


def copied(module: Module, weights: Weights | None = None) -> Module:
    """A copy of a module to train, with these weights if they are given."""
    kept = [value for layer in module.modules() for value in vars(layer).values() if isinstance(value, Tensor)]
    computed = {id(value): value.detach() for value in kept if not value.is_leaf}  # as by `nn.utils.weight_norm`
    own = copy.deepcopy(module, computed)
    if weights is not None:
        own.load_state_dict(weights)
    return own
