"""What is not a round: one command a number.

    python -m tests.benchmarks.targets alignment|wide|matching|prepare|clients|workers|steps|start [--source FILE]

alignment: 100 server epochs on 20 clients x 100 classes, H = 512, in seconds. wide: the same with H = 16,384, a few
epochs, and peak memory. matching: 200 centroids to 50,000 latents of 512. prepare: 60,000 images (made up, or from
--source) into 100 clients, and opening and placing them. clients: seconds a round for 20, 50, 100 and 200 clients of
equal total data (--images), in turns. workers: one process against two on the `small` case, in turns. steps: a step on twenty
images, in milliseconds, with the channels last: as PyTorch convolves, and as the program does, in turns. start:
`fedktl --help` and `fedktl artifacts list`, cold.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from stages.algorithms import fedktl
from stages.algorithms.common.sgd import SGD
from stages.algorithms.contract import Task
from stages.artifacts import schemas
from stages.artifacts.store import Store
from stages.engines import rounds
from stages.engines.assembly import assemble, shares_of
from stages.engines.engine import Local
from stages.generators.pairs import BankPairs
from stages.models import split, zoo
from stages.prepare import prepare
from stages.randomness import Rng
from stages.settings import Prepare
from tests.benchmarks import machine
from tests.benchmarks.bare import plain
from tests.benchmarks.cases import CASES, Case, plan, stored


def timed(work: Callable[[], object], repeats: int = 1) -> float:
    """Least seconds of several."""
    found = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        found.append(time.perf_counter() - begun)
    return min(found)


def bank(count: int, width: int, classes: int) -> BankPairs:
    latents = torch.randn(count, width, generator=torch.Generator().manual_seed(0))
    return BankPairs(latents, torch.zeros(count, 3, 8, 8, dtype=torch.uint8), 8, classes)


def alignment(asked, width: int = 512, epochs: int = 100, latents: int = 5000) -> dict:
    torch.set_num_threads(asked.threads)
    task = Task(20, 100, 512, width, 0.01, 10, torch.device("cpu"))
    labels, source = torch.arange(2000) % 100, bank(latents, width, 100)
    protos = F.normalize(torch.randn(2000, 100, generator=torch.Generator().manual_seed(1)))

    def align() -> None:
        hyper = fedktl.Hyper(server_epochs=epochs)
        state, _ = fedktl.init(hyper, task, Rng(0))
        fedktl.align(hyper, state, fedktl.Upload(labels, protos), source, Rng(0))

    return {"seconds": timed(align, asked.repeats), "epochs": epochs}


def wide(asked) -> dict:
    before = machine.peak_memory()
    found = alignment(asked, 16384, 3, 500)
    return found | {"peak_bytes": machine.peak_memory(), "beyond_libraries": machine.peak_memory() - before}


def matching(asked) -> dict:
    source, centroids = bank(50000, 512, 200), torch.randn(200, 512)
    return {"seconds": timed(lambda: source.pairs(centroids), asked.repeats)}


def preparation(asked) -> dict:
    from numcodecs import Zstd  # Zarr brings it

    with tempfile.TemporaryDirectory() as folder:
        source = asked.source or made_up(Path(folder))
        store, settings = Store(folder), Prepare(dataset="npz", source=str(source), clients=100)
        seconds = timed(lambda: prepare(store, "images", settings))
        alone = peak_of("--store", folder, "prepare", "--dataset", "npz", "--source", str(source), "--clients", "100")
        path = store.path(store.resolve("images", "data"))
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        raw = schemas.read(store.open("images", "data"))
        splits = (raw.train, raw.validation, raw.test)
        packed = sum(
            len(Zstd(level=3).encode(s.images[i : i + 1365])) for s in splits for i in range(0, len(s.images), 1365)
        )

        def place() -> None:
            data = schemas.read(store.open("images", "data"))
            for split in (data.train, data.validation, data.test):
                shares_of(split, data.clients, torch.device("cpu"))

        opening = timed(place, asked.repeats)
        return {"seconds": seconds, "peak_bytes": alone, "bytes": size, "over_zstd": size / packed,
                "opening_seconds": opening}  # fmt: skip


def peak_of(*words: str) -> int:
    """Peak bytes of a fedktl command in a process of its own."""
    code = (
        "import re, sys; from fedktl_cli.main import app; app(sys.argv[1:], standalone_mode=False); "
        "print(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])"
    )
    done = subprocess.run([sys.executable, "-c", code, "-q", *words], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) * 1024


def made_up(folder: Path) -> Path:
    rng, path = np.random.default_rng(0), folder / "images.npz"
    smooth = rng.integers(0, 256, (60000, 8, 8, 3), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
    labels = rng.integers(0, 10, 60000)
    np.savez(path, x_train=smooth[:50000], y_train=labels[:50000], x_test=smooth[50000:], y_test=labels[50000:])
    return path


def seconds_per_round(plans: dict, repeats: int) -> dict:
    """Median seconds a round, the first left out, the plans taking turns."""
    with ExitStack() as stack:
        teams, found = {}, {name: [] for name in plans}
        for name, planned in plans.items():
            federation, state = assemble(planned)
            teams[name] = federation, state, Local().pool(planned, federation, state)
            stack.callback(teams[name][2].close)
        for number in range(repeats + 1):
            for name, (federation, state, team) in teams.items():
                begun = time.perf_counter()
                rounds.play_round(federation, state, team)
                rounds.evaluate(federation, state, team)
                if number:
                    found[name].append(time.perf_counter() - begun)
    return {str(name): statistics.median(times) for name, times in found.items()}


def clients(asked) -> dict:
    with ExitStack() as stack:
        cases = {count: Case("CNN", count, asked.images // count) for count in (20, 50, 100, 200)}
        plans = {count: plan(stack.enter_context(stored(case)), case) for count, case in cases.items()}
        found = seconds_per_round(plans, asked.repeats)
    return {"seconds": found, "spread": max(found.values()) / min(found.values()) - 1}


def workers(asked) -> dict:
    case = CASES["small"]
    with stored(case, asked.folder) as store:
        found = seconds_per_round({count: plan(store, case, workers=count) for count in (1, 2)}, asked.repeats)
    return {"seconds": found, "speedup": found["1"] / found["2"]}


def steps(asked) -> dict:
    x, y = torch.randn(20, 3, 32, 32), torch.arange(20) % 10
    found = {}
    for name in dict.fromkeys((*zoo.GROUPS["small"], *zoo.GROUPS["HtFE8"])):
        model = split.laid_out(split.build(name, (3, 32, 32), 10, 512, seed=0), True, torch.device("cpu")).train()
        ways = {"PyTorch": plain(model, torch.channels_last), "program": model}
        found[name] = dict.fromkeys(ways, math.inf)
        for _ in range(asked.repeats):
            for way, network in ways.items():
                sgd = SGD(0.01, network)
                seconds = timed(lambda network=network, sgd=sgd: sgd.step(F.cross_entropy(network(x), y)), 5)
                found[name][way] = min(found[name][way], 1000 * seconds)
    return {"ms": found}


def start(asked) -> dict:
    def cold(*words: str) -> float:
        command = [sys.executable, "-m", "fedktl_cli", *words]
        return timed(lambda: subprocess.run(command, check=True, capture_output=True), asked.repeats)

    with tempfile.TemporaryDirectory() as folder:
        return {"help": cold("--help"), "artifacts list": cold("--store", folder, "artifacts", "list")}


MEASURES = {
    "alignment": alignment, "wide": wide, "matching": matching, "prepare": preparation, "clients": clients,
    "workers": workers, "steps": steps, "start": start,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measure", choices=MEASURES)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="of the alignment")
    parser.add_argument("--images", type=int, default=8000, help="training images of all clients together")
    parser.add_argument("--source", type=Path, help="CIFAR-10 with Keras' key names")
    parser.add_argument("--folder", type=Path, help="the recorded CIFAR-10 partition")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(MEASURES[asked.measure](asked) | {"machine": machine.facts(torch.device("cpu"))}))


if __name__ == "__main__":
    main()
