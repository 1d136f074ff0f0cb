"""Image-latent pairs for a round: matched from a bank, or rendered live."""

from __future__ import annotations

import torch
from torch import Tensor

from stages.errors import UserError
from stages.generators.matching import match
from stages.generators.protocol import Generator
from stages.pixels import resized


class BankPairs:
    """No generator at all: each centroid gets the bank's latents that match it, and these latents' own images."""

    def __init__(self, latents: Tensor, images: Tensor, size: int, classes: int, per_class: int = 1):
        """latents float32 [n, H], images uint8 [n, 3, s, s], brought to size x size."""
        if len(latents) < classes * per_class:
            raise UserError(
                f"The bank holds {len(latents)} latents and {classes} classes need {per_class} each; generate a larger bank."
            )
        self._latents, self._images, self._per_class = latents, resized(images, size), per_class
        self.latent_dim = latents.shape[1]

    def sample_latents(self, n: int, rng: torch.Generator) -> Tensor:
        return self._latents[torch.randint(len(self._latents), (n,), generator=rng).to(self._latents.device)]

    def pairs(self, centroids: Tensor) -> tuple[Tensor, Tensor]:
        """`per_class` latents for each centroid and none twice, with the least sum of distances."""
        rows = match(torch.cdist(centroids, self._latents), self._per_class)
        return self._images[rows], self._latents[rows]


class LivePairs:
    """The paper's loop: the generator renders the centroids themselves."""

    def __init__(
        self, generator: Generator, size: int, device: torch.device, floats: bool = False, antialias: bool = True
    ):
        """Pictures as bytes, or as the floats in 0..255 that the generator computes."""
        self._generator, self._size, self._device = generator, size, device
        self._floats, self._antialias = floats, antialias
        self.latent_dim = generator.latent_dim

    def sample_latents(self, n: int, rng: torch.Generator) -> Tensor:
        return self._generator.sample_latents(n, rng).to(self._device)

    def pairs(self, centroids: Tensor) -> tuple[Tensor, Tensor]:
        images = resized(self._drawn(centroids), self._size, self._antialias)
        return images.to(self._device), centroids.clone()

    def _drawn(self, centroids: Tensor) -> Tensor:
        if not self._floats:
            return self._generator.render(centroids)
        pixels = getattr(self._generator, "pixels", None)  # diffusion has none: there the reference, too, draws bytes
        return pixels(centroids) if pixels else self._generator.render(centroids).float()
