"""What a round costs in time and a run in memory and on disk, from a few real steps of one client of each architecture."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import torch

from stages import devices, memory
from stages.algorithms.common.batches import Batches, eval_batch
from stages.algorithms.contract import ClientState
from stages.artifacts.schemas import EVALUATED
from stages.engines.clients import batches
from stages.engines.federation import ClientData, Federation, State
from stages.engines.growing import WORTH, cores, worthwhile
from stages.engines.local import in_process
from stages.models.split import parameters

LONG = 0.5  # seconds; longer steps are timed twice, quicker ones as often as they fit
MOST_STEPS = 64
FEW_IMAGES = 10  # to evaluate; where they are quick, as many as the model takes at once
CHECKPOINTS = 2  # on disk while the newer one is written


@dataclass(frozen=True)
class Pace:
    """Seconds of a client's turn besides its steps, of a step, and of an image evaluated."""

    turn: float
    step: float
    image: float


def price(
    federation: Federation, state: State, names: Sequence[str], server: float, kept: Mapping[str, int], shelf: bool
) -> dict[str, Any]:  # fmt: skip
    """Seconds a round and in all, bytes of memory and disk, JSON-able.

    `state` has gone through a round of small shares, in which the server took `server` seconds; `kept` are the bytes of the
    weights that the run keeps, and with a `shelf` the clients are on disk. Clients of one name share a model, and memory was watched since before it was made.
    """
    settings, on_gpu = federation.settings, federation.device.type == "cuda"
    tried = largest(federation, names)
    paces = {names[client]: pace(federation, state, client) for client in tried}
    training, evaluation = one_by_one(federation, names, paces)
    joining = (1 + settings.join_ratio) / 2 if settings.random_join else settings.join_ratio
    training *= joining
    evaluation *= joining if settings.eval_clients == "joined" else 1.0
    side = overlap(federation, state, [(client, paces[names[client]]) for client in tried]) if on_gpu else 1.0
    workers = 1 if on_gpu or shelf else side_by_side(federation, training)
    a_round = training / (side * workers) + evaluation / (workers * settings.eval_every) + server
    everyone, here = (sum(held(state, client) for client in some) for some in (range(len(names)), tried))
    data = sum(each.images.nbytes + each.labels.nbytes for part in federation.shares.values() for each in part)
    missing, peak = everyone - here, memory.peak() + kept.get("selected", 0)
    if shelf:
        missing, peak = 0, memory.peak()
    on_host = next(state.clients[0].model.parameters()).device.type == "cpu"  # where models wait
    worker = 0 if workers == 1 else peak - here - data  # the models and images it has are those of this process
    device = torch.cuda.max_memory_allocated(federation.device) + (0 if on_host else missing) if on_gpu else 0
    return {
        "seconds_per_round": a_round, "seconds": a_round * settings.rounds + evaluation / workers, "workers": workers,
        "host_memory": peak + (missing if on_host else 0) + workers * worker, "device_memory": device,
        "disk": sum(kept.values()), "most_disk": sum(kept.values()) + CHECKPOINTS * (everyone + kept.get("selected", 0)),
    }  # fmt: skip


def largest(federation: Federation, names: Sequence[str]) -> list[int]:
    """The client of each architecture that has most images, so that most steps can be timed."""
    sizes = [len(share.labels) for share in federation.shares["train"]]
    by_size = sorted(range(len(names)), key=sizes.__getitem__)
    return sorted({names[client]: client for client in by_size}.values())


def watch(federation: Federation) -> Callable[[], float]:
    """What tells the time: on one core that of this process, so that the price is the same whatever else the machine does."""
    one_core = federation.device.type == "cpu" and federation.settings.threads == 1
    return time.process_time if one_core else time.perf_counter


def one_by_one(federation: Federation, names: Sequence[str], paces: Mapping[str, Pace]) -> tuple[float, float]:
    """Seconds of all clients' training and of their evaluation, one after the other."""
    training = evaluation = 0.0
    for client, name in enumerate(names):
        training += paces[name].turn + paces[name].step * len(batches(federation, federation.shares["train"][client]))
        evaluation += paces[name].image * sum(len(federation.shares[split][client].labels) for split in EVALUATED)
    return training, evaluation


def pace(federation: Federation, state: State, client: int) -> Pace:
    with closing(Trial(federation, state, [client])) as trial:
        first, _ = trial.train(1)  # no measure: libraries choose their kernels in it
        slow = first > 2 * LONG and federation.device.type == "cpu"
        few, steps = trial.train(2 if slow else 1)
        turn, step = 0.0, few / steps
        if not slow:
            many, more = trial.train(min(MOST_STEPS, 2 + int(LONG / few)))
            if more > steps:
                step = max(0.0, many - few) / (more - steps)
                turn = max(0.0, few - steps * step)
        image = trial.evaluate(FEW_IMAGES)
        if image * FEW_IMAGES < LONG / 2:
            weights = parameters(state.clients[client].model)
            image = trial.evaluate(eval_batch(federation.shares["test"][client].images, weights))
        return Pace(turn, step, image)


def overlap(federation: Federation, state: State, tried: Sequence[tuple[int, Pace]]) -> float:
    """How much quicker clients in flight together are than one after the other."""
    with closing(Trial(federation, state, [client for client, _ in tried])) as trial:
        trial.train(1)
        seconds, _ = trial.train(MOST_STEPS)
        alone = sum(pace.turn + pace.step * len(steps) for (_, pace), steps in zip(tried, trial.steps(), strict=True))
    return max(1.0, alone / seconds)


def side_by_side(federation: Federation, seconds: float) -> int:
    """Processes among which the clients are divided, if the training of a round takes so long in one."""
    settings = federation.settings
    if settings.engine == "flower":
        return max(1, min(federation.clients, int(cores() / settings.client_cpus)))
    if settings.workers is not None:
        return min(settings.workers, federation.clients)
    return (
        worthwhile(federation.clients, settings.threads * settings.jobs)
        if seconds * (settings.rounds - 1) > WORTH
        else 1
    )


def held(state: State, client: int) -> int:
    """Bytes of what a client keeps from round to round."""
    own = state.clients[client]
    return devices.size([own.model]) + sum(tensor.nbytes for tensor in own.private.values())


class Trial:
    """Turns of some clients on some of their images. Nothing they learn counts."""

    def __init__(self, federation: Federation, state: State, some: Sequence[int]):
        shares = {split: [each[client] for client in some] for split, each in federation.shares.items()}
        self._all, self._state, self._joined = replace(federation, shares=shares), state, list(range(len(some)))
        self._clients = [ClientState(state.clients[client].model) for client in some]
        self._pool, self._now = in_process(self._all, self._clients), watch(federation)

    def train(self, steps: int) -> tuple[float, int]:
        """Seconds for about so many steps of each epoch, and how many steps they were in all."""
        self._cut(train=max(2, steps * self._all.settings.batch_size))
        for client in self._clients:
            client.private = {}  # it may be about the images it had before
        begun = self._now()
        self._pool.train(self._state.rounds, self._joined, self._state.download)
        return self._now() - begun, sum(len(own) for own in self.steps())

    def steps(self) -> list[Batches]:
        """The steps of each client's last turn."""
        return [batches(self._pool.federation, share) for share in self._pool.federation.shares["train"]]

    def evaluate(self, images: int) -> float:
        """Seconds for an image."""
        self._cut(test=images)
        count = sum(len(share.labels) for share in self._pool.federation.shares["test"])
        begun = self._now()
        self._pool.evaluate(self._state.rounds, self._joined, self._state.download)
        return (self._now() - begun) / max(1, count)

    def _cut(self, **images: int) -> None:
        shares = {
            split: [ClientData(own.images[: images.get(split, 0)], own.labels[: images.get(split, 0)]) for own in each]
            for split, each in self._all.shares.items()
        }
        self._pool.federation = replace(self._all, shares=shares)

    def close(self) -> None:
        self._pool.close()
