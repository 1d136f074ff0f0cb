"""Bad values for every argument of every command, made and not chosen: what strangers' files and slips of the hand hold."""

import inspect
import io
import json
import os
import re
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import typer

from fedktl_cli.main import app
from stages.settings import DECISIVE, Train

WORDS = [
    "", " ", "\t\n", "..", "../../x", "no-such", "x" * 300, "x" * 100_000, "\x1b[2J\x07", "\udcff\udcfe", "%s {0}", "@",
    "toy@v0", "toy@v" + "9" * 30, "data/", "os:system", "sys:exit", "..:x", ":x", "x:", "a:b:c", "[/red]", "nul,,x", "ſ̶͓猫",
]  # fmt: skip
NUMBERS = ["", " ", "x", "nan", "inf", "-inf", "-1", "1e400", "1" + "0" * 30, "9" * 5000, "0x10", "1,2", "1\x1b[2J"]
WHOLE = [*NUMBERS, "0.5", "1e3"]
NAMES = ["", " ", "..", "../x", "a/b", ".x", "x" * 101, "\x1b[2J", "\udcff", "@", "a@v1", "[red]", "猫"]
SEEDS = ["x", "1,x", "-1", "0.5", str(2**64), "9" * 5000, "1\x1b[2J", "nan", "4-0", "0,,1", "0-99999", "0-"]
ASSIGNED = [
    "", "mu", "=", "=1", "mu=", "mu=x", "mu=nan", "mu=1e400", "mu=-1", "mu=" + "9" * 5000, "no_such=1", "fedprox.mu=1",
    "server_epochs=0", "server_epochs=1" + "0" * 30, "etf=perhaps", "mu=1,,2", "mu=1,x", "mu=,", "centroids=x", "\x1b[2J=1", "\udcff=1",
]  # fmt: skip
DEVICES = ["", "abacus", "cuda:99", "cuda:x", "cpu:-5", "meta", "mps", "\x1b[2J", "x" * 100_000, "\udcff"]
ADDRESSES = ["", "x", "host:", ":1", "host:x", "host:0", "host:65536", "a b:1", "host:1\x1b[2J", "host:" + "9" * 5000]
UNWRITABLE = ["", ".", "no/such/file", "x" * 300]


def npy(header: str) -> bytes:
    text = header.encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def zipped(**members: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return held.getvalue()


def contents() -> dict[str, bytes]:
    """What a file may hold that it should not, by a name for it."""
    images = io.BytesIO()
    np.savez(images, x_train=np.zeros((8, 8, 8, 3), np.uint8), y_train=np.zeros(8, np.int64))
    claim = "{'descr': '<f4', 'fortran_order': False, 'shape': (%s,), }"
    return {
        "empty": b"", "random": bytes(np.random.default_rng(0).integers(0, 256, 4096, np.uint8)), "text": b"a,b\n1,2\n",
        "cut": images.getvalue()[:-100], "npy": npy(claim % 3) + bytes(12), "brackets": zipped(x_train=npy("(" * 9000)),
        "terabytes": zipped(x_train=npy(claim % 2**40), y_train=npy(claim % 2**40), latents=npy(claim % 2**40)),
        "beyond": zipped(x_train=npy(claim % 2**70), latents=npy(claim % 2**70)),
        "objects": zipped(x_train=npy(claim.replace("<f4", "|O") % 1) + b"cos\nsystem\n(S'true'\ntR."),
        "deep": b"[" * 100_000, "deep table": b"[train]\nlr = " + b"[" * 100_000,
        "header": struct.pack("<Q", 2**60) + b"{}", "tensors": struct.pack("<Q", 4) + b"null",
        "claim": (lambda h: struct.pack("<Q", len(h)) + h)(
            json.dumps({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
        ),
        "call": b"cos\nsystem\n(S'touch called'\ntR.", "deep pickle": b"]" + b"(" * 100_000 + b".",
        "latin": "café".encode("latin-1"), "nul": b"\0" * 100,
    }  # fmt: skip


def files(folder: Path) -> list[str]:
    """Files that are none, or that hold something else, each under every suffix that one is recognised by."""
    made = []
    for suffix in (".npz", ".npy", ".pkl", ".safetensors", ".pth", ".toml", ".json", ".csv"):
        for name, content in contents().items():
            made.append(folder / f"{name}{suffix}")
            made[-1].write_bytes(content)
        pipe, zeros, loop, sparse, inside = (
            folder / f"{n}{suffix}" for n in ("pipe", "zeros", "loop", "sparse", "folder")
        )
        os.mkfifo(pipe)
        zeros.symlink_to("/dev/zero")
        loop.symlink_to(loop)
        sparse.write_bytes(b"")
        os.truncate(sparse, 20 << 30)
        inside.mkdir()
        made += [pipe, zeros, loop, sparse, inside, folder / f"missing{suffix}"]
    return [str(path) for path in made]


def suffixed(paths: list[str], *suffixes: str) -> list[str]:
    return [path for path in paths if path.endswith(suffixes)]


def commands(group: typer.core.TyperGroup | None = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, object]]:
    """Every command with its name, such as `artifacts show`."""
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def of_its_type(command: Any, name: str) -> list[str]:
    """What is wrong for a parameter of that type, as the function behind the command declares it, or the setting does."""
    varied = command.name == "train" and name in DECISIVE  # several values are right, but not every text with commas
    signature = inspect.signature(Train if varied else command.callback)
    declared = str(signature.parameters[name].annotation)
    wrong = WHOLE if re.search(r"\bint\b", declared) else NUMBERS if re.search(r"\bfloat\b", declared) else WORDS
    return [*(bad for bad in wrong if bad != "1,2"), "1,,2", "1,x", ","] if varied and wrong is not WORDS else wrong


def cases(folder: Path) -> list[list[str]]:
    """Command lines with one bad argument each."""
    paths = files(folder)
    tiny = ["--models", "tests.helpers.toys:tiny", "--feature-dim", "16", "--rounds", "1"]
    weights = suffixed(paths, ".pkl", ".safetensors")
    before = {  # what else a command needs to get as far as it can
        "generate": ["--samples", "2"], "train": tiny, "federation join": ["--data", "toy", "--client", "0"],
    }  # fmt: skip
    references = {"", " ", "no-such", "x" * 100_000} | set(WORDS)
    special: dict[tuple[str, str], list[str]] = {
        ("prepare", "--source"): suffixed(paths, ".npz"), ("prepare", "--counts"): suffixed(paths, ".json", ".csv"),
        ("generate", "--from-latents"): [*suffixed(paths, ".npz", ".npy"), *WORDS], ("generate", "--weights"): weights,
        ("generate", "--image-size"): WHOLE, ("train", "--seeds"): SEEDS, ("train", "--set"): ASSIGNED,
        ("train", "--pretrained"): ["", "x", "=", *(f"tests.helpers.toys:tiny={path}" for path in suffixed(paths, ".pth", ".safetensors"))],
        ("report", "--output"): UNWRITABLE, ("generator show", "file"): weights, ("generator convert", "snapshot"): weights,
        ("federation join", "address"): ADDRESSES,
    }  # fmt: skip
    by_name = {
        "--name": NAMES, "--preset": [*(path for path in suffixed(paths, ".toml") if "empty" not in path), *WORDS], "--device": DEVICES, "--certificate": WORDS[:8],
        "--key": WORDS[:8], "--authority": WORDS[:8], "--node-key": WORDS[:8], "--host": WORDS, "ref": sorted(references),
        "--client": WHOLE, "--port": WHOLE,
    }  # fmt: skip
    with_it = {
        ("prepare", "--source"): ["--dataset", "npz"], ("prepare", "--counts"): ["--partition", "counts"],
        ("train", "--weights"): ["--pairs", "live"], ("train", "--generator"): ["--pairs", "live"],
    }  # fmt: skip
    # any text will do, or it is only looked at where a program of Flower's is started
    free = {("generate", "--prompt"), ("generate", "--negative-prompt"), ("generate", "--scheduler"), ("train", "--root-certificates"),
            ("federation join", "--models"), ("federation join", "--code"), ("artifacts export", "folder"), ("generator convert", "out")}  # fmt: skip
    made = []
    for command, described in commands():
        for parameter in described.params:
            option = parameter.opts[0]
            if getattr(parameter, "is_flag", False) or (command, option) in free:
                continue
            for bad in special.get((command, option), by_name.get(option, of_its_type(described, parameter.name))):
                line = [*command.split(), *before.get(command, []), *with_it.get((command, option), [])]
                rest = {"artifacts export": ["out"], "generator convert": ["out.safetensors"]}.get(command, [])
                positional = not option.startswith("-")
                needed = [] if positional else ["toy"] if command == "artifacts export" else []
                address = ["127.0.0.1:9"] if command == "federation join" and option != "address" else []
                named = ["--", bad] if positional else [f"{option}={bad}"]
                made.append(
                    [*line, *needed, *address, *(rest if not positional else []), *named, *(rest if positional else [])]
                )
    return made
