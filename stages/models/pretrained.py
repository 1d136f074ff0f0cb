"""Pre-trained weights from a local file, as torchvision publishes them, for the base of a client model.

Our images lie in [-1, 1], which is what the published GoogLeNet and Inception expect; for the other architectures the
scale differs a little from the one they were trained on, for which further training makes up.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stages.errors import UserError, unknown
from stages.foreign import reason

CLIENT = {"base", "head", "shared", "private", "download"}  # what an exported client's tensors begin with
AUXILIARY = ("aux1", "aux2", "AuxLogits")  # heads of GoogLeNet and Inception that a client model lacks


@dataclass(frozen=True)
class Weights:
    """A file's named tensors."""

    file: str
    tensors: dict[str, Tensor]


def read(settings: Sequence[str], architectures: Iterable[str]) -> dict[str, Weights]:
    """The weights that settings ARCHITECTURE=FILE name, by architecture; `architectures` are those of the run.

    Raises UserError for a setting of another form, an architecture not in the run, a file that can't be read.
    """
    names = {architecture.partition("+")[0] for architecture in architectures}
    found = {}
    for setting in settings:
        name, _, file = setting.partition("=")
        if not file:
            raise UserError(f"Pre-trained weights are given as ARCHITECTURE=FILE, not '{setting}'.")
        if name not in names:
            raise unknown("architecture in this run", name, names)
        found[name] = opened(Path(os.path.expanduser(file)))
    return found


def digests(settings: Sequence[str]) -> dict[str, str]:
    """SHA-256 of the files that settings ARCHITECTURE=FILE name, by architecture; whatever is not a file is left to `read`."""
    named = {name: Path(os.path.expanduser(file)) for name, _, file in (setting.partition("=") for setting in settings)}
    return {name: sha256(path) for name, path in named.items() if path.is_file()}


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def opened(path: Path) -> Weights:
    """The state dict in a .safetensors file, or in a .pth file (or its checkpoint) read without running code from it."""
    if not path.is_file():
        raise UserError(f"There is no file {path} with pre-trained weights.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} can't be read without running code from it; save a state dict, torch.save(model.state_dict(), ...)."
        ) from error
    except Exception as error:  # a damaged file makes these readers raise nearly anything
        raise UserError(f"{path} can't be read as weights ({reason(error)}).") from error
    within = list(content.values()) if isinstance(content, dict) else []  # a checkpoint has an epoch and the like, too
    states = [each for each in (content, *within) if _is_state(each)]
    if len(states) != 1:
        raise UserError(f"{path} holds no state dict; save one with torch.save(model.state_dict(), ...).")
    return Weights(str(path), states[0])


def _is_state(value: object) -> bool:
    if not isinstance(value, dict) or not value:
        return False
    return all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items())


def load(base: nn.Module, cut: str, weights: Weights) -> None:
    """Start `base` from the weights, leaving out the classifier, once at the path `cut`, and auxiliary heads.

    Raises UserError that names the first tensor which is missing, has another shape, or has no place in the base.
    """
    own, tensors = base.state_dict(), fitted(base, weights)
    for name, tensor in own.items():
        if name not in tensors:
            if name.endswith("num_batches_tracked"):  # files older than this counter
                continue
            raise UserError(f"{weights.file} has no tensor {name}, which the model needs.")
        theirs, ours = (list(values.shape) for values in (tensors[name], tensor))
        if theirs != ours:
            raise UserError(f"In {weights.file} tensor {name} has shape {theirs}; the model's has {ours}.")
    for name in tensors:
        if name not in own and name.partition(".")[0] not in (cut.partition(".")[0], *AUXILIARY):
            raise UserError(f"{weights.file} is of another model: this one has no tensor {name}.")
    for name in own.keys() & tensors.keys():
        own[name].copy_(tensors[name])  # a state dict's tensors are the module's own


def unwrapped(tensors: dict[str, Tensor], own: Iterable[str]) -> dict[str, Tensor]:
    """The tensors without what wrappers put before every name (DataParallel `module.`, torch.compile `_orig_mod.`).

    Of a client model of ours, which is `base.` and `head.`, those of the base.
    """
    ours = {name.partition(".")[0] for name in own}
    while True:
        first = {name.partition(".")[0] for name in tensors}
        prefix = "base" if "base" in first and first <= CLIENT else first.pop() if len(first) == 1 else None
        if prefix is None or prefix in ours:
            return tensors
        inside = f"{prefix}."
        tensors = {name.removeprefix(inside): value for name, value in tensors.items() if name.startswith(inside)}


def fitted(base: nn.Module, weights: Weights) -> dict[str, Tensor]:
    """The tensors under today's names (DenseNet's changed), a ViT's position embedding resampled to its image size."""
    tensors = unwrapped(weights.tensors, base.state_dict())
    tensors = {re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2", k): v for k, v in tensors.items()}
    if "encoder.pos_embedding" not in tensors or not hasattr(base, "patch_size"):
        return tensors
    from torchvision.models.vision_transformer import interpolate_embeddings

    try:
        return dict(interpolate_embeddings(base.image_size, base.patch_size, tensors))
    except ValueError as error:
        raise UserError(f"{weights.file} does not fit the model: {error}.") from error
