"""fedktl report: runs -> tables, figures, a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedktl_cli.options import Json, Name
from fedktl_cli.terminal import Terminal, guarded, here
from stages.errors import UserError, unknown
from stages.settings import Report

FORMATS = ("table", "json", "csv", "markdown", "latex", "html")
PAPER = ("table1", "table2", "table5", "table6", "table8", "table9", "ablation")
Paper = Annotated[
    str | None,
    typer.Option(
        "--paper", metavar="TABLE",
        help=f"A table of the paper beside what the runs (default: all) measured: {', '.join(PAPER)}.",
    ),
]  # fmt: skip


@guarded
def report(
    context: typer.Context,
    runs: Annotated[list[str] | None, typer.Argument(help="Runs; default: all of the newest data artifact.")] = None,
    format: Annotated[str, typer.Option("--format", help=f"One of: {', '.join(FORMATS)}.", metavar="TEXT")] = "table",
    paper: Paper = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file instead.")] = None,
    name: Name = None,
    json: Json = False,
) -> None:
    """Compare runs: a report artifact with tables, figures and a page.

    [dim]fedktl report[/]

    [dim]fedktl report fedktl-digits-s0 local-digits-s0 --format latex --output table.tex[/]

    [dim]fedktl report --paper table1[/]
    """
    terminal = here(context)
    format = "json" if json else format
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    if output is not None and (output.is_dir() or not output.parent.is_dir()):
        raise UserError(f"{output} can't be written; give a file in a folder that is there.")
    if paper is not None:
        beside_paper(terminal, paper, runs or [], format, output, name)
        return
    from stages.artifacts.schemas import read_report
    from stages.report import page_path
    from stages.report import report as run

    with terminal.observer() as observer:
        artifact = run(terminal.store, "report" if name is None else name, Report.make({"runs": runs or []}), observer)
    content = read_report(artifact)
    if format == "table" and output is None:
        from fedktl_cli import tables

        terminal.show(tables.report(content.rows))
        terminal.show(f"Page: {page_path(terminal.store, artifact.ref)}")
    elif format == "html" and output is None:
        terminal.show(str(page_path(terminal.store, artifact.ref)))
    else:
        from stages.reporting.formats import FORMATS as WRITERS

        text = content.page if format == "html" else WRITERS["markdown" if format == "table" else format](content.rows)
        deliver(terminal, text, output)


def beside_paper(
    terminal: Terminal, table: str, runs: list[str], format: str, output: Path | None, name: str | None
) -> None:
    """Print a table of the paper with what was measured; no artifact is made of it."""
    if format == "html" or name:
        raise UserError("--paper makes no page and no artifact; leave out --name, and give another --format than html.")
    from stages.report import beside_paper as compare
    from stages.reporting.paper import as_text

    with terminal.observer() as observer:
        comparison = compare(terminal.store, table, runs, observer)
    if format == "table" and output is None:
        from fedktl_cli import tables

        terminal.show(tables.beside_paper(comparison))
    else:
        deliver(terminal, as_text(comparison, "markdown" if format == "table" else format), output)


def deliver(terminal: Terminal, content: str, output: Path | None) -> None:
    """Write a result to a file, or to standard output."""
    if output is None:
        terminal.write(content)
        return
    try:
        output.write_text(content, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{output} can't be written ({error.strerror}).") from error
    terminal.say(f"Written to {output}")


def register(app: typer.Typer) -> None:
    app.command("report", rich_help_panel="Stages")(report)
