"""fedktl status: what the runs of a store are doing."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from fedktl_cli.options import Json
from fedktl_cli.terminal import guarded, here, safe
from stages.errors import UserError
from stages.reporting.numbers import duration

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from stages.status import Status

PAUSE = 2.0  # seconds from one look to the next
ORDER = ("running", "failed", "stopped", "waiting", "done")  # on a terminal, which may have no room for the last ones
Watch = Annotated[bool, typer.Option("--watch", help="Look again every two seconds, until Ctrl-C.")]


@guarded
def status(context: typer.Context, watch: Watch = False, json: Json = False) -> None:
    """Show every run and how far it is: waiting, running, stopped, failed or done.

    [dim]fedktl status --watch[/]
    """
    from stages.status import status as look

    terminal = here(context)
    if watch and (json or not terminal.out.is_terminal):
        raise UserError("--watch draws on a terminal; leave it out, or leave out --json.")
    if watch:
        from rich.live import Live

        try:
            with Live(console=terminal.out, auto_refresh=False) as live:
                while True:
                    live.update(watched(look(terminal.store)), refresh=True)
                    time.sleep(PAUSE)
        except KeyboardInterrupt:
            return
    found = look(terminal.store)
    if json:
        terminal.json({"runs": [asdict(one) for one in found]})
    elif found:
        terminal.show(table(found))
    else:
        terminal.say(f"{terminal.store.root} holds no runs yet; `fedktl train` makes some.")


def watched(found: list[Status]) -> RenderableType:
    """Counts first, then what is running or went wrong: a terminal shows as much as it has lines for."""
    from rich.console import Group

    return Group(counts(found), *parts(sorted(found, key=lambda one: ORDER.index(one.state))))


def table(found: list[Status]) -> RenderableType:
    from rich.console import Group

    return Group(*parts(found), counts(found))


def counts(found: list[Status]) -> Text:
    from rich.text import Text

    states = Counter(one.state for one in found)
    return Text(", ".join(f"{states[state]} {state}" for state in ORDER if states[state]) or "no runs", style="dim")


def parts(found: list[Status]) -> list[RenderableType]:
    """A line per run; below, who is working on what, and why something failed."""
    from rich.table import Table
    from rich.text import Text

    rows = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("run", "state"):
        rows.add_column(name, overflow="fold")
    for name in ("round", "acc. %", "s/round", "left"):
        rows.add_column(name, justify="right", no_wrap=True)
    for one in found:
        rows.add_row(
            Text(safe(one.run)), Text(one.state), "" if one.planned is None else f"{one.rounds}/{one.planned}",
            "" if one.accuracy is None else f"{one.accuracy:.2f}", "" if one.seconds is None else f"{one.seconds:.2f}",
            "" if one.left is None else duration(one.left),
        )  # fmt: skip
    notes = []
    for one in found:
        if one.since is not None:
            since = time.strftime("%Y-%m-%d %H:%M", time.localtime(min(max(one.since, 0), 1 << 33)))
            notes.append(f"{one.run}: process {one.process} on {one.host} since {since}")
        if one.why:
            notes.append(f"{one.run}: {one.why}")
    return [rows, *(Text(safe(note), style="dim") for note in notes)]


def register(app: typer.Typer) -> None:
    app.command("status", rich_help_panel="Look around")(status)
