"""fedktl generate: a generator -> latents and the images they render to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from fedktl_cli.options import Json, Name, Preset, with_settings
from fedktl_cli.terminal import guarded, here
from stages import plugins, presets
from stages.errors import UserError
from stages.settings import Generate

Resume = Annotated[str | None, typer.Option("--resume", metavar="NAME", help="Continue this unfinished bank.")]


@guarded
@with_settings(Generate)
def generate(
    context: typer.Context,
    given: dict[str, Any],
    name: Name = None,
    preset: Preset = None,
    resume: Resume = None,
    json: Json = False,
) -> None:
    """Render a bank of image-latent pairs: a latents artifact.

    [dim]fedktl generate --weights stylegan3-t-afhqv2-512x512.pkl --truncation 0.7[/]

    [dim]fedktl generate --weights stable-diffusion-v1-5 --prompt "a cat" --steps 30 --samples 500[/]

    [dim]fedktl generate --from-latents fedktl-digits-s0 --name centroids[/]
    """
    terminal = here(context)
    if resume and (name or preset or given.keys() - {"generator"}):
        raise UserError("--resume continues a bank with the settings it was started with; give no others.")
    settings = Generate.make(presets.load(preset).generate, given)
    from stages.generate import generate as begin
    from stages.generate import resume as continued

    with terminal.observer() as observer, plugins.only(given.get("generator")):
        if resume:
            artifact = continued(terminal.store, resume, given.get("generator"), observer)
        else:
            artifact = begin(terminal.store, name or default_name(settings), settings, observer)
    (count, width), (_, *image) = artifact.shape("latents"), artifact.shape("images")
    if json:
        terminal.json({
            "latents": str(artifact.ref), "samples": count, "latent_dim": width, "image_shape": image,
            "generator": artifact.attributes["generator"],
        })  # fmt: skip
    else:
        facts = artifact.attributes["generator"]
        made_by = ", ".join(str(facts[part]) for part in ("family", "training", "factory", "source") if facts.get(part))
        terminal.show(
            f"{artifact.ref}  {count} pairs, latents of {width}, images {image[-1]}x{image[-1]}, by {made_by}"
        )
        terminal.show(str(artifact.path))
    if licence := artifact.attributes["generator"].get("licence"):
        terminal.say(f"Licence: {licence}")
    if not json:
        terminal.hint("generate")


def default_name(settings: Generate) -> str:
    """The generator's name, in letters that an artifact's name may have."""
    source = Path(settings.weights).stem if settings.weights else settings.generator.replace("auto", "builtin")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", source).strip("-._") or "latents"


def register(app: typer.Typer) -> None:
    app.command("generate", rich_help_panel="Stages")(generate)
