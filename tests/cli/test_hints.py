"""What one would type next."""

import pytest
import typer

from fedktl_cli.hints import NEXT
from fedktl_cli.main import app
from tests.helpers.cli import run


def commands(command, path: str = ""):
    if hasattr(command, "commands"):  # a group, of click or of the click that Typer brings
        for name, inner in command.commands.items():
            yield from commands(inner, f"{path} {name}".strip())
    else:
        yield path


def test_every_command_has_one():
    assert set(commands(typer.main.get_command(app))) == set(NEXT)


@pytest.mark.parametrize("path", NEXT)
def test_the_help_ends_with_it(path, tmp_path):
    lines = " ".join(run(tmp_path, *path.split(), "--help").stdout.split())
    assert lines.endswith(f"Next: {NEXT[path]}")


@pytest.mark.parametrize(("words", "told"), [((), True), (("--json",), False), (("-q",), False)])
def test_a_stage_tells_it_on_a_terminal_unless_asked_to_be_quiet(words, told, tmp_path, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    answer = run(tmp_path, "prepare", "--clients", "2", "--beta", "5", "--image-size", "8", *words)
    assert ("Next: fedktl generate" in answer.stderr) == told


def test_no_stage_tells_it_through_a_pipe(tmp_path):
    assert "Next:" not in run(tmp_path, "prepare", "--clients", "2", "--beta", "5", "--image-size", "8").output
