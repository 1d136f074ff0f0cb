"""fedktl presets: the published experiments, ready to run."""

from __future__ import annotations

from typing import Annotated

import typer

from fedktl_cli import completion
from fedktl_cli.commands import Group
from fedktl_cli.options import Json
from fedktl_cli.terminal import guarded, here
from stages import presets

app = typer.Typer(help="The published experiments as presets.", cls=Group)


@app.command("list")
@guarded
def list_presets(context: typer.Context, json: Json = False) -> None:
    """List the presets. Each works with --preset of prepare, generate and train.

    [dim]fedktl presets list[/]
    """
    found = [{"preset": name, "title": presets.load(name).title} for name in presets.names()]
    if json:
        here(context).json({"presets": found})
        return
    from fedktl_cli import tables

    here(context).show(tables.plain(["preset", "title"], [list(row.values()) for row in found], left=2))


@app.command("show")
@guarded
def show_preset(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(help="A preset's name, or a TOML file.", metavar="NAME|FILE", autocompletion=completion.presets),
    ],
    json: Json = False,
) -> None:
    """Show what a preset sets, with all that it extends, as a TOML file to start your own from.

    [dim]fedktl presets show table1-cifar10-practical > mine.toml[/]
    """
    preset = presets.load(name)
    if json:
        here(context).json({"preset": name, **preset.as_dict()})
    else:
        here(context).write(preset.as_toml())
