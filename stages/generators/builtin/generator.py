"""The built-in network as a Generator. Its latent space is W, with mean 0 and variance 1 on average."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load
from torch import Tensor

from stages.errors import UserError, printable
from stages.generators.builtin.network import LATENT_DIM, WIDEST, WIDTHS, Network
from stages.pixels import to_uint8

WEIGHTS = Path(__file__).parent / "weights.safetensors"  # what they are: README.md beside them


class Builtin:
    """A network on a device, told apart from others by `facts`."""

    latent_dim = LATENT_DIM
    resolution = 32

    def __init__(self, device: torch.device, network: Network, facts: dict[str, Any]):
        self._network = network.eval().requires_grad_(False).to(device)
        self._device = device
        self.descriptor: dict[str, Any] = {"family": "builtin", **facts}

    @torch.no_grad()
    def sample_latents(self, n: int, rng: torch.Generator) -> Tensor:
        return self._network.mapping(torch.randn(n, LATENT_DIM, generator=rng).to(self._device))

    @torch.no_grad()
    def render(self, latents: Tensor) -> Tensor:
        return to_uint8(self._network.synthesis(latents.to(self._device)))

    @torch.no_grad()
    def pixels(self, latents: Tensor) -> Tensor:
        return self._network.synthesis(latents.to(self._device)).mul(127.5).add_(127.5).clamp_(0, 255)


def facts(path: Path) -> dict[str, str]:
    """What `train` wrote about the weights in a file; empty if it holds no weights of this network."""
    if not path.is_file():  # opening a pipe would wait for ever
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            found = file.metadata() or {}
    except (SafetensorError, OSError):
        return {}
    return found if found.get("family") == "builtin" else {}


def widths(tensors: dict[str, Tensor]) -> list[int]:
    """The channels of the blocks of a network of which these are the weights. ValueError if there can't be such a network."""
    found = [len(tensors[f"blocks.{block}.conv.weight"]) for block in range(len(WIDTHS))]
    if not all(1 <= width <= WIDEST for width in found):
        raise ValueError(f"its blocks have {found} channels, not 1 to {WIDEST}")
    return found


def pretrained(device: torch.device, path: Path = WEIGHTS) -> Builtin:
    """The generator of a weight file that `train` wrote, by default the one that comes with fedktl.

    Raises UserError for a file that is not one.
    """
    content = path.read_bytes()
    try:
        tensors = load(content)
        network = Network(widths(tensors))
        network.load_state_dict(tensors)
        training = "{steps} steps on {images} images".format_map(facts(path))
    except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} holds no weights of the built-in generator ({printable(str(error))}).") from error
    if not all(tensor.isfinite().all() for tensor in network.state_dict().values()):
        raise UserError(f"{path} holds weights of the built-in generator that are not finite.")
    return Builtin(device, network, {"training": training, "sha256": hashlib.sha256(content).hexdigest()})
