"""fedktl demo: the four stages in a row, offline, in a few minutes."""

from __future__ import annotations

from typing import Annotated

import typer

from fedktl_cli.terminal import guarded, here
from stages.settings import LARGEST_SEED, MOST, Generate, Prepare, Report, Train


@guarded
def demo(
    context: typer.Context,
    rounds: Annotated[int, typer.Option("--rounds", help="Rounds of federation.", min=1, max=MOST)] = 12,
    seed: Annotated[
        int,
        typer.Option(
            "--seed", help="Seed of every random choice; training repeats with the next.", min=0, max=LARGEST_SEED - 1
        ),
    ] = 0,
) -> None:
    """Run all four stages on handwritten digits: FedKTL beside FedTGP and local training.

    [dim]fedktl demo[/]
    """
    terminal = here(context)
    store = terminal.store
    from torch import cuda

    from fedktl_cli import tables
    from stages.artifacts.schemas import read_data, read_report
    from stages.generate import generate
    from stages.prepare import prepare
    from stages.report import page_path, report
    from stages.reporting.summary import summary
    from stages.train import train

    with terminal.observer() as observer:
        terminal.say("1/4 prepare: 1,797 handwritten digits, dealt unevenly to 10 clients")
        data = prepare(store, "digits", Prepare(clients=10, beta=0.3, min_samples=20, seed=seed), observer)
        terminal.say("2/4 generate: a bank of images and their latents from the built-in generator")
        bank = generate(store, "builtin", Generate(seed=seed), observer)
        terminal.say(f"3/4 train: FedKTL, FedTGP and local training, twice each, {rounds} rounds, four architectures")
        settings = Train(
            algorithm=("fedktl-gated", "fedtgp", "local"), data=f"{data.ref}", latents=f"{bank.ref}", rounds=rounds,
            pairs_per_class=100, seeds=(seed, seed + 1), jobs=1 if cuda.is_available() else 2,
        )  # fmt: skip
        runs = train(store, None, settings, {}, observer)
        terminal.say("4/4 report")
        page = report(store, "demo", Report(runs=tuple(str(run.ref) for run in runs)), observer)
    terminal.show(tables.label_heat_map(read_data(data), terminal.out.width))
    terminal.show("")
    rows = read_report(page).rows
    terminal.show(tables.report(rows))
    terminal.show(f"\n{summary(rows)}\n\nPage: {page_path(store, page.ref)}")


def register(app: typer.Typer) -> None:
    app.command("demo", rich_help_panel="Start here")(demo)
