"""fedktl algorithms, fedktl models: what is available."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from fedktl_cli import completion
from fedktl_cli.commands import Group
from fedktl_cli.options import Json, shown
from fedktl_cli.terminal import guarded, here
from stages.settings import key

algorithms = typer.Typer(help="The algorithms and their hyperparameters.", cls=Group)
models = typer.Typer(help="The client architectures and groups.", cls=Group)


@algorithms.command("list")
@guarded
def list_algorithms(context: typer.Context, json: Json = False) -> None:
    """List the algorithms.

    [dim]fedktl algorithms list[/]
    """
    from fedktl_cli import tables
    from stages.algorithms import SOURCES

    found = [{"algorithm": name, "source": source} for name, source in SOURCES.items()]
    if json:
        here(context).json({"algorithms": found})
    else:
        here(context).show(tables.plain(["algorithm", "source"], [list(row.values()) for row in found], left=2))


@algorithms.command("show")
@guarded
def show_algorithm(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            help="An algorithm's name, or package.module:ALGORITHM.",
            metavar="NAME",
            autocompletion=completion.algorithms,
        ),
    ],
    json: Json = False,
) -> None:
    """Explain each hyperparameter of an algorithm, with its default and source.

    [dim]fedktl algorithms show fedktl[/]
    """
    from fedktl_cli import tables
    from stages.algorithms import get

    algorithm = get(name)
    rows = [
        {
            "name": key(field), "default": field.default, "choices": list(field.metadata["choices"]),
            "meaning": field.metadata["help"], "source": field.metadata["source"],
        }
        for field in dataclasses.fields(algorithm.Hyper)
    ]  # fmt: skip
    if json:
        here(context).json({"algorithm": name, "source": algorithm.source, "hyperparameters": rows})
        return
    here(context).show(f"{name}: {algorithm.source}")
    if rows:
        cells = [[row["name"], str(shown(row["default"])), _meaning(row), row["source"]] for row in rows]
        here(context).show(tables.plain(["--set", "default", "meaning", "source"], cells, left=4))


def _meaning(row: dict[str, Any]) -> str:
    return " ".join([row["meaning"], " | ".join(row["choices"])]).rstrip()


@models.command("list")
@guarded
def list_models(context: typer.Context, json: Json = False) -> None:
    """List the architectures and the groups of them.

    [dim]fedktl models list[/]
    """
    from fedktl_cli import tables
    from stages.models.groups import GROUPS, NAMES

    if json:
        here(context).json({"architectures": list(NAMES), "groups": GROUPS})
        return
    rows = [[name, ", ".join(parts)] for name, parts in GROUPS.items()]
    here(context).show(tables.plain(["group", "client i takes part i mod n of"], rows, left=2))
    here(context).show(f"\narchitectures: {', '.join(NAMES)};")
    here(context).show("any other torchvision classifier by its torchvision name, timm:NAME, or module:factory.")
    here(context).show("NAME+256 has a head with a hidden layer of 256 units; every further +WIDTH adds one.")


@models.command("show")
@guarded
def show_model(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            help="Groups or architectures, separated by commas.", metavar="NAME", autocompletion=completion.models
        ),
    ],
    image_size: Annotated[
        int, typer.Option("--image-size", help="Side of the images, in pixels.", min=8, max=1024)
    ] = 32,
    json: Json = False,
) -> None:
    """Parameters of a model, or of each model of a group, and of its head for 10 and for 100 classes.

    [dim]fedktl models show HtFE8 --image-size 64[/]
    """
    from fedktl_cli import tables
    from stages.models import split

    shape = (3, image_size, image_size)
    rows: list[dict[str, Any]] = []
    for part in dict.fromkeys(split.listed(name)):
        outlines = {classes: split.meta_model(part, shape, classes, feature_dim=512) for classes in (10, 100)}
        split.shapes(outlines[10], shape)
        base, head = outlines[10].base, {str(k): split.parameters(model.head) for k, model in outlines.items()}
        rows.append({"model": part, "base": split.parameters(base), "head": head})
    if json:
        here(context).json({"models": rows})
    else:
        cells = [[row["model"], *(f"{count:,}" for count in (row["base"], *row["head"].values()))] for row in rows]
        here(context).show(tables.plain(["model", "base", "head, 10 classes", "head, 100 classes"], cells))
