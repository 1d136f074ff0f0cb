"""fedktl generator: foreign weight files, looked at and converted without running anything in them; own weights, trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fedktl_cli.commands import Group
from fedktl_cli.options import Json, with_settings
from fedktl_cli.terminal import guarded, here
from stages.settings import Prepare, TrainGenerator

app = typer.Typer(help="Look at generator weights, convert them to safetensors, or train your own.", cls=Group)


@app.command("show")
@guarded
def show(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A snapshot, a converted file or a diffusers folder.", metavar="FILE")],
    json: Json = False,
) -> None:
    """Show family, resolution, latent size, parameters, licence and layers.

    [dim]fedktl generator show stylegan3-t-afhqv2-512x512.pkl[/]
    """
    from fedktl_cli import tables

    terminal = here(context)
    facts = described(file)
    if json:
        terminal.json(facts)
        return
    layers = facts.pop("layers", [])
    terminal.show(tables.plain(["", ""], [[name, value] for name, value in facts.items()], left=2))
    if layers:
        columns = list(dict.fromkeys(name for layer in layers for name in layer))
        rows = [[layer.get(name, "") for name in columns] for layer in layers]
        terminal.show(tables.plain(columns, rows))


def described(file: Path) -> dict[str, Any]:
    if file.is_dir():
        from stages.generators import diffusion

        return diffusion.describe(file)
    import torch

    from stages.generators.builtin import generator as builtin
    from stages.generators.stylegan import checkpoint

    if facts := builtin.facts(file):
        builtin.pretrained(torch.device("cpu"), file)  # refuses weights that are not what the header says
        return dict(facts)
    return checkpoint.describe(file)


@app.command("convert")
@guarded
def convert(
    context: typer.Context,
    snapshot: Annotated[Path, typer.Argument(help="An official .pkl snapshot.", metavar="SNAPSHOT")],
    out: Annotated[Path, typer.Argument(help="A new .safetensors file.", metavar="OUT")],
) -> None:
    """Convert an official snapshot to safetensors; from then on the snapshot is not needed.

    [dim]fedktl generator convert stylegan3-t-afhqv2-512x512.pkl afhq.safetensors[/]
    """
    from stages.generators.stylegan import checkpoint

    terminal = here(context)
    checkpoint.convert(snapshot, out)
    terminal.show(str(out))
    terminal.say(checkpoint.describe(out)["licence"])


@app.command("train")
@guarded
@with_settings(TrainGenerator)
def train(
    context: typer.Context,
    given: dict[str, Any],
    images: Annotated[
        Path, typer.Argument(help="An .npz with x_train, y_train, as prepare reads it.", metavar="IMAGES")
    ],
    work: Annotated[Path, typer.Argument(help="Folder for checkpoint, grids of samples and weights.", metavar="WORK")],
    leave_out: Annotated[
        Path | None,
        typer.Option(
            "--leave-out", metavar="FILE", help="An .npz whose source_index lists rows that must stay unseen."
        ),
    ] = None,
) -> None:
    """Train the built-in generator on your own images. The same command, run again, continues from the checkpoint.

    [dim]fedktl generator train cifar10.npz work --steps 8000[/]
    [dim]fedktl generator train cifar10.npz work --steps 25000 --batch-size 128 --discriminator-width 128 --precision bf16[/]
    """
    import torch

    from stages.data import datasets
    from stages.generators.builtin import train as training

    terminal, settings = here(context), TrainGenerator.make({}, given)
    torch.set_num_threads(settings.threads)
    dataset = datasets.read(Prepare(dataset="npz", source=str(images), image_size=32))
    pixels = dataset.images[training.rows_to_train_on(len(dataset.labels), leave_out)]
    with terminal.observer() as observer:
        terminal.show(str(training.train(pixels, work, settings, observer)))
