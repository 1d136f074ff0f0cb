"""Pipelines that the diffusers library saved: text to image, and unconditional.

The library is optional (`pip install 'fedktl[diffusion]'`) and imported only when a pipeline is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stages.errors import UserError
from stages.generators.diffusion import folder as folders
from stages.generators.diffusion import library, text_to_image, unconditional
from stages.generators.diffusion.generator import Diffusion

PIPELINES: dict[str, Any] = {
    **dict.fromkeys(text_to_image.EMBEDDINGS, text_to_image),
    **dict.fromkeys(unconditional.PIPELINES, unconditional),
}


def load(
    weights: str | Path,
    *,
    prompt: str | None = None,
    negative_prompt: str | None = None,
    steps: int = 50,
    guidance: float = 7.5,
    scheduler: str | None = None,
    device: str | torch.device = "cpu",
    precision: str = "fp32",
    size: int | None = None,
    embeddings: Mapping[str, Tensor] | None = None,
) -> Diffusion:
    """The pipeline in a folder with a model_index.json, or the hub's pipeline `owner/name`, as a Generator.

    `steps` and `guidance` are diffusers' num_inference_steps and guidance_scale; `scheduler` is one of
    library.SCHEDULERS, by default the pipeline's own; `size` is the side of the pictures in pixels, by default the
    pipeline's own. Leaving out the negative prompt differs from an empty one. Given the `embeddings` of an earlier load, no text encoder is
    read. An unconditional pipeline takes no prompt and no size. UserError says what is wrong with the folder or an argument.
    """
    if steps < 1 or not math.isfinite(guidance) or guidance < 0:
        raise UserError(f"Steps must be at least 1 and guidance at least 0, not {steps} and {guidance}.")
    folder = library.opened(weights, PIPELINES)
    if PIPELINES[folder.pipeline] is unconditional:
        if prompt is not None or size is not None or embeddings is not None:
            raise UserError(f"{folder.path} draws without a prompt and at one size; leave out prompt and size.")
        return unconditional.load(folder, steps, scheduler, torch.device(device), precision)
    if prompt is None:
        raise UserError(f"{folder.path} draws what a prompt says; give one.")
    text = text_to_image.Text(prompt, negative_prompt, guidance, embeddings)
    return text_to_image.load(folder, text, steps, scheduler, torch.device(device), precision, size)


def describe(path: str | Path) -> dict[str, Any]:
    """What is in a folder, JSON-able; read from its configurations and headers, without the diffusers library."""
    folder = folders.read(Path(path), PIPELINES)
    adapter = PIPELINES[folder.pipeline]
    parts = adapter.parts(folder)
    folder.check(parts)
    geometry = adapter.geometry(folder)
    return {
        "family": adapter.FAMILY,
        "pipeline": folder.pipeline,
        "resolution": geometry.resolution,
        "latent_dim": geometry.latent_dim,
        "parameters": {part: count for part in folder.components if (count := folder.parameters(part))},
        "scheduler": folder.components["scheduler"],
        "source": folder.source,
        "sha256": folder.sha256(parts),
        "licence": folder.licence(),
    }
