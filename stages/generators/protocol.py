"""What fedktl asks of an image generator."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor


class Generator(Protocol):
    """A frozen generator on one device: latents in, pictures out."""

    latent_dim: int  # H
    resolution: int  # side of what `render` returns, in pixels
    descriptor: dict[str, Any]  # JSON-able: at least `family`, and all that is needed to build it again

    def sample_latents(self, n: int, rng: torch.Generator) -> Tensor:
        """n latents float32 [n, H] from the generator's own distribution; `rng` is a CPU generator."""

    def render(self, latents: Tensor) -> Tensor:
        """Images uint8 [n, 3, resolution, resolution] of latents float32 [n, H].

        A generator may also have `pixels`, which gives them as float32 in 0..255 before they become bytes.
        """
