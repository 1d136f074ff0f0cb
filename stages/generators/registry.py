"""Generators by family, and again from what a latents artifact recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stages import plugins
from stages.errors import UserError, unknown
from stages.generators.own import Own
from stages.generators.protocol import Generator
from stages.settings import Generate

STYLEGANS = ("stylegan2", "stylegan3", "stylegan-xl")
DIFFUSIONS = ("stable-diffusion", "ddpm")
FAMILIES = ("builtin", *STYLEGANS, *DIFFUSIONS)
SOURCE = ("family", "factory", "sha256", "training", "seed")  # what tells one generator from another


def make(settings: Generate, device: torch.device, embeddings: Mapping[str, Tensor] | None = None) -> Generator:
    """The generator that the settings describe. `embeddings` are a prompt's, encoded before.

    Raises UserError for an unknown family, or weights that are missing, unreadable or of another family.
    """
    name = settings.generator
    if plugins.is_path(name):
        return from_factory(name, device)
    if name not in ("auto", *FAMILIES):
        raise unknown("generator", name, ("auto", *FAMILIES))
    if settings.weights is None:
        if name not in ("auto", "builtin"):
            raise UserError(f"The generator {name} needs its weights; give them as `weights`.")
        return from_package(settings, device)
    generator = from_weights(settings, settings.weights, device, embeddings)
    family = generator.descriptor["family"]
    if name not in ("auto", family):
        raise UserError(
            f"{settings.weights} holds a {family} generator, not {name}; give `generator={family}` or auto."
        )
    return generator


def from_factory(path: str, device: torch.device) -> Generator:
    """A user's own: `package.module:factory`, called as factory(device)."""
    return Own(plugins.load(path, "generator")(device), path)


def from_package(settings: Generate, device: torch.device) -> Generator:
    """The built-in one."""
    from stages.generators.builtin.generator import pretrained

    no_prompt(settings)
    return pretrained(device)


def from_weights(
    settings: Generate, weights: str, device: torch.device, embeddings: Mapping[str, Tensor] | None
) -> Generator:
    """A file holds a built-in network trained anew or a StyleGAN, a folder or a hub name a diffusion pipeline."""
    from stages.generators.builtin import generator as builtin

    path = Path(weights).expanduser()
    if builtin.facts(path):
        no_prompt(settings)
        return builtin.pretrained(device, path)
    if path.is_file():
        from stages.generators.stylegan.generator import load

        made = load(
            path, device=device, truncation=settings.truncation, class_id=settings.class_id,
            precision=settings.precision, image_range=settings.image_range,
        )  # fmt: skip
        no_prompt(settings)  # last, so that a file that is not a StyleGAN is reported as such first
        return made
    if path.suffix in (".pkl", ".safetensors") or (weights.startswith((".", "/", "~")) and not path.is_dir()):
        raise UserError(f"There are no weights at {weights}.")
    from stages.generators import diffusion

    return diffusion.load(
        path if path.is_dir() else weights, prompt=settings.prompt, negative_prompt=settings.negative_prompt,
        steps=settings.steps, guidance=settings.guidance, scheduler=settings.scheduler, device=device,
        precision=settings.precision, embeddings=embeddings,
    )  # fmt: skip


def no_prompt(settings: Generate) -> None:
    for name in ("prompt", "negative_prompt", "scheduler"):
        if getattr(settings, name) is not None:
            raise UserError(f"This generator draws without a {name.replace('_', ' ')}; leave out `{name}`.")


def again(
    recorded: Mapping[str, Any], descriptor: Mapping[str, Any], embeddings: Mapping[str, Tensor],
    allowed: str | None, weights: str | None, device: torch.device,
) -> Generator:  # fmt: skip
    """The generator that rendered a bank, from its settings and descriptor.

    User code that the bank names runs only if the user names it again in `allowed`; `weights` says where the weights
    lie now. UserError if what is found is another generator.
    """
    if descriptor.get("family") == "factory":
        with plugins.only(allowed):
            return from_factory(str(descriptor.get("factory")), device)
    settings = Generate.make({name: value for name, value in recorded.items() if name != "device"})
    settings = replace(settings, generator=str(descriptor.get("family")), weights=weights or settings.weights)
    generator = make(settings, device, embeddings or None)
    if any(generator.descriptor.get(name) != descriptor.get(name) for name in SOURCE):
        if settings.weights is None:
            raise UserError("The built-in generator is not the one that made this bank; generate the bank again.")
        raise UserError(f"{settings.weights} is not the generator that made this bank; give that one as `weights`.")
    return generator
