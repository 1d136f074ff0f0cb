"""A round beside its bare arithmetic: seconds by phase, engine/bare of local training, peak memory, steps per second.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.rounds [--case small] [--rounds 3] [--folder FOLDER] [--json]

Cases: `small` (20 clients), `HtFE8` (20 clients, three steps each), `cnn200` (200 clients) and `table1` (HtFE8, 20 clients,
as many images as CIFAR-10 has; for a GPU). On a GPU the bare loop is timed on its own (tests/benchmarks/on_gpu.py). FOLDER holds the recorded
CIFAR-10 partition (see tests/benchmarks/anchor.py); without it images of the same sizes are made up. In every round each
client trains twice, in the engine and in a bare loop over the same batches (tests/benchmarks/bare.py), in turns, so that
what else the machine does strikes both alike. Peak memory is taken in a process of its own. The floor of a phase is its
FLOPs over the device's rate for matrix products, or its bytes over that of the disk; a checkpoint is charged a tenth,
since one is written every ten rounds.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch

from stages.artifacts.store import Store
from stages.clock import Clock, collecting, phase
from stages.engines import checkpoint, recording, rounds
from stages.engines.assembly import assemble
from stages.engines.federation import Federation, State
from stages.engines.local import InProcess
from stages.settings import Train
from tests.benchmarks import floors, machine, on_gpu
from tests.benchmarks.bare import bare_seconds
from tests.benchmarks.cases import CASES, TINY, Case, plan, stored


def beside(update, seconds: dict):
    """`client_update` with a bare run of the same steps before it or, every other time, behind it."""
    count = 0

    def both(hyper, shared, client, download, batches, rng):
        nonlocal count
        count += 1
        arguments = hyper, shared, client, download, batches, rng

        def bare():
            with phase("bare"):
                seconds["bare"] += bare_seconds(*start)

        # the bare loop must start from the weights that the engine starts from
        start = (hyper, shared, floors.frozen_copy(client), download, batches, rng)
        if count % 2:
            bare()
            return update(*arguments)
        result = update(*arguments)
        bare()
        return result

    return both


def measure(store: Store, case: Case, repeats: int, settings: dict) -> dict:
    """Medians over the rounds after the first, in which there are no pairs yet."""
    planned, bare = plan(store, case, **settings), {"bare": 0.0}
    algorithm = replace(planned.algorithm, client_update=beside(planned.algorithm.client_update, bare))
    federation, state = assemble(replace(planned, algorithm=algorithm))
    pool, ratios, phases = InProcess(federation, state.clients), [], []
    for number in range(repeats + 1):
        bare["bare"], clock = 0.0, Clock()
        with collecting(clock):
            rounds.play_round(federation, state, pool)
            rounds.evaluate(federation, state, pool)
            with phase("checkpoint"):
                checkpoint.write(state, store.root / "checkpoint.safetensors")
        del clock.seconds["bare"]
        clock.seconds["checkpoint"] /= floors.CHECKPOINT_EVERY
        if number:
            ratios.append(clock.seconds["local training"] / bare["bare"])
            phases.append(clock.seconds)
    seconds = {name: statistics.median(each.get(name, 0.0) for each in phases) for name in recording.phases(federation)}
    others = sum(value for name, value in seconds.items() if name != "local training")
    return {
        "seconds": seconds, "floor": floors.seconds(federation, state), "engine/bare": statistics.median(ratios),
        "others/round": others / sum(seconds.values()),
        "steps_per_second": floors.steps(federation) / seconds["local training"],
    }  # fmt: skip


def memory(root: Path, case: Case, settings: dict) -> dict:
    """Peak bytes of two rounds beyond what the libraries take, and the bytes that must be held."""

    def play(store: Store, case: Case) -> tuple[Federation, State]:
        federation, state = assemble(plan(store, case, **settings))
        pool = InProcess(federation, state.clients)
        for _ in range(2):
            rounds.play_round(federation, state, pool)
            rounds.evaluate(federation, state, pool)
        return federation, state

    with stored(TINY) as store:  # so that what libraries load at first use is loaded
        play(store, TINY)
    before = machine.peak_memory()
    federation, state = play(Store(root), case)
    peak = machine.peak_memory() - before
    return {"peak": peak, "libraries": before, "held": floors.held(federation, state)}


def show(name: str, result: dict) -> None:
    print(f"\n{name}: engine/bare {result['engine/bare']:.3f}, {result['steps_per_second']:.1f} steps/s, "
          f"all but training {100 * result['others/round']:.1f}% of the round")  # fmt: skip
    for each, value in result["seconds"].items():
        print(f"  {each:15} {value:9.3f} s   floor {result['floor'].get(each, 0.0):9.3f} s")
    sizes = result["memory"]
    parts = ", ".join(f"{part} {size / 2**20:.0f}" for part, size in sizes["held"].items())
    print(f"  peak memory {sizes['peak'] / 2**20:.0f} MiB beyond the libraries' {sizes['libraries'] / 2**20:.0f}; {parts};"
          f" {sizes['peak'] / sum(sizes['held'].values()):.2f} times what must be held")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, action="append", help="default: all but table1")
    parser.add_argument("--rounds", type=int, default=3, help="rounds to take the median of, after a first one")
    parser.add_argument("--images", type=int, help="training images per client, instead of the case's own")
    parser.add_argument("--folder", type=Path, help="the recorded CIFAR-10 partition")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--in-flight", type=int, default=Train().in_flight, help="clients on a GPU at a time")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    for name in asked.case or [name for name in CASES if name != "table1"]:
        case = replace(CASES[name], images=asked.images or CASES[name].images)
        begun = time.perf_counter()
        with stored(case, asked.folder) as store:
            settings = {"device": asked.device, "precision": asked.precision, "in_flight": asked.in_flight}
            if asked.device != "cpu":
                results[name] = on_gpu.measure(store, case, asked.rounds, settings)
                if not asked.json:
                    on_gpu.show(name, results[name])
                continue
            result = measure(store, case, asked.rounds, settings)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                result["memory"] = pool.apply(memory, (store.root, case, settings))
        results[name] = result | {"measured_in": time.perf_counter() - begun}
        if not asked.json:
            show(name, result)
    told = machine.facts(torch.device(asked.device))
    if asked.json:
        print(json.dumps({"machine": told, "cases": results}))
    else:
        print("\n" + ", ".join(f"{name} {value}" for name, value in told.items()))


if __name__ == "__main__":
    main()
