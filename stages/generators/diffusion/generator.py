"""A diffusion pipeline as a Generator. Its latents are the noise that it starts from, flattened."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from stages.errors import UserError
from stages.generators.diffusion import library
from stages.generators.diffusion.folder import Geometry
from stages.randomness import Rng

PIXELS_AT_ONCE = 1 << 20  # in one batch: four pictures of 512 x 512

# Noise float32 [n, channels, side, side] and a generator for each row -> pictures float [n, 1 or 3, res, res], 0 to 1.
Draw = Callable[[Tensor, list[torch.Generator]], Tensor]


class Diffusion:
    """What the two kinds of pipeline share: standard normal latents, batches of bounded size, bytes at the end."""

    def __init__(
        self,
        geometry: Geometry,
        draw: Draw,
        device: torch.device,
        descriptor: dict[str, Any],
        embeddings: Mapping[str, Tensor],
    ):
        """`embeddings` are the encoded prompt, float32 [1, ...] on the CPU; empty without one."""
        self.latent_dim, self.resolution = geometry.latent_dim, geometry.resolution
        self.descriptor, self.embeddings = descriptor, dict(embeddings)
        self._geometry, self._draw, self._device = geometry, draw, device
        self._at_once = max(1, PIXELS_AT_ONCE // geometry.resolution**2)

    def sample_latents(self, n: int, rng: torch.Generator) -> Tensor:
        return torch.randn(n, self.latent_dim, generator=rng).to(self._device)

    @torch.inference_mode()
    def render(self, latents: Tensor) -> Tensor:
        """As the protocol says; a picture depends on its own latent alone, also under a scheduler that adds noise."""
        if latents.ndim != 2 or latents.shape[1] != self.latent_dim:
            raise UserError(f"Latents are {list(latents.shape)}, but this pipeline takes [n, {self.latent_dim}].")
        with library.calling(f"The pipeline in {self.descriptor['source']} can't draw"):
            return torch.cat([self._render(some) for some in torch.split(latents.float(), self._at_once)])

    def _render(self, latents: Tensor) -> Tensor:
        shape = (len(latents), self._geometry.channels, self._geometry.side, self._geometry.side)
        images = self._draw(latents.to(self._device).view(shape), _noise(latents)).float()
        if not images.isfinite().all():
            raise UserError(
                f"The pipeline in {self.descriptor['source']} drew values that are not finite numbers; with fp16, try bf16 "
                "or fp32."
            )
        return images.expand(-1, 3, -1, -1).mul(255).round_().clamp_(0, 255).to(torch.uint8)


def _noise(latents: Tensor) -> list[torch.Generator]:
    """A generator for each latent, seeded by it: pictures stay apart without depending on their company."""
    rows = latents.cpu().contiguous().numpy()
    return [Rng(0).torch("diffusion", hashlib.sha256(row.tobytes()).hexdigest()) for row in rows]
