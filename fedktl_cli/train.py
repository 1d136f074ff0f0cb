"""fedktl train: data and latents -> runs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedktl_cli import completion
from fedktl_cli.options import Json, Name, Preset, with_settings
from fedktl_cli.terminal import INCOMPLETE, INTERRUPTED, Terminal, guarded, here
from stages import plugins, presets
from stages.errors import UserError
from stages.settings import Train, gridded

if TYPE_CHECKING:
    from stages.artifacts.schemas import Run
    from stages.engines.making import Outcome

Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", rich_help_panel="What",
        help="A hyperparameter of the algorithm, as in mu=50, or mu=1,10,50 for a run each; repeatable. `fedktl algorithms show NAME` lists them.",
    ),
]  # fmt: skip
Resume = Annotated[
    str | None,
    typer.Option("--resume", metavar="RUN", help="Continue this run.", autocompletion=completion.artifacts("run")),
]
Again = Annotated[bool, typer.Option("--again", help="Make new versions of runs that exist already.")]
StopOnError = Annotated[bool, typer.Option("--stop-on-error", help="Start no further run once one has failed.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check everything and estimate time, memory and disk; write nothing.")
]


@guarded
@with_settings(Train)
def train(
    context: typer.Context,
    given: dict[str, Any],
    name: Name = None,
    preset: Preset = None,
    assignments: Assignments = None,
    resume: Resume = None,
    again: Again = False,
    stop_on_error: StopOnError = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Train the clients: a run artifact per algorithm, choice of settings and hyperparameters, and seed.

    What affects the result may have several values, separated by commas: every combination is a run.

    Repeating a command keeps the runs that are there, resumes those that were stopped, and makes the rest.

    [dim]fedktl train --algorithm fedktl --algorithm local --rounds 50 --seeds 0-2[/]

    [dim]fedktl train --data cifar10@v2 --models small --lr 0.01,0.1 --set mu=1,10,50 --dry-run[/]
    """
    terminal = here(context)
    if resume and (name or preset or assignments or again or stop_on_error or dry_run):
        raise UserError("--resume continues one run as it was planned; only settings such as --rounds may go with it.")
    chosen = presets.load(preset)
    settings, grid = gridded(chosen.train, given)
    if settings.jobs > 1 and not dry_run:
        from stages import processes

        processes.get_ready()
    from stages import algorithms
    from stages.engines.making import DONE, Outcome
    from stages.train import dry_run as planned
    from stages.train import resume as go_on
    from stages.train import study

    words = (given.get("algorithm"), given.get("models"), given.get("generator"), assignments)
    with terminal.observer() as observer, plugins.only(*words):
        hyper = algorithms.assigned(settings.algorithm, assignments or [], chosen.algorithms)
        if dry_run:
            previews = planned(terminal.store, settings, hyper, observer, name, grid)
        elif resume:
            outcomes = [Outcome(resume, DONE, go_on(terminal.store, resume, given, observer))]
        else:
            outcomes = study(terminal.store, name, settings, hyper, observer, again, stop_on_error, True, grid)
    if dry_run:
        preview(terminal, previews, json)
    else:
        report(terminal, outcomes, json)


def preview(terminal: Terminal, previews: list[dict[str, Any]], as_json: bool) -> None:
    """Show what the runs would be."""
    from fedktl_cli import tables

    if as_json:
        terminal.json({"previews": previews})
    else:
        terminal.show(tables.previews(previews))


def report(terminal: Terminal, outcomes: list[Outcome], as_json: bool) -> None:
    """Show what became of every run; the exit code says it, too."""
    from fedktl_cli import tables
    from stages.artifacts.schemas import read_run
    from stages.engines.making import ELSEWHERE, FAILED, STOPPED

    runs = [read_run(outcome.artifact) if outcome.artifact else None for outcome in outcomes]
    if as_json:
        pairs = zip(outcomes, runs, strict=True)
        terminal.json({"runs": [
            {"run": one.ref or one.name, "state": one.state, "accuracy": run and curve(run), "reason": one.reason or None}
            for one, run in pairs
        ]})  # fmt: skip
    else:
        terminal.show(tables.study(outcomes, runs))
    for one in outcomes:
        if one.reason:
            terminal.tell(f"{one.name}: {one.reason}")
    states = [one.state for one in outcomes]
    if STOPPED in states:
        left = sum(one.artifact is None for one in outcomes)
        terminal.tell(f"{left} of {len(outcomes)} runs are left; the same command continues.")
        raise typer.Exit(INTERRUPTED)
    if FAILED in states:
        terminal.tell(f"{states.count(FAILED)} of {len(states)} runs failed; the same command tries them again.")
    if FAILED in states or ELSEWHERE in states:
        raise typer.Exit(INCOMPLETE)
    if not as_json:
        terminal.hint("train")


def curve(run: Run) -> list[float | None]:
    """Accuracy at each evaluation in percent; None where no client with test images was evaluated."""
    from stages.reporting.scores import accuracy

    return [None if math.isnan(value) else round(value, 4) for value in accuracy(run).tolist()]


def register(app: typer.Typer) -> None:
    app.command("train", rich_help_panel="Stages")(train)
