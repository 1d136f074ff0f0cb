"""Pre-trained weights from a local file, as torchvision publishes them, for the base of a client model.

Our images lie in [-1, 1], which is what the published GoogLeNet and Inception expect; for the other architectures the
scale differs a little from the one they were trained on, and training on from here takes that up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from stages.errors import UserError, unknown
from stages.foreign import reason

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
        found[name] = opened(Path(file).expanduser())
    return found


def opened(path: Path) -> Weights:
    """The state dict in a .safetensors file, or in a .pth file read without running code from it."""
    if not path.is_file():
        raise UserError(f"There is no file {path} with pre-trained weights.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            tensors = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes these readers raise nearly anything
        raise UserError(f"{path} can't be read as weights ({reason(error)}).") from error
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise UserError(f"{path} holds no state dict; save one with torch.save(model.state_dict(), ...).")
    return Weights(str(path), tensors)


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


def fitted(base: nn.Module, weights: Weights) -> dict[str, Tensor]:
    """The tensors under today's names (DenseNet's changed), a ViT's position embedding resampled to its image size."""
    tensors = {re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2", k): v for k, v in weights.tensors.items()}
    if "encoder.pos_embedding" not in tensors or not hasattr(base, "patch_size"):
        return tensors
    from torchvision.models.vision_transformer import interpolate_embeddings

    try:
        return dict(interpolate_embeddings(base.image_size, base.patch_size, tensors))  # type: ignore[arg-type]
    except ValueError as error:
        raise UserError(f"{weights.file} does not fit the model: {error}.") from error
