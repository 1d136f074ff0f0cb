"""Text to image: Stable Diffusion in its versions, their turbo and latent consistency models."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from stages.errors import UserError
from stages.generators import precision as precisions
from stages.generators.diffusion import library
from stages.generators.diffusion.folder import INDEX, Folder, Geometry
from stages.generators.diffusion.generator import Diffusion

FAMILY = "stable-diffusion"
LARGEST = 4096  # side of a picture, in pixels
PAIR = ("prompt_embeds", "negative_prompt_embeds")
POOLED = (*PAIR, "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
EMBEDDINGS = {  # pipeline -> what its encode_prompt returns, as its call names it
    "StableDiffusionPipeline": PAIR,
    "StableDiffusionXLPipeline": POOLED,
    "StableDiffusion3Pipeline": POOLED,
    "LatentConsistencyModelPipeline": PAIR[:1],  # guidance is an input of the network
}


@dataclass(frozen=True)
class Text:
    """What to draw."""

    prompt: str
    negative_prompt: str | None  # None: whatever the pipeline takes for no text, which for SDXL is not ""
    guidance: float
    embeddings: Mapping[str, Tensor] | None  # of this very text, if they are at hand

    def names(self, folder: Folder) -> tuple[str, ...]:
        """The embeddings that the pipeline takes; the negative ones with guidance only."""
        names = EMBEDDINGS[folder.pipeline]
        return names if self.guidance > 1 else tuple(name for name in names if "negative" not in name)


def parts(folder: Folder) -> list[str]:
    """The parts that draw."""
    return [_network(folder), "vae", "scheduler"]


def geometry(folder: Folder, size: int | None = None) -> Geometry:
    """Of pictures of `size` pixels, by default the size that the network was trained for."""
    _check_text_is_enough(folder)
    network, scale = _network(folder), folder.vae_scale()
    channels = folder.number(network, "in_channels")
    if channels != folder.number("vae", "latent_channels"):
        raise UserError(f"{folder.path} needs a picture besides the prompt; only text can be given here.")
    step = max(8, scale * (folder.number(network, "patch_size") if network == "transformer" else 1))
    resolution = folder.number(network, "sample_size") * scale if size is None else size
    if resolution % step or not step <= resolution <= LARGEST:
        raise UserError(
            f"{folder.path} draws pictures whose side is a multiple of {step} pixels up to {LARGEST}, not {resolution}."
        )
    return Geometry(channels, resolution // scale, resolution)


def load(
    folder: Folder,
    text: Text,
    steps: int,
    scheduler: str | None,
    device: torch.device,
    precision: str,
    size: int | None,
) -> Diffusion:
    """The prompt is encoded first, and its encoders are discarded before the rest of the pipeline is read."""
    folder.check(parts(folder))
    precision = precisions.resolved(precision, device, on_gpu="bf16")
    shape, dtype = geometry(folder, size), precisions.dtype(precision, device)
    kind = library.scheduler_class(folder, scheduler)
    embeddings = encoded(folder, text, dtype, device) if text.embeddings is None else text.embeddings
    if set(embeddings) != set(text.names(folder)):
        raise UserError(
            f"The embeddings are {', '.join(embeddings)}; a {folder.pipeline} with guidance {text.guidance:g} takes "
            f"{', '.join(text.names(folder))}."
        )
    pipeline = library.with_scheduler(library.pipeline(folder, parts(folder), dtype, device), kind, steps)
    placed = {name: value.to(device, dtype) for name, value in embeddings.items()}
    draw = drawing(pipeline, placed, dtype, steps, text.guidance, shape.resolution)
    descriptor = {
        "family": FAMILY,
        "source": folder.source,
        "sha256": folder.sha256(parts(folder)),
        "pipeline": folder.pipeline,
        "prompt": text.prompt,
        "negative_prompt": text.negative_prompt,
        "steps": steps,
        "guidance": text.guidance,
        "scheduler": kind,
        "size": shape.resolution,
        "precision": precision,
        "licence": folder.licence(),
    }
    return Diffusion(shape, draw, device, descriptor, embeddings)


def drawing(
    pipeline: Any, embeddings: Mapping[str, Tensor], dtype: torch.dtype, steps: int, guidance: float, size: int
) -> Callable[[Tensor, list[torch.Generator]], Tensor]:
    """Draws pictures of `size` pixels from noise, each with its own random generator, which the scheduler may use."""

    def draw(noise: Tensor, generators: list[torch.Generator]) -> Tensor:
        images: Tensor = pipeline(
            **{name: value.repeat_interleave(len(noise), dim=0) for name, value in embeddings.items()},
            latents=noise.to(dtype),
            generator=generators,
            num_inference_steps=steps,
            guidance_scale=guidance,
            height=size,
            width=size,
            output_type="pt",
        ).images
        return images

    return draw


@torch.no_grad()
def encoded(folder: Folder, text: Text, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """The prompt's embeddings float32 [1, ...] on the CPU, by the names that the pipeline's call has for them."""
    encoders = [part for part in folder.components if part.startswith(("text_encoder", "tokenizer"))]
    pipeline = library.pipeline(folder, [*encoders, "scheduler"], dtype, device)
    more_encoders = {"prompt_2", "prompt_3"} & inspect.signature(pipeline.encode_prompt).parameters.keys()
    if "prompt_3" in more_encoders and "text_encoder_3" not in encoders:  # left out, it counts as zeros of this width
        width = folder.number("transformer", "joint_attention_dim")
        pipeline.transformer = SimpleNamespace(config=SimpleNamespace(joint_attention_dim=width))
    with library.calling(f"{folder.path} can't encode the prompt"):
        values = pipeline.encode_prompt(
            prompt=text.prompt,
            negative_prompt=text.negative_prompt,
            do_classifier_free_guidance=text.guidance > 1,
            num_images_per_prompt=1,
            device=device,
            **dict.fromkeys(more_encoders),  # the same prompt for each
        )
    found = dict(zip(EMBEDDINGS[folder.pipeline], values, strict=False))
    return {name: found[name].float().cpu() for name in text.names(folder)}


def _check_text_is_enough(folder: Folder) -> None:
    if folder.flags.get("requires_aesthetics_score"):
        raise UserError(
            f"{folder.path} holds a refiner, which only changes pictures; give the base model that draws them."
        )
    suffixes = ("", "_2") if EMBEDDINGS[folder.pipeline] is POOLED else ("",)
    for part in (name + suffix for suffix in suffixes for name in ("text_encoder", "tokenizer")):
        if part not in folder.components:
            raise UserError(f"{folder.path} can't read a prompt: its {INDEX} names no {part}.")


def _network(folder: Folder) -> str:
    return "transformer" if "transformer" in folder.components else "unet"
