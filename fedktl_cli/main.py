"""The application: global options and the commands, one file each."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from fedktl_cli import (
    artifacts,
    catalogue,
    demo,
    doctor,
    export,
    federation,
    generate,
    generator,
    hints,
    predict,
    prepare,
    presets,
    report,
    status,
    streams,
    train,
)
from fedktl_cli.commands import Program
from fedktl_cli.terminal import Terminal

app = typer.Typer(
    name="fedktl",
    cls=Program,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from stages.doctor import own_version

        typer.echo(f"fedktl {own_version()}")
        raise typer.Exit


@app.callback()
def main(
    context: typer.Context,
    store: Annotated[
        Path, typer.Option("--store", envvar="FEDKTL_STORE", help="Folder that holds all artifacts.", metavar="PATH")
    ] = Path("artifacts"),
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Report every step; show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Heterogeneous federated learning with a server-side pre-trained generator.

    Four stages, each a command: [bold]prepare[/] images -> data, [bold]generate[/] generator -> latents,
    [bold]train[/] both -> runs, [bold]report[/] runs -> tables and a page. [bold]demo[/] runs all four.
    """
    from stages.artifacts.store import Store

    context.obj = Terminal(Store(store), quiet, verbose)


for module in (prepare, generate, train, report, demo, doctor, status, export, predict):
    module.register(app)
app.add_typer(federation.app, name="federation", rich_help_panel="Stages")
app.add_typer(artifacts.app, name="artifacts", rich_help_panel="Look around")
app.add_typer(generator.app, name="generator", rich_help_panel="Look around")
app.add_typer(catalogue.algorithms, name="algorithms", rich_help_panel="Look around")
app.add_typer(catalogue.models, name="models", rich_help_panel="Look around")
app.add_typer(presets.app, name="presets", rich_help_panel="Look around")
hints.put(app)


def run() -> None:
    """Entry point of the `fedktl` program."""
    streams.prepare()
    if sys.flags.optimize > 1:
        print("fedktl needs its libraries' docstrings; run it without -OO or PYTHONOPTIMIZE=2.", file=sys.stderr)
        sys.exit(2)
    sys.exit(app())
