"""fedktl export: clients of a run -> folders that predict without it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedktl_cli import completion
from fedktl_cli.options import Json
from fedktl_cli.terminal import guarded, here
from stages import plugins
from stages.settings import MOST

FORMATS = ("safetensors", "pt2", "onnx")
Client = Annotated[int | None, typer.Option("--client", help="Number of the client, from 0.", min=0, max=MOST)]
Weights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        help="Of the last round, or of the one selected on validation images.",
        metavar="last|selected",
        autocompletion=completion.choices(("last", "selected")),
    ),
]
Models = Annotated[
    list[str] | None, typer.Option("--models", help="Allow this package.module:factory.", metavar="TEXT")
]
Algorithm = Annotated[
    list[str] | None, typer.Option("--algorithm", help="Allow this package.module:ALGORITHM.", metavar="TEXT")
]


@guarded
def export(
    context: typer.Context,
    run: Annotated[
        str, typer.Argument(help="NAME or NAME@v3.", metavar="RUN", autocompletion=completion.artifacts("run"))
    ],
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.", metavar="DIR")],
    client: Client = None,
    weights: Weights = None,
    format: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="safetensors (default), pt2 (runs with PyTorch alone) or onnx; repeatable.",
            metavar="TEXT",
            autocompletion=completion.choices(FORMATS),
        ),
    ] = None,
    models: Models = None,
    algorithm: Algorithm = None,
    json: Json = False,
) -> None:
    """Export a client, or every client to its own folder, to predict without the run; its test images are classified again as a check.

    [dim]fedktl export fedktl-cifar10-s0 --client 3 --weights selected client-3[/]

    [dim]fedktl export fedktl-cifar10-s0 --client 3 --format pt2 --format onnx client-3[/]
    """
    from stages.standalone.exporting import export_clients

    terminal = here(context)
    artifact = terminal.store.open(run, "run")
    with terminal.observer() as observer, plugins.only(models, algorithm):
        done = export_clients(terminal.store, artifact, folder, client, weights, format or ["safetensors"], observer)
    if json:
        rows = [vars(one) | {"folder": str(one.folder)} for one in done]
        terminal.json({"exported": rows})
        return
    for one in done:
        terminal.show(
            f"{one.folder}: client {one.client} after round {one.round}, {one.right} of {one.images} test images right"
            + (" as recorded" if one.right == one.recorded else f", recorded: {one.recorded}")
        )


def register(app: typer.Typer) -> None:
    app.command("export", rich_help_panel="Use what was trained")(export)
