"""What a round costs in time and a run in memory and on disk, from the trials of one client of each architecture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from stages import devices, memory
from stages.artifacts.schemas import EVALUATED
from stages.engines import trials
from stages.engines.clients import batches
from stages.engines.federation import Federation, State
from stages.engines.growing import WORTH, cores, worthwhile
from stages.engines.trials import Pace

CHECKPOINTS = 2  # on disk while the newer one is written


def price(
    federation: Federation, state: State, names: Sequence[str], server: float, kept: Mapping[str, int], shelf: bool
) -> dict[str, Any]:  # fmt: skip
    """Seconds a round and in all, bytes of memory and disk, JSON-able.

    `state` has gone through a round of small shares, in which the server took `server` seconds; `kept` are the bytes of the
    weights that the run keeps, and with a `shelf` the clients are on disk. Clients of one name share a model, and
    memory was watched since before it was made.
    """
    settings, on_gpu = federation.settings, federation.device.type == "cuda"
    tried = trials.largest(federation, names)
    found = {client: trials.pace(federation, state, client) for client in tried}
    paces = {names[client]: pace for client, pace in found.items()}
    training, evaluation = one_by_one(federation, names, paces)
    joining = (1 + settings.join_ratio) / 2 if settings.random_join else settings.join_ratio
    training *= joining
    evaluation *= joining if settings.eval_clients == "joined" else 1.0
    side = trials.overlap(federation, state, found) if on_gpu else 1.0
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


def one_by_one(federation: Federation, names: Sequence[str], paces: Mapping[str, Pace]) -> tuple[float, float]:
    """Seconds of all clients' training and of their evaluation, one after the other."""
    training = evaluation = 0.0
    for client, name in enumerate(names):
        training += paces[name].turn + paces[name].step * len(batches(federation, federation.shares["train"][client]))
        evaluation += paces[name].image * sum(len(federation.shares[split][client].labels) for split in EVALUATED)
    return training, evaluation


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
