"""Bad inputs over all commands: exit code 2, at most two sentences, nothing half written, quick, and in little memory."""

import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedktl_cli.main import app
from stages.artifacts.store import Store
from tests.helpers.bad_inputs import cases
from tests.helpers.toy_store import write_toy_data, write_toy_latents

SECONDS, BYTES = 2.0, 1 << 30
SOME, MANY, PROCESSES = 60, 1000, 36


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with a store, and the command lines to be refused in it."""
    folder = tmp_path_factory.mktemp("bad")
    store = Store(folder / "store")
    write_toy_data(store)
    write_toy_latents(store)
    (folder / "files").mkdir()
    lines = cases(folder / "files")
    random.Random(0).shuffle(lines)
    return folder, lines


def everything(folder: Path) -> set[tuple[str, int]]:
    return {(str(path), path.lstat().st_mtime_ns) for path in folder.rglob("*") if not path.name.startswith(".lock")}


@contextmanager
def alarm(seconds: int):
    """A command that waits for ever fails."""

    def ring(*_):
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def said(stderr: str) -> str:
    """The message without the frame and the usage that Typer puts around it."""
    framed = re.findall(r"^│ (.*?) *│$", stderr, re.MULTILINE)
    return " ".join(framed) if framed else stderr


def faults(stdout: str, stderr: str, code: int) -> list[str]:
    """What is wrong with how a bad input was answered."""
    message = said(stderr)
    found = []
    if code != 2:
        found.append(f"exit code {code}")
    if stdout:
        found.append("a result")
    if "Traceback" in stderr or "our fault" in stderr:
        found.append("a traceback")
    if not message.strip() or len(message) > 1500:
        found.append(f"{len(message)} characters")
    if len(re.findall(r"[.?!](?=\s+[A-Z]|\s*$)", message)) > 2:
        found.append("more than two sentences")
    if re.search(r"[\x00-\x08\x0b-\x1f\x7f]", stderr):
        found.append("control characters")
    return found


def refused(folder: Path, line: list[str], seen: set) -> list[str]:
    used, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with alarm(60):
        result = CliRunner().invoke(app, ["--store", "store", *line])
    found = faults(result.stdout, result.stderr, result.exit_code)
    if time.process_time() - begun > SECONDS:
        found.append(f"{time.process_time() - begun:.1f} s")
    if (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used) << 10 > BYTES:
        found.append("more than a gigabyte")
    if everything(folder) != seen:
        found.append("something written")
    return [f"{' '.join(line)[:200]!r}: {', '.join(found)}; {said(result.stderr)[:300]!r}"] if found else []


@pytest.mark.parametrize("count", [SOME, pytest.param(MANY, marks=pytest.mark.slow)])
def test_every_bad_input_is_refused_in_a_sentence_and_leaves_nothing(workplace, monkeypatch, count):
    folder, lines = workplace
    monkeypatch.chdir(folder)
    seen = everything(folder)
    for line in (["generate", "--weights", "none"], ["train", "--models", "none"]):  # load libraries before time counts
        CliRunner().invoke(app, ["--store", "store", *line])
    assert not [fault for line in lines[:count] for fault in refused(folder, line, seen)]


@pytest.mark.slow
def test_bad_inputs_in_processes_of_their_own_end_as_well_within_a_gigabyte_beyond_the_libraries(workplace):
    folder, lines = workplace
    typed = [line for line in lines if sum(map(len, line)) < 10_000 and "\udcff" not in "".join(line)][:PROCESSES]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    libraries = used_by([sys.executable, "-c", "import torch, torchvision, zarr, scipy.optimize"], folder, environment)[
        1
    ]
    seen, found = everything(folder), []
    for line in typed:
        done, used = used_by([sys.executable, "-m", "fedktl_cli", "--store", "store", *line], folder, environment)
        wrong = faults(done.stdout, done.stderr, done.returncode)
        if used - libraries > BYTES:
            wrong.append(f"{(used - libraries) >> 20} MiB")
        if everything(folder) != seen:
            wrong.append("something written")
        found += [f"{line}: {wrong}; {done.stderr[-300:]}"] if wrong else []
    assert not found


def used_by(command: list[str], folder: Path, environment: dict[str, str]) -> tuple[subprocess.CompletedProcess, int]:
    """A finished command, and the largest number of bytes that it held."""
    script = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:]); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr); sys.exit(done.returncode)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    *lines, kilobytes = done.stderr.splitlines()
    done.stderr = "\n".join(lines)
    return done, int(kilobytes) << 10
