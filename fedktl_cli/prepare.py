"""fedktl prepare: images -> client partitions."""

from __future__ import annotations

from typing import Any

import typer

from fedktl_cli.options import Json, Name, Preset, with_settings
from fedktl_cli.terminal import guarded, here
from stages import plugins, presets
from stages.settings import Prepare


@guarded
@with_settings(Prepare)
def prepare(
    context: typer.Context, given: dict[str, Any], name: Name = None, preset: Preset = None, json: Json = False
) -> None:
    """Deal images to clients: a data artifact.

    [dim]fedktl prepare --dataset cifar10 --source ~/data --partition dirichlet --beta 0.1 --clients 20[/]

    [dim]fedktl prepare --dataset folder --source my-photos --clients 5 --image-size 64 --name photos[/]
    """
    terminal = here(context)
    settings = Prepare.make(presets.load(preset).prepare, given)
    from fedktl_cli.tables import label_heat_map, sample_counts
    from stages.artifacts.schemas import read_data
    from stages.prepare import prepare as run

    with terminal.observer() as observer, plugins.only(given.get("dataset")):
        artifact = run(
            terminal.store, name or settings.dataset.rpartition("/")[2].replace(":", "."), settings, observer
        )
    data = read_data(artifact)
    if json:
        shape = list(data.train.images.shape[1:])
        terminal.json({
            "data": str(artifact.ref), "clients": data.clients, "classes": data.classes, "class_names": data.class_names,
            "image_shape": shape, **sample_counts(data), "counts": data.counts.tolist(),
        })  # fmt: skip
    else:
        terminal.show(label_heat_map(data, terminal.out.width))
        terminal.show(f"{artifact.ref}  {artifact.path}")
        terminal.hint("prepare")


def register(app: typer.Typer) -> None:
    app.command("prepare", rich_help_panel="Stages")(prepare)
