"""What a run would be: shapes, message sizes and its price, found by a few steps of every architecture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import torch

from stages import memory
from stages.algorithms.common.records import cost
from stages.algorithms.contract import ClientState
from stages.clock import collecting
from stages.engines import clients, pricing, rounds, trials
from stages.engines.assembly import assemble, on_disk
from stages.engines.checkpoint import predicting
from stages.engines.federation import ClientData, Federation, State
from stages.engines.local import in_process
from stages.engines.plan import RunSpec, data_spec_of
from stages.models import split
from stages.observer import Observer


def previews(specs: Sequence[RunSpec], observer: Observer) -> list[dict[str, Any]]:
    """What each run would be, JSON-able. Runs that differ only in their seed are tried once."""
    alike: dict[str, dict[str, Any]] = {}
    keys = [json.dumps([spec.algorithm.name, spec.hyper.as_dict(), spec.settings.as_dict()]) for spec in specs]
    observer.start("trying", len(set(keys)))
    for spec, key in zip(specs, keys, strict=True):
        if key not in alike:
            alike[key] = preview(spec)
            observer.advance()
    observer.finish()
    return [alike[key] | spec.facts() for spec, key in zip(specs, keys, strict=True)]


def preview(spec: RunSpec) -> dict[str, Any]:
    """Shapes and parameters of every architecture, the floats of a round in which everyone takes part, and its price.

    One model stands for all clients of its architecture. The server hears from all clients, in a round in which the smallest
    model may stand for everyone's.
    """
    memory.watch()
    federation, state = assemble(spec, alike=True)
    names = split.architectures(spec.settings.models, len(state.clients))
    small, clock = one_image_per_class(federation), rounds.clock_of(federation.device, trials.watch(federation))
    playing = cheapest(small, state.clients)
    with closing(in_process(small, playing)) as pool, collecting(clock), clock.phase("server"):
        rounds.play_round(small, state, pool)
    for client, played in zip(state.clients, playing, strict=True):
        client.private = played.private
    shape = tuple(federation.shares["train"][0].images.shape[1:])
    rows = []
    for name in dict.fromkeys(names):
        model = state.clients[names.index(name)].model
        features, projections = split.shapes(model, shape)  # type: ignore[arg-type]
        rows.append({
            "model": name, "clients": names.count(name), "parameters": split.parameters(model),
            "features": list(features), "projections": list(projections),
        })  # fmt: skip
    up = int(state.history.last("rounds/upload_floats").sum())
    down = cost(state.download)[0] * len(state.clients)
    server = sum(clock.seconds.values()) - clock.whole["local training"]
    kept, shelf = kept_bytes(spec, state), on_disk(spec, data_spec_of(spec.data), federation.device)
    return spec.facts() | {
        "architectures": rows, "upload_floats_per_round": up, "download_floats_per_round": down, "weights_bytes": kept,
    } | pricing.price(federation, state, names, server, kept, shelf)  # fmt: skip


def kept_bytes(spec: RunSpec, state: State) -> dict[str, int]:
    """Bytes of the weights that the run keeps, by the round they are of; those selected, if it is not the last."""
    size = sum(tensor.nbytes for tensor in predicting(state).values())
    validated = any(data_spec_of(spec.data).sizes["validation"])
    kept = {"last": True, "selected": validated} if spec.settings.keep == "both" else {spec.settings.keep: True}
    return {name: size for name, is_kept in kept.items() if is_kept}


def cheapest(federation: Federation, states: Sequence[ClientState]) -> list[ClientState]:
    """The clients, all with the smallest of their models, if it sends as much for the same images as the next larger one."""
    models = sorted({id(state.model): state.model for state in states}.values(), key=split.parameters)[:2]
    alike = replace(federation, shares=federation.shares | {"train": federation.shares["train"][:1] * len(models)})
    with closing(in_process(alike, [ClientState(model) for model in models])) as pool:
        answers = pool.train(0, list(range(len(models))), None)
    if len({cost(answer.upload) for answer in answers.values()}) == 1:
        return [ClientState(models[0]) for _ in states]
    return list(states)


def one_image_per_class(federation: Federation) -> Federation:
    """The federation with one image of each class a client trains on: its records have the shapes of the real ones."""
    shares = []
    for share in federation.shares["train"]:
        seen = clients.batches(federation, share)
        first = torch.stack([(seen.labels == label).nonzero()[0, 0] for label in seen.labels.unique()])
        rows = first if len(first) > 1 else first.repeat(2)  # BatchNorm has no variance over one
        shares.append(ClientData(seen.images[rows], seen.labels[rows]))
    everyone = replace(
        federation.settings, join_ratio=1.0, random_join=False, drop_rate=0.0, local_epochs=1, drop_last=False,
        in_flight=1,
    )  # fmt: skip
    return replace(federation, settings=everyone, shares=federation.shares | {"train": shares})
