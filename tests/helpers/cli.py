"""The program as a user runs it, in this process or in one of its own."""

import os
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from fedktl_cli.main import app

TINY = ["--models", "tests.helpers.toys:tiny", "--feature-dim", "16", "--set", "server_epochs=2"]


def run(store: Path, *arguments: str, code: int = 0):
    """The command in this process, quick because torch is loaded already."""
    result = CliRunner().invoke(app, ["--store", str(store), *arguments])
    assert result.exit_code == code, result.output
    return result


def program(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "fedktl_cli", *arguments], capture_output=True, text=True,
        env={**os.environ, **environment}, cwd=Path(__file__).parents[2],
    )  # fmt: skip
