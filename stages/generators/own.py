"""A user's own generator behind the protocol: its facts and outputs are checked, its exceptions become a UserError."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from stages import plugins
from stages.errors import UserError


class Own:
    """What `package.module:factory` made."""

    def __init__(self, made: Any, path: str):
        """UserError if it is not a generator."""
        parts = ("latent_dim", "resolution", "sample_latents", "render")
        if missing := [part for part in parts if not hasattr(made, part)]:
            raise UserError(f"'{path}' did not make a generator: it lacks {', '.join(missing)}.")
        self.latent_dim, self.resolution, self._made, self._path = made.latent_dim, made.resolution, made, path
        for name in ("latent_dim", "resolution"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise UserError(f"'{path}' did not make a generator: its {name} is not a positive whole number.")
        own = getattr(made, "descriptor", {})
        try:
            self.descriptor = {**json.loads(json.dumps(own, allow_nan=False)), "family": "factory", "factory": path}
        except (TypeError, ValueError, RecursionError) as error:
            raise UserError(
                f"'{path}' did not make a generator: its descriptor is not a JSON object ({error})."
            ) from error

    def sample_latents(self, n: int, rng: torch.Generator) -> Tensor:
        return self._checked("sample_latents", torch.float32, (n, self.latent_dim), n, rng)

    def render(self, latents: Tensor) -> Tensor:
        side = self.resolution
        return self._checked("render", torch.uint8, (len(latents), 3, side, side), latents)

    def _checked(self, name: str, dtype: torch.dtype, shape: tuple[int, ...], *arguments: Any) -> Tensor:
        found = plugins.called(f"'{self._path}' failed in {name}", getattr(self._made, name), *arguments)
        if not isinstance(found, Tensor) or (found.dtype, tuple(found.shape)) != (dtype, shape):
            what = f"{found.dtype} {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise UserError(f"'{self._path}' gave {what} from {name}, not {dtype} {list(shape)}.")
        return found
