"""fedktl predict: image files -> classes and probabilities."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedktl_cli import completion
from fedktl_cli.export import Algorithm, Client, Models, Weights
from fedktl_cli.options import Json
from fedktl_cli.terminal import Terminal, guarded, here, safe
from stages import plugins
from stages.errors import UserError

Own = tuple[list[str] | None, list[str] | None]  # code that the user named

if TYPE_CHECKING:
    from stages.predict import Prediction
    from stages.standalone.client import Client as Trained


@guarded
def predict(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            help="A run, or a folder made by fedktl export.",
            metavar="RUN|DIR",
            autocompletion=completion.artifacts("run"),
        ),
    ],
    images: Annotated[list[Path], typer.Argument(help="Image files of any size.", metavar="IMAGE...")],
    client: Client = None,
    weights: Weights = None,
    top: Annotated[int, typer.Option("--top", help="Classes to show for each image.", min=1, metavar="K")] = 1,
    models: Models = None,
    algorithm: Algorithm = None,
    json: Json = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print the result as CSV on standard output.")] = False,
) -> None:
    """Classify images: the likeliest class and its probability, the softmax of the client's scores.

    [dim]fedktl predict fedktl-cifar10-s0 --client 3 photos/*.jpg[/]

    [dim]fedktl predict client-3 photos/*.jpg --top 3 --csv[/]
    """
    from stages.predict import predict as run

    terminal = here(context)
    if json and csv:
        raise UserError("Choose one of --json and --csv.")
    own = (models, algorithm)
    with terminal.observer() as observer, plugins.only(*own):
        found = run(chosen(terminal, source, client, weights, own), images, top, observer)
    if json:
        terminal.json({"predictions": [as_dict(one) for one in found]})
    elif csv:
        terminal.write(as_csv(found))
    else:
        from fedktl_cli import tables

        rows = [[one.image, *(f"{c} {p:.1%}" for c, p in ranked(one))] for one in found]
        headers = ["image", "class", *(f"{place}." for place in range(2, len(rows[0])))]
        terminal.show(tables.plain(headers, rows, left=len(headers)))


def chosen(terminal: Terminal, source: str, client: int | None, weights: str | None, own: Own) -> Trained:
    """The client in an exported folder, or one of a run; where a folder has the name, the folder is meant."""
    from stages.standalone import folder
    from stages.standalone.trained import clients

    if Path(source).is_dir():
        if client is not None or weights is not None:
            raise UserError(f"{source} is the folder of one client; leave out --client and --weights.")
        return folder.read(Path(source), own)
    everyone = clients(terminal.store, terminal.store.open(source, "run"), weights)
    if client is None and len(everyone) > 1:
        raise UserError(f"{everyone.run.ref} has {len(everyone)} clients; choose one with --client.")
    return everyone[client or 0].client


def ranked(one: Prediction) -> list[tuple[str, float]]:
    return list(zip(one.classes, one.probabilities, strict=True))


def as_dict(one: Prediction) -> dict[str, object]:
    """The likeliest class, and all that were asked for."""
    top = [{"class": name, "probability": probability} for name, probability in ranked(one)]
    return {"image": str(one.image), **top[0], "top": top}


def as_csv(found: list[Prediction]) -> str:
    """A line for each image and class: image, rank, class, probability."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["image", "rank", "class", "probability"])
    for one in found:
        lines.writerows([safe(str(one.image)), rank, name, p] for rank, (name, p) in enumerate(ranked(one), 1))
    return text.getvalue()


def register(app: typer.Typer) -> None:
    app.command("predict", rich_help_panel="Use what was trained")(predict)
