"""Unconditional pipelines: noise to pixels by one network (Ho et al., arXiv 2006.11239; Song et al., 2010.02502)."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from stages.errors import UserError
from stages.generators import precision as precisions
from stages.generators.diffusion import library
from stages.generators.diffusion.folder import Folder, Geometry
from stages.generators.diffusion.generator import Diffusion

FAMILY = "ddpm"
PIPELINES = ("DDPMPipeline", "DDIMPipeline")


def parts(folder: Folder) -> list[str]:
    return ["unet", "scheduler"]


def geometry(folder: Folder) -> Geometry:
    channels, side = folder.number("unet", "in_channels"), folder.number("unet", "sample_size")
    if channels not in (1, 3) or folder.number("unet", "out_channels") != channels:
        raise UserError(f"{folder.path} does not draw grey or coloured pictures from noise alone.")
    return Geometry(channels, side, side)


def load(folder: Folder, steps: int, scheduler: str | None, device: torch.device, precision: str) -> Diffusion:
    """Run by DDIM without noise (eta 0) unless another scheduler is asked for, also where the folder's own is DDPM."""
    folder.check(parts(folder))
    precision = precisions.resolved(precision, device, on_gpu="bf16")
    shape, dtype = geometry(folder), precisions.dtype(precision, device)
    kind = library.scheduler_class(folder, scheduler or "ddim")
    pipeline = library.with_scheduler(library.pipeline(folder, parts(folder), dtype, device), kind, steps)
    unet, schedule = pipeline.unet, pipeline.scheduler
    takes_noise = "generator" in inspect.signature(schedule.step).parameters

    def draw(noise: Tensor, generators: list[torch.Generator]) -> Tensor:
        more: dict[str, Any] = {"generator": generators} if takes_noise else {}
        schedule.set_timesteps(steps, device=device)
        x: Tensor = noise.to(dtype) * schedule.init_noise_sigma
        for time in schedule.timesteps:
            predicted = unet(schedule.scale_model_input(x, time), time).sample
            x = schedule.step(predicted, time, x, **more).prev_sample
        return x / 2 + 0.5

    descriptor = {
        "family": FAMILY,
        "source": folder.source,
        "sha256": folder.sha256(parts(folder)),
        "pipeline": folder.pipeline,
        "steps": steps,
        "scheduler": kind,
        "precision": precision,
        "licence": folder.licence(),
    }
    return Diffusion(shape, draw, device, descriptor, {})
