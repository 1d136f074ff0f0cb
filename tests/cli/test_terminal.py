"""How the command line is read, and what a shell completes."""

import io
import subprocess
import sys

import pytest
from rich.console import Console
from typer.testing import CliRunner

from fedktl_cli import tables
from fedktl_cli.main import app
from stages import algorithms
from stages.models import zoo
from stages.models.groups import NAMES
from tests.helpers.cli import program
from tests.helpers.made_runs import ROW


def run(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == code, done.output
    return " ".join(done.output.split())


@pytest.mark.parametrize("arguments", [(), ("help",), ("help", "train"), ("artifacts",), ("artifacts", "help", "show")])
def test_help_is_shown_where_nothing_or_help_is_asked_for(arguments):
    assert "Usage:" in run(*arguments)


@pytest.mark.parametrize(
    "arguments", [("-q", "artifacts", "ls"), ("artifacts", "ls", "-q"), ("artifacts", "-v", "ls", "-q")]
)
def test_quiet_and_verbose_may_follow_a_command(tmp_path, arguments):
    assert run("--store", str(tmp_path), *arguments) == ""
    assert "holds no artifacts" in run("--store", str(tmp_path), "artifacts", "ls")


def test_a_suggestion_is_made_once_and_no_list_is_endless(tmp_path):
    assert run("trian", code=2).count("Did you mean") == 1
    assert run("artifacts", "lst", code=2).count("Did you mean") == 1
    refused = CliRunner().invoke(app, ["--store", str(tmp_path), "train", "--device", "abacus"])
    assert len(refused.output) < 300


def test_names_of_extras_are_not_swallowed():
    assert "fedktl[flower]" in run("federation", "--help")


def test_catalogues_are_told_without_torch_and_truly():
    code = "import sys; from fedktl_cli.main import app; app(['%s', 'list'], standalone_mode=False); print('torch' in sys.modules)"
    for catalogue in ("algorithms", "models"):
        done = subprocess.run([sys.executable, "-c", code % catalogue], capture_output=True, text=True)
        assert done.stdout.endswith("False\n"), done.stdout + done.stderr
    assert {name: algorithms.get(name).source for name in algorithms.NAMES} == algorithms.SOURCES
    assert tuple(zoo.ARCHITECTURES) == NAMES


def asked(line: str) -> dict[str, str]:
    """The environment in which a shell asks how the line may go on."""
    return {"_FEDKTL_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}


def test_a_shell_completes_names(toy_store, monkeypatch, capsys):
    def completed(line: str, **environment: str) -> list[str]:
        with monkeypatch.context() as patched, pytest.raises(SystemExit):
            for name, value in (asked(line) | environment).items():
                patched.setenv(name, value)
            app(prog_name="fedktl")
        told = capsys.readouterr()
        assert not told.err
        return told.out.split()

    store = {"FEDKTL_STORE": str(toy_store.root)}
    (toy_store.root / "runs" / "going" / "v1.partial").mkdir(parents=True)
    assert completed("fedktl train --algorithm fedk") == ["fedkd", "fedktl", "fedktl-gated"]
    assert completed("fedktl models show HtFE8-") == ["HtFE8-HtC4"]
    assert completed("fedktl train --pairs ") == ["bank", "live"]
    assert completed("fedktl artifacts show ", **store) == ["bank", "going", "toy"]
    assert completed("fedktl report g", **store) == ["going"]
    assert completed("fedktl train --data toy@", **store) == ["toy@v1"]
    assert "table1-cifar10-practical" in completed("fedktl prepare --preset table1-")
    assert "--install-completion" in program("--help").stdout
    code = "from fedktl_cli.main import app; app(prog_name='fedktl')"
    environment = {"PATH": "", **asked("fedktl train --pairs ")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.stdout.split(), done.stderr) == (["bank", "live"], "")


def test_nothing_is_removed_without_a_question(toy_store):
    store = ("--store", str(toy_store.root))
    assert "latents/bank@v1" in run(*store, "artifacts", "remove", "toy", "ban*", code=2)
    assert "add --yes" in run(*store, "artifacts", "remove", "toy", code=2) and toy_store.versions("data", "toy") == [1]
    assert "Removed data/toy@v1" in run(*store, "artifacts", "remove", "toy", "ban*", "--yes")
    assert "Nothing has more than 1 version" in run(*store, "artifacts", "prune")


def test_a_report_tells_the_longest_phases_of_any_algorithm_where_there_is_room_for_few():
    own = {**ROW, "simulated_seconds_per_round": 0.0, "seconds_per_round": {"align": 0.5, "train": 1.25}}
    other = {**own, "algorithm": "other", "variant": "", "seconds_per_round": {"align": 0.0, "projection": 3.0}}
    console = Console(width=40, file=io.StringIO())
    console.print(tables.report([own, other]))
    shown = console.file.getvalue()
    assert any(line.split()[3:] == ["projection", "train"] for line in shown.splitlines())
    assert "because the terminal is narrow: align" in " ".join(shown.split())
