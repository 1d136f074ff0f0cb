"""What a round adds to the history."""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional as F

from stages.algorithms.common.records import cost
from stages.artifacts.schemas import EVALUATED
from stages.engines.federation import Federation, State
from stages.engines.history import History
from stages.means import over_clients

SERVER, SECONDS = "server_metrics/", "seconds/"
LOGGED = {"client_metrics": "client", "server_metrics": "server", "seconds": "seconds"}  # series with a row a round
PICTURES = 8  # rounds whose pairs are kept as pictures, spread evenly over the run


def traffic(federation: Federation, state: State, joined: list[int], uploads: Mapping[int, Any]) -> None:
    """Floats and bytes per client, counted from the records: the download it trained with, and its upload."""
    count, wire = federation.clients, federation.settings.wire
    down = cost(state.download, wire)
    up = {client: cost(upload, wire) for client, upload in uploads.items()}
    for i, unit in enumerate(("floats", "bytes")):
        state.history.add(f"rounds/upload_{unit}", [up[c][i] if c in up else 0 for c in range(count)])
        state.history.add(f"rounds/download_{unit}", [down[i] if c in joined else 0 for c in range(count)])
    state.history.add("rounds/joined", [c in joined for c in range(count)])
    state.history.add("rounds/uploaded", [uploads.get(c) is not None for c in range(count)])


def slowness(federation: Federation, state: State, joined: list[int]) -> None:
    """By how many simulated seconds each client is late, if any is slow: the same clients in every round."""
    settings, count = federation.settings, federation.clients
    if settings.slow_rate and settings.slow_seconds:
        slow = federation.rng.numpy("slow").permutation(count)[: round(settings.slow_rate * count)]
        late = [settings.slow_seconds * (c in slow and c in joined) for c in range(count)]
        state.history.add("rounds/simulated_seconds", late)


def metrics(
    federation: Federation, state: State, clients: Mapping[int, dict[str, float]], server: Mapping[str, float]
) -> None:
    """One row per round of each metric seen so far; the server has none in a round without uploads."""
    for name in next(iter(clients.values())):
        rows = [clients[c][name] if c in clients else float("nan") for c in range(federation.clients)]
        state.history.add(f"client_metrics/{name}", rows)
    known = {name.removeprefix(SERVER) for name in state.history if name.startswith(SERVER)}
    for name in sorted(known | server.keys()):
        state.history.add_at(state.rounds, f"{SERVER}{name}", server.get(name, float("nan")))


def phases(federation: Federation) -> tuple[str, ...]:
    """What a round's time is spent on."""
    return "local training", *federation.algorithm.phases, "evaluation", "checkpoint"


def seconds(federation: Federation, state: State, spent: Mapping[str, float]) -> None:
    """A row of every phase that the algorithm has, or that an earlier round had."""
    known = (name.removeprefix(SECONDS) for name in state.history if name.startswith(SECONDS))
    for name in dict.fromkeys((*phases(federation), *known, *spent)):
        state.history.add_at(state.rounds - 1, f"{SECONDS}{name}", spent.get(name, 0.0))


def pairs(federation: Federation, state: State) -> None:
    """In the rounds chosen for it, keep one picture per class; rows without a picture have label -1."""
    pictures, last = federation.algorithm.pictures, federation.settings.rounds - 1
    kept = {round(i * last / (PICTURES - 1)) for i in range(PICTURES)}
    if pictures is None or state.download is None or state.rounds not in kept:
        return
    labels, images = pictures(state.download)
    first = labels.diff(prepend=labels.new_tensor([-1])) != 0  # the pairs of a class are adjacent
    labels, images = labels[first], images[first]
    images = images.round().to(torch.uint8) if images.is_floating_point() else images
    missing = federation.classes - len(labels)
    state.history.add("pairs/rounds", state.rounds + 1)
    state.history.add("pairs/labels", F.pad(labels, (0, missing), value=-1).cpu())
    state.history.add("pairs/images", F.pad(images, (0, 0, 0, 0, 0, 0, 0, missing)).cpu())


def highlights(federation: Federation, state: State) -> dict[str, Any]:
    """What to show about the round just finished."""
    history = state.history
    accuracy = over_clients(history.last("rounds/test_accuracy").numpy(), federation.sizes["test"].numpy())
    facts: dict[str, Any] = {"accuracy": float(accuracy)}
    facts["loss"] = float(history.last("client_metrics/loss").nanmean())
    for name in federation.algorithm.server_metrics:
        if f"{SERVER}{name}" in history:
            facts[name] = float(history.last(f"{SERVER}{name}"))
    facts["floats_up"] = int(history.last("rounds/upload_floats").sum())
    facts["floats_down"] = int(history.last("rounds/download_floats").sum())
    return facts


def line(federation: Federation, history: History, number: int) -> dict[str, Any]:
    """What was measured in round `number`, from 1, or 0 of the untrained models, as numbers by name.

    Accuracies in percent, means over clients, seconds by phase, floats of all clients, bytes of memory. Whatever is not a
    number is left out.
    """
    found: dict[str, float] = {}
    evaluated = history["rounds/evaluated"].tolist()
    if number in evaluated:
        for split in EVALUATED:
            scores = history.row(f"rounds/{split}_accuracy", evaluated.index(number)).numpy()
            found[f"accuracy/{split}"] = float(over_clients(scores, federation.sizes[split].numpy()))
    if number:
        for name in history:
            group, _, series = name.partition("/")
            if group in LOGGED:
                found[f"{LOGGED[group]}/{series}"] = float(history.row(name, number - 1).nanmean())
        for way in ("upload", "download"):
            found[f"floats/{way}"] = int(history.row(f"rounds/{way}_floats", number - 1).sum())
        found["memory/peak"] = int(history.row("rounds/peak_memory", number - 1))
    return {"round": number} | {name: value for name, value in found.items() if math.isfinite(value)}


def summary(federation: Federation, state: State) -> dict[str, float]:
    """When a run ends: the test accuracy after the last round in percent, if it is a number, and mean seconds a round."""
    phases = [series for name, series in state.history.tensors().items() if name.startswith("seconds/")]
    last = line(federation, state.history, state.rounds)
    found = {"accuracy": last.get("accuracy/test"), "seconds": float(sum(series.mean() for series in phases))}
    return {name: value for name, value in found.items() if value is not None}


def peak_memory(device: torch.device) -> int:
    """Peak memory in bytes, of the device, or on a CPU of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
