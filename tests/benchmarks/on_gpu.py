"""A round on a GPU beside the plain loop: seconds by phase, milliseconds a step, and how much of the device is used."""

from __future__ import annotations

import statistics
from contextlib import closing
from dataclasses import replace

import torch

from stages.artifacts.store import Store
from stages.clock import Clock, collecting
from stages.engines import clients, recording, rounds
from stages.engines.assembly import assemble
from stages.engines.federation import Federation, State
from stages.engines.local import in_process
from stages.models import split
from tests.benchmarks import floors
from tests.benchmarks.bare import bare_seconds
from tests.benchmarks.cases import Case, plan

BARE_STEPS = 20  # of each architecture, after as many that are not timed


def measure(store: Store, case: Case, repeats: int, settings: dict) -> dict:
    """Medians over the rounds after the first two: one without pairs, and one in which libraries choose their kernels."""
    federation, state = assemble(plan(store, case, **settings))
    device, phases, reserved = federation.device, [], []
    with closing(in_process(federation, state.clients)) as pool:
        for _ in range(2 + repeats):
            clock = Clock(lambda: torch.cuda.synchronize(device))
            with collecting(clock):
                rounds.play_round(federation, state, pool)
                rounds.evaluate(federation, state, pool)
            phases.append(clock.seconds)
            reserved.append(torch.cuda.memory_reserved(device) >> 20)
    seconds = {
        name: statistics.median(each.get(name, 0.0) for each in phases[2:])
        for name in recording.phases(federation)
        if name != "checkpoint"
    }
    steps, floor = floors.steps(federation), floors.seconds(federation, state)
    bare = bare_step(federation, state)
    step = seconds["local training"] / steps
    return {
        "seconds": seconds, "round": sum(seconds.values()), "rounds": [sum(each.values()) for each in phases],
        "steps": steps, "ms_per_step": 1e3 * step, "bare_ms_per_step": 1e3 * bare, "bare/engine": bare / step,
        "utilisation": floor["local training"] / seconds["local training"],
        "peak_mib": torch.cuda.max_memory_allocated(device) >> 20, "reserved_mib": reserved,
        "card": torch.cuda.get_device_name(device), "settings": settings,
    }  # fmt: skip


def bare_step(federation: Federation, state: State) -> float:
    """Seconds of a step of the plain eager loop, the mean over all clients, measured on one of each architecture."""
    names = split.architectures(federation.settings.models, federation.clients)
    cost = {}
    for name in dict.fromkeys(names):
        client = names.index(name)
        share = federation.shares["train"][client]
        few = BARE_STEPS * federation.settings.batch_size
        seen = clients.batches(federation, replace(share, images=share.images[:few], labels=share.labels[:few]))
        for _ in range(2):
            spent = bare_seconds(
                federation.hyper, federation.shared, floors.frozen_copy(state.clients[client]), state.download, seen,
                federation.rng.at("bare", client),
            )  # fmt: skip
        cost[name] = spent / len(seen)
    return sum(cost[name] for name in names) / len(names)


def show(name: str, result: dict) -> None:
    print(f"\n{name} on {result['card']}, {result['settings']}: {result['round']:.2f} s a round, "
          f"{result['ms_per_step']:.2f} ms a step, {result['bare/engine']:.1f} times the plain loop's speed "
          f"({result['bare_ms_per_step']:.1f} ms), {100 * result['utilisation']:.1f}% of the arithmetic's rate")  # fmt: skip
    for each, value in result["seconds"].items():
        print(f"  {each:15} {value:8.3f} s")
    print(f"  memory: {result['peak_mib']} MiB at most; reserved after each round: {result['reserved_mib']}")
