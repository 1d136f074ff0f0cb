"""fedktl doctor: does it work here, and with what?"""

from __future__ import annotations

from dataclasses import asdict

import typer

from fedktl_cli.options import Json
from fedktl_cli.terminal import BAD_INPUT, guarded, here


@guarded
def doctor(context: typer.Context, json: Json = False) -> None:
    """Look at Python, torch, GPUs, the store and optional packages, and train for a second on each device.

    Exit code 2 if something would fail.

    [dim]fedktl doctor[/]
    """
    terminal = here(context)
    from fedktl_cli import tables
    from stages import doctor as body

    findings = [*body.examine(terminal.store), body.terminal()]
    if json:
        terminal.json({"findings": [asdict(finding) for finding in findings]})
    else:
        signs = [("FAULT" if finding.fault else "", finding.what, finding.found) for finding in findings]
        terminal.show(tables.plain(["", "what", "found"], [list(row) for row in signs], left=3))
    faults = [finding.what for finding in findings if finding.fault]
    if faults:
        terminal.tell(f"Something here would fail: {', '.join(faults)}.")
        raise typer.Exit(BAD_INPUT)


def register(app: typer.Typer) -> None:
    app.command("doctor", rich_help_panel="Start here")(doctor)
