"""The StyleGAN families as a Generator. Their latent space is W, and one w serves every layer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from stages.devices import exact_float32
from stages.errors import UserError, unknown
from stages.generators.precision import dtype, resolved
from stages.generators.stylegan import checkpoint
from stages.generators.stylegan.checkpoint import Checkpoint
from stages.settings import IMAGE_RANGES

AT_ONCE = 1 << 27  # numbers in the largest activation of a batch; 512 MB in float32


class StyleGAN:
    """StyleGAN2, StyleGAN3 or StyleGAN-XL on one device."""

    def __init__(
        self,
        weights: Checkpoint,
        device: torch.device,
        truncation: float,
        class_id: int | None,
        precision: str,
        image_range: str,
    ):
        """See `load`."""
        mapping, synthesis = weights.config.mapping, weights.config.synthesis
        if not 0 <= truncation <= 2:
            raise UserError(f"Truncation must be between 0 and 2, not {truncation}.")
        if class_id is not None and not 0 <= class_id < mapping.c_dim:
            known = f"class ids from 0 to {mapping.c_dim - 1}" if mapping.c_dim else "no classes"
            raise UserError(f"{weights.header.source} has {known}, so there is no class id {class_id}.")
        if image_range not in IMAGE_RANGES:
            raise unknown("image range", image_range, IMAGE_RANGES)
        self.latent_dim, self.resolution = mapping.w_dim, synthesis.resolution
        self._z_dim, self._c_dim = mapping.z_dim, mapping.c_dim
        self._truncation, self._class_id, self._reference = truncation, class_id, image_range == "reference"
        self._family, self._device = weights.header.family, device
        precision = resolved(precision, device, on_gpu="fp16")
        self._precision = dtype(precision, device)
        self._network = weights.network.to(device)
        self._images_at_once = max(1, AT_ONCE // synthesis.largest)
        self.descriptor: dict[str, Any] = {
            "family": self._family,
            "source": weights.header.source,
            "sha256": weights.header.sha256,
            "truncation": truncation,
            "class_id": class_id,
            "precision": precision,
            "image_range": image_range,
            "licence": weights.header.licence,
        }

    @torch.no_grad()
    def sample_latents(self, n: int, rng: torch.Generator) -> Tensor:
        z = torch.randn(n, self._z_dim, generator=rng).to(self._device)
        c = self._classes(n, rng)
        return self._network.mapping.truncated(self._network.mapping(z, c), c, self._truncation)

    def _classes(self, n: int, rng: torch.Generator) -> Tensor | None:
        """One-hot rows float32 [n, c_dim]: the class asked for, or classes at random."""
        if not self._c_dim:
            return None
        if self._class_id is None:
            classes = torch.randint(self._c_dim, (n,), generator=rng)
        else:
            classes = torch.full((n,), self._class_id)
        return F.one_hot(classes, self._c_dim).float().to(self._device)

    @torch.inference_mode()
    def render(self, latents: Tensor) -> Tensor:
        """The pixels rounded, or truncated, as the references do."""
        parts = self._drawn(latents)
        return torch.cat([(part if self._reference else part.round_()).to(torch.uint8) for part in parts])

    @torch.no_grad()
    def pixels(self, latents: Tensor) -> Tensor:
        return torch.cat(list(self._drawn(latents)))

    def _drawn(self, latents: Tensor) -> Iterator[Tensor]:
        """Pixels float32 in 0..255, a few images at a time."""
        offset = 128 if self._reference and self._family != "stylegan-xl" else 127.5
        with exact_float32():
            for w in torch.split(latents.to(self._device, torch.float32), self._images_at_once):
                ws = w[:, None].expand(-1, self._network.synthesis.num_ws, -1)
                yield self._network.synthesis(ws, self._precision).mul(127.5).add_(offset).clamp_(0, 255)


def load(
    weights: Path,
    *,
    device: str | torch.device = "cpu",
    truncation: float = 1.0,
    class_id: int | None = None,
    precision: str = "fp32",
    image_range: str = "sound",
) -> StyleGAN:
    """The generator in an official snapshot or a converted `.safetensors`, whichever StyleGAN family it is of.

    `truncation` is psi, in [0, 2]; `class_id` fixes the class of conditional ones, else each latent has one at random;
    `precision` is fp32, fp16 or bf16, or auto: fp16 on a GPU, in the layers that the official networks run in it, and
    fp32 on a CPU; `image_range` 'sound' rounds once, 'reference' maps to bytes as FedKTL's
    reference does. UserError says what is wrong with the file or an argument.
    """
    return StyleGAN(checkpoint.read(weights), torch.device(device), truncation, class_id, precision, image_range)
