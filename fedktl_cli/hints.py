"""What one would type next: the last line of every command's help, and of the stages on a terminal."""

from __future__ import annotations

import typer

NEXT = {
    "prepare": "fedktl generate",
    "generate": "fedktl train",
    "train": "fedktl report",
    "report": "fedktl export RUN --client 0 FOLDER",
    "demo": "fedktl prepare --dataset folder --source FOLDER_OF_IMAGES",
    "doctor": "fedktl demo",
    "status": "fedktl report",
    "export": "fedktl predict FOLDER IMAGE...",
    "predict": "fedktl report",
    "federation up": "fedktl train --engine flower --federation localhost:8000",
    "federation join": "fedktl train --engine flower --federation localhost:8000, on the server",
    "artifacts list": "fedktl artifacts show REF",
    "artifacts ls": "fedktl artifacts show REF",
    "artifacts show": "fedktl artifacts lineage REF",
    "artifacts verify": "fedktl artifacts gc",
    "artifacts lineage": "fedktl artifacts export REF FOLDER",
    "artifacts export": "fedktl artifacts verify",
    "artifacts push": "fedktl artifacts pull URL REF, in another store",
    "artifacts pull": "fedktl artifacts lineage REF",
    "artifacts remove": "fedktl artifacts gc",
    "artifacts prune": "fedktl artifacts gc",
    "artifacts gc": "fedktl artifacts list",
    "generator show": "fedktl generate --weights FILE",
    "generator convert": "fedktl generate --weights FILE.safetensors",
    "generator train": "fedktl generate --weights WORK/weights.safetensors",
    "algorithms list": "fedktl algorithms show fedktl",
    "algorithms show": "fedktl train --algorithm NAME",
    "models list": "fedktl models show small",
    "models show": "fedktl train --models NAME",
    "presets list": "fedktl presets show table1-cifar10-practical",
    "presets show": "fedktl prepare --preset NAME",
}


def put(app: typer.Typer, path: str = "") -> None:
    """End the help of each command of the app with what follows it."""
    for command in app.registered_commands:
        command.epilog = f"Next: [dim]{NEXT[f'{path}{command.name}']}[/]"
    for group in app.registered_groups:
        if group.typer_instance:
            put(group.typer_instance, f"{group.name} ")
