"""fedktl report: runs -> tables, figures, a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedktl_cli import completion
from fedktl_cli.options import Json, Name
from fedktl_cli.terminal import Terminal, guarded, here
from stages.errors import UserError, unknown
from stages.settings import Report

if TYPE_CHECKING:
    from stages.artifacts.schemas import Report as StoredReport

METRICS = ("selected", "last", "best")
FORMATS = ("table", "json", "csv", "markdown", "latex", "html", "tidy")
PAPER = ("table1", "table2", "table5", "table6", "table8", "table9", "ablation")
Runs = Annotated[
    list[str] | None,
    typer.Argument(help="Runs; default: all of the newest data artifact.", autocompletion=completion.artifacts("run")),
]
Format = Annotated[
    str,
    typer.Option(
        "--format", metavar="TEXT", help=f"One of: {', '.join(FORMATS)}.", autocompletion=completion.choices(FORMATS)
    ),
]
Paper = Annotated[
    str | None,
    typer.Option(
        "--paper", metavar="TABLE",
        help=f"A table of the paper beside what the runs (default: all) measured: {', '.join(PAPER)}.",
    ),
]  # fmt: skip
Metric = Annotated[
    str | None,
    typer.Option(
        "--metric", metavar="TEXT",
        help="Accuracy of --format latex: selected on validation (default where there is any), last, or best on test.",
    ),
]  # fmt: skip
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns", metavar="A,B",
        help="Columns of the table, in any format: algorithm,last,up, or a setting that differs",
    ),
]  # fmt: skip
Unfinished = Annotated[
    bool, typer.Option("--unfinished", help="Draw unfinished runs as well, as far as their last checkpoint goes.")
]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file instead.")]


@guarded
def report(
    context: typer.Context,
    runs: Runs = None,
    format: Format = "table",
    paper: Paper = None,
    metric: Metric = None,
    columns: Columns = None,
    unfinished: Unfinished = False,
    output: Output = None,
    name: Name = None,
    json: Json = False,
) -> None:
    """Compare runs: a report artifact with tables, figures and a page.

    [dim]fedktl report[/]

    [dim]fedktl report fedktl-digits-s0 local-digits-s0 --format latex --metric best --output table.tex[/]

    [dim]fedktl report --columns algorithm,mu,selected,worst,up[/] (mu, where runs differ in it)

    [dim]fedktl report --format tidy --output numbers.csv[/] (or .parquet): every number of every round

    [dim]fedktl report --unfinished[/] (with unfinished runs)

    [dim]fedktl report --paper table1[/]
    """
    terminal = here(context)
    format = "json" if json else format
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    if output is not None and (output.is_dir() or not output.parent.is_dir()):
        raise UserError(f"{output} can't be written; name a file in a folder that exists.")
    if metric is not None and (metric not in METRICS or format != "latex"):
        raise UserError("--metric chooses selected, last or best for --format latex; leave it out otherwise.")
    if paper is not None:
        if metric or columns or unfinished:
            raise UserError("--paper compares what the paper prints; leave out --metric, --columns and --unfinished.")
        beside_paper(terminal, paper, runs or [], format, output, name)
        return
    if format == "tidy":
        if columns or name:
            raise UserError("--format tidy writes all numbers and makes no artifact; leave out --columns and --name.")
        tidy(terminal, runs or [], unfinished, output)
        return
    chosen = {"runs": runs or [], "columns": (columns or "").replace(",", " ").split(), "unfinished": unfinished}
    made(terminal, Report.make(chosen), format, metric, output, "report" if name is None else name)


def made(terminal: Terminal, settings: Report, format: str, metric: str | None, output: Path | None, name: str) -> None:
    """Make a report artifact, and print or write it."""
    from stages.artifacts.schemas import read_report
    from stages.report import page_path
    from stages.report import report as run

    with terminal.observer() as observer:
        artifact = run(terminal.store, name, settings, observer)
    content = read_report(artifact)
    if format == "table" and output is None:
        from fedktl_cli import tables

        terminal.show(tables.report(content.rows, settings.columns))
        if pending := artifact.settings["unfinished"]:
            how = "" if settings.unfinished else " and left out (--unfinished includes them)"
            terminal.say(f"Not finished{how}: {', '.join(pending)}.")
        terminal.show(f"Page: {page_path(terminal.store, artifact.ref)}")
    elif format == "html" and output is None:
        terminal.show(str(page_path(terminal.store, artifact.ref)))
    else:
        deliver(terminal, written(content, format, metric, settings.columns), output)


def written(content: StoredReport, format: str, metric: str | None, columns: Sequence[str]) -> str:
    """A report in one of the formats for files."""
    from stages.reporting import formats, latex

    if format == "html":
        return content.page
    if format == "latex":
        validated = all(row["validation_selected"] for row in content.rows)
        return latex.of_rows(content.rows, metric or ("selected" if validated else "last"), columns)
    return formats.FORMATS["markdown" if format == "table" else format](content.rows, columns)


def beside_paper(
    terminal: Terminal, table: str, runs: list[str], format: str, output: Path | None, name: str | None
) -> None:
    """Print a table of the paper with what was measured; no artifact is made of it."""
    if format in ("html", "tidy") or name:
        raise UserError(
            "--paper makes no page and no artifact; leave out --name, and choose a --format other than html or tidy."
        )
    from stages.report import beside_paper as compare
    from stages.reporting.paper import as_text

    with terminal.observer() as observer:
        comparison = compare(terminal.store, table, runs, observer)
    if format == "table" and output is None:
        from fedktl_cli import tables

        terminal.show(tables.beside_paper(comparison))
    else:
        deliver(terminal, as_text(comparison, "markdown" if format == "table" else format), output)


def tidy(terminal: Terminal, runs: list[str], unfinished: bool, output: Path | None) -> None:
    """The runs' numbers as CSV, or as Parquet into a file named *.parquet."""
    from stages.report import tidy_table
    from stages.reporting.tidy import as_csv, as_parquet

    with terminal.observer() as observer:
        columns = tidy_table(terminal.store, runs, observer, unfinished)
    parquet = output is not None and output.suffix == ".parquet"
    deliver(terminal, as_parquet(columns) if parquet else as_csv(columns), output)


def deliver(terminal: Terminal, content: str | bytes, output: Path | None) -> None:
    """Write a result to a file, or to standard output."""
    if output is None:
        terminal.write(str(content))
        return
    try:
        output.write_bytes(content if isinstance(content, bytes) else content.encode())
    except OSError as error:
        raise UserError(f"{output} can't be written ({error.strerror}).") from error
    terminal.say(f"Written to {output}")


def register(app: typer.Typer) -> None:
    app.command("report", rich_help_panel="Stages")(report)
