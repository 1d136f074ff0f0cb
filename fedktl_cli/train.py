"""fedktl train: data and latents -> runs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedktl_cli.options import Json, Name, Preset, with_settings
from fedktl_cli.terminal import guarded, here
from stages import plugins, presets
from stages.errors import UserError
from stages.settings import Train

if TYPE_CHECKING:
    from stages.artifacts.schemas import Run

Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", rich_help_panel="What",
        help="A hyperparameter of the algorithm, as in mu=50; repeatable. `fedktl algorithms show NAME` lists them.",
    ),
]  # fmt: skip
Resume = Annotated[str | None, typer.Option("--resume", metavar="RUN", help="Go on with this run.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, run one batch per model, write nothing.")]


@guarded
@with_settings(Train)
def train(
    context: typer.Context,
    given: dict[str, Any],
    name: Name = None,
    preset: Preset = None,
    assignments: Assignments = None,
    resume: Resume = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Train the clients: a run artifact per algorithm and seed.

    [dim]fedktl train --algorithm fedktl --algorithm local --rounds 50 --seeds 0,1,2[/]

    [dim]fedktl train --data cifar10@v2 --models small --set mu=50 --set lambda=0.1 --dry-run[/]
    """
    terminal = here(context)
    if resume and (name or preset or assignments or dry_run):
        raise UserError("--resume goes on with a run as it was planned; give no --name, --preset, --set or --dry-run.")
    chosen = presets.load(preset)
    settings = Train.make(chosen.train, given)
    from fedktl_cli import tables
    from stages import algorithms
    from stages.train import dry_run as planned
    from stages.train import resume as go_on
    from stages.train import train as begin

    words = (given.get("algorithm"), given.get("models"), given.get("generator"), assignments)
    with plugins.only(*words):
        hyper = algorithms.assigned(settings.algorithm, assignments or [], chosen.algorithms)
    if dry_run:
        with plugins.only(*words):
            previews = planned(terminal.store, settings, hyper)
        if json:
            terminal.json({"previews": previews})
        for preview in previews if not json else []:
            terminal.show(tables.preview(preview))
        return
    with terminal.observer() as observer, plugins.only(*words):
        if resume:
            published = [go_on(terminal.store, resume, given, observer)]
        else:
            published = begin(terminal.store, name, settings, hyper, observer)
    report(terminal, published, json)


def report(terminal: Any, published: list[Any], as_json: bool) -> None:
    from fedktl_cli import tables
    from stages.artifacts.schemas import read

    runs = [read(artifact) for artifact in published]
    if as_json:
        terminal.json({"runs": [{"run": str(run.artifact.ref), "accuracy": curve(run)} for run in runs]})
    else:
        terminal.show(tables.runs(runs))


def curve(run: Run) -> list[float | None]:
    """Accuracy at each evaluation in percent; None where no client with test images was there."""
    from stages.reporting.scores import accuracy

    return [None if math.isnan(value) else round(value, 4) for value in accuracy(run).tolist()]


def register(app: typer.Typer) -> None:
    app.command("train", rich_help_panel="Stages")(train)
