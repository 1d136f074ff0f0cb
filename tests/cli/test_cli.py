"""The program as a user runs it."""

import importlib
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from fedktl_cli.main import app
from stages.artifacts.store import Store
from tests.helpers import forked
from tests.helpers.cli import TINY, run
from tests.helpers.forked import Forked


@pytest.mark.parametrize("command", [["train"], ["artifacts", "list"]])
def test_a_global_option_after_a_command_is_answered_with_where_it_belongs(tmp_path, command):
    answer = run(tmp_path, *command, "--store", "elsewhere", code=2)
    assert f"--store goes before the command: fedktl --store ... {command[0]}" in answer.output


@pytest.mark.usefixtures("undrawn")
def test_the_four_stages_in_a_row_as_json(tmp_path):
    store = tmp_path / "s"
    data = json.loads(run(store, "prepare", "--clients", "3", "--beta", "1", "--image-size", "16", "--json").stdout)
    assert data["data"] == "digits@v1" and data["clients"] == 3 and data["classes"] == 10
    assert sum(map(sum, data["counts"])) == 1797 == sum(sum(data[split]) for split in ("train", "validation", "test"))
    bank = json.loads(run(store, "generate", "--samples", "20", "--image-size", "16", "--json").stdout)
    assert bank["latents"] == "builtin@v1" and bank["image_shape"] == [3, 16, 16]
    trained = json.loads(run(store, "train", "--rounds", "2", "--seed", "3", *TINY, "--json").stdout)
    (made,) = trained["runs"]
    assert made["run"] == "fedktl-digits-s3@v1" and len(made["accuracy"]) == 3
    rows = json.loads(run(store, "report", "--format", "json").stdout)["rows"]
    assert rows[0]["runs"] == ["fedktl-digits-s3@v1"]
    assert rows[0]["last"]["mean"] == pytest.approx(made["accuracy"][-1], abs=1e-3)


@pytest.mark.usefixtures("undrawn")
def test_what_people_see(store):
    trained = run(store, "train", "--algorithm", "fedktl", "--algorithm", "local", "--rounds", "1", *TINY)
    assert "fedktl-toy-s0@v1" in trained.stdout and "local-toy-s0@v1" in trained.stdout
    page = run(store, "report").stdout.split("Page: ")[1].replace("\n", "").strip()
    assert "<html" in Path(page).read_text()
    assert "toy@v1" in run(store, "artifacts", "list").stdout
    assert "class 3" in run(store, "artifacts", "show", "toy").stdout
    assert "bank@v1" in run(store, "artifacts", "lineage", "fedktl-toy-s0").stdout
    assert "are whole" in run(store, "artifacts", "verify").stdout
    assert "Removed 0 left-over folders" in run(store, "artifacts", "gc").stdout
    (store / "runs" / "fedktl-toy-s0" / f".writing-{'0' * 32}").mkdir()  # as a killed writer leaves it
    assert "Removed 1 left-over folders" in run(store, "artifacts", "gc").stdout
    assert "local-toy-s0" in run(store, "artifacts", "list").stdout
    run(store, "artifacts", "remove", "local-toy-s0@v1", "--yes")
    assert "local-toy-s0" not in run(store, "artifacts", "list").stdout


def test_names_that_an_artifact_brings_are_not_obeyed_by_the_terminal(store):
    evil = "\x1b]0;mine\x07\u202e[red]"
    with Store(store).write("data", "evil", {"dataset": evil}, 0, {}) as writer:
        writer.array("counts", np.zeros((1, 1), np.int64))
        writer.array(evil.replace("/", ""), np.zeros(1))
        writer.attributes |= {"class_names": [evil], "created": evil, "made_from": {evil: {"ref": evil}}}
    for arguments in (["list"], ["show", "evil"], ["lineage", "evil"]):
        told = run(store, "artifacts", *arguments).stdout
        assert "\x1b" not in told and "\u202e" not in told and "[red]" in told
    assert "\x1b" not in run(store, "artifacts", "show", evil, code=2).stderr


def test_a_dry_run_says_once_what_is_the_same_and_counts_what_is_there(store):
    study = [
        "train",
        *TINY[:4],
        "--algorithm",
        "local",
        "--algorithm",
        "fedproto",
        "--set",
        "fedproto.lambda=1,2",
        "--rounds",
        "1",
    ]
    run(store, *study[:5], "--algorithm", "local", "--rounds", "1")
    text = run(store, *study, "--seeds", "0-2", "--dry-run").stdout
    assert text.count("tests.helpers.toys:tiny") == 2  # the model, and the setting
    assert [line.split()[:2] for line in text.splitlines() if re.match("local |fedproto ", line)] == [
        ["local", "3"], ["fedproto", "lambda=1.0"], ["fedproto", "lambda=2.0"],
    ]  # fmt: skip
    assert "9 runs (1 there already)" in text


def test_a_dry_run_prints_settings_shapes_and_floats_and_writes_nothing(store):
    text = run(store, "train", "--dry-run", *TINY).stdout
    assert "tests.helpers.toys:tiny" in text and "s/round" in text and "server_epochs=2" in text
    preview = json.loads(run(store, "train", "--dry-run", *TINY, "--json").stdout)["previews"][0]
    assert preview["settings"]["rounds"] == 100 and preview["hyper"]["mu"] == 50
    assert not (store / "runs").exists()


def test_the_command_line_beats_the_preset_and_the_preset_the_default(store, tmp_path):
    preset = tmp_path / "mine.toml"
    preset.write_text("[train]\nrounds = 7\nlr = 0.5\n[algorithms.fedktl]\nmu = 3\n")
    arguments = ["train", "--preset", str(preset), "--rounds", "2", "--dry-run", "--json", *TINY]
    shown = json.loads(run(store, *arguments).stdout)["previews"][0]
    assert (shown["settings"]["rounds"], shown["settings"]["lr"], shown["settings"]["batch_size"]) == (2, 0.5, 10)
    assert shown["hyper"]["mu"] == 3


def test_the_reference_preset_is_the_references_behaviour(store):
    arguments = ["train", "--preset", "reference", "--pairs", "bank", "--dry-run", "--json", *TINY]
    shown = json.loads(run(store, *arguments).stdout)["previews"][0]
    expected = {
        "shuffle": False,
        "drop_last": True,
        "initial_weights": "same",
        "patience": 100,
        "batch_size": 10,
        "lr": 0.01,
    }
    assert expected.items() <= shown["settings"].items()
    assert shown["hyper"]["centroids"] == "trained"


BAD = [
    (["train", "--algorithm", "fedkt"], "did you mean fedktl"),
    (["train", "--set", "mo=3"], "did you mean mu"),
    (["train", "--set", "mu=much"], "mu must be a number"),
    (["train", "--set", "mu=-1"], "at least 0"),
    (["train", "--rounds", "0"], "at least 1"),
    (["train", "--models", "resnet5"], "did you mean"),
    (["train", "--preset", "referense"], "did you mean reference"),
    (["train", "--resume", "nothing"], "no run artifact"),
    *((["train", option, ""], f"{option} must not be empty") for option in ("--resume", "--name", "--preset")),
    (["train", "--track", "mlfow"], "did you mean mlflow"),
    (["train", "--data", ""], "--data must not be empty"),
    (["generate", "--weights", ""], "--weights must not be empty"),
    (["generate", "--samples", "1" + "0" * 30], "--samples must be at most 10,000,000"),
    (["models", "show", "CNN", "--image-size", "1" + "0" * 30], "1024"),
    (["train", "--resume", "x", "--name", "y"], "--resume"),
    (["train", "--name", "../escape"], "can't name"),
    (["train", "--device", "abacus", *TINY], "not available here"),
    (["prepare", "--dataset", "cifr10"], "did you mean"),
    (["prepare", "--beta", "0"], "above 0"),
    (
        ["prepare", "--dataset", "digits", "--clients", "500"],
        "are not enough for 500 clients with 40 each; lower --clients",
    ),
    (["prepare", "--partition", "pathological", "--classes-per-client", "11"], "lower --classes-per-client"),
    (["generate", "--generator", "buildin"], "did you mean builtin"),
    (["generate", "--samples", "0"], "at least 1"),
    (["report", "nothing"], "no run artifact"),
    (["report", "--format", "pdf"], "format"),
    (["artifacts", "show", "toi"], "did you mean toy"),
    (["artifacts", "show", "toy@v9"], "no version 9"),
    (
        ["artifacts", "export", "toy", "out", "--format", "xml"],
        "can be exported as npz or pfllib or share, not as 'xml'",
    ),
    (["algorithms", "show", "fedktll"], "did you mean fedktl"),
    (["trian"], "Did you mean 'train'?"),
]


@pytest.mark.parametrize(
    ("arguments", "sentence"), BAD, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_bad_input_ends_with_a_sentence_and_exit_code_2(store, arguments, sentence, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    result = run(store, *arguments, code=2)
    assert "Traceback" not in result.output and not result.stdout
    assert sentence in " ".join(result.stderr.split())
    if arguments != ["trian"]:
        assert len(re.findall(r"[.;?!](?=\s|$)", result.stderr)) <= 4


def test_our_own_fault_is_exit_code_1_and_verbose_shows_where(store, monkeypatch):
    monkeypatch.setattr(importlib.import_module("stages.train"), "dry_run", lambda *args: 1 / 0)
    result = run(store, "train", "--dry-run", *TINY, code=1)
    assert "our fault" in result.stderr and "Traceback" not in result.stderr


def test_a_schema_from_the_future_is_refused(store):
    root = store / "data" / "toy" / "v1.zarr" / "zarr.json"
    rewritten(root, lambda attributes: attributes.update(schema=99))
    assert "schema 99" in run(store, "train", *TINY, code=2).stderr


def rewritten(root: Path, change) -> None:
    """Change root attributes and seal them again, as a later version of the program would write them."""
    from stages.artifacts import seal

    document = json.loads(root.read_text())
    attributes = {name: value for name, value in document["attributes"].items() if name not in ("manifest", "seal")}
    change(attributes)
    seal.close(root.parent, attributes)


def test_help_is_quick():
    """0.3 s. Where nothing is compiled yet the first time takes a second, so the quickest of three counts."""
    assert min(taken_by_help() for _ in range(3)) < 0.5


def taken_by_help() -> float:
    """Seconds of the processor, by that process alone: others may end meanwhile."""
    compiling = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, "-m", "fedktl_cli", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=compiling) as child:
        assert "prepare" in child.stdout.read()
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0
    return used.ru_utime + used.ru_stime


def commands(command, *path):
    """Every command that does something, with the words that call it."""
    children = getattr(command, "commands", {})
    return [(path, command)] if not children else [c for n, each in children.items() for c in commands(each, *path, n)]


@pytest.mark.parametrize(("path", "command"), commands(typer.main.get_command(app)), ids=str)
def test_help_explains_every_argument_and_option_and_gives_an_example(path, command):
    shown = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "200"}).stdout.partition("Usage:")[2]
    assert re.search(rf"fedktl (--store \w+ )?{' '.join(path)}\b", shown.partition("\n")[2])
    for parameter in command.params:
        first = re.escape((parameter.help or "no help").partition(" [")[0][:20])
        named = "|".join(re.escape(name) for name in (parameter.opts[0], parameter.metavar) if name)
        assert re.search(rf"({named})(?!\w).* {first}", shown), parameter.name


def test_help_imports_nothing_heavy():
    code = "import sys; from fedktl_cli.main import app; print([m for m in ('torch', 'numpy', 'zarr', 'matplotlib', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_output_that_no_terminal_shows_is_plain_and_progress_stays_away(toy_store, tmp_path):
    done = Forked(
        tmp_path, forked.program, "--store", str(toy_store.root), "train", "--rounds", "1", *TINY, FORCE_COLOR=""
    )
    assert done.wait() == 0 and "\x1b" not in done.out + done.err
    told, begun, ended = done.err.splitlines()
    assert told == "Training on data toy@v1 and latents bank@v1, the newest."
    assert begun == "fedktl-toy-s0@v1 begins, 1 rounds"
    assert re.fullmatch(r"fedktl-toy-s0@v1 is done after \d+ s, accuracy [\d.]+%", ended)


def test_verbose_tells_every_round_on_standard_error(toy_store):
    done = run(toy_store.root, "-v", "train", "--rounds", "2", *TINY)
    assert (
        len(re.findall(r"(?m)^fedktl-toy-s0@v1 \d/2 .*accuracy \d", done.stderr)) == 2
        and "mmd" in done.stderr
        and "floats" in done.stderr
    )


def test_a_store_that_can_not_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    assert "can't be written" in run(tmp_path / "file" / "store", "generate", "--samples", "1", code=2).stderr


def small_files(*words):
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    forked.program(*words)


def test_a_full_disk_ends_with_a_sentence_and_leaves_nothing(toy_store, tmp_path):
    done = Forked(
        tmp_path, small_files, "--store", str(toy_store.root), "generate", "--samples", "500", "--name", "big"
    )
    assert done.wait() == 2 and "can't be written" in done.err, done.err
    assert toy_store.versions("latents", "big") == [] and not toy_store.leftovers()


def test_latents_from_a_user_file_through_the_command_line(store, tmp_path):
    np.save(tmp_path / "w.npy", np.zeros((2, 64), np.float32))
    found = json.loads(run(store, "generate", "--from-latents", str(tmp_path / "w.npy"), "--json").stdout)
    assert found["samples"] == 2


def test_verify_says_when_there_is_nothing_to_verify(tmp_path):
    assert "There is no artifact in" in run(tmp_path / "none", "artifacts", "verify", code=2).stderr


@pytest.mark.usefixtures("undrawn")
def test_gc_lays_down_the_page_that_a_killed_report_did_not(store):
    run(store, "train", *TINY[:4], "--algorithm", "local", "--rounds", "1", "--name", "paged")
    run(store, "report", "paged", "--name", "paged")
    page = store / "reports" / "paged" / "v1.html"
    written = page.read_text()
    page.rename(page.with_suffix(".draft"))  # killed between publishing and the page's rename
    assert str(page) in run(store, "artifacts", "gc").stdout.replace("\n", "")
    assert page.read_text() == written and not page.with_suffix(".draft").exists()
    assert "v1.html" not in run(store, "artifacts", "gc").stdout
