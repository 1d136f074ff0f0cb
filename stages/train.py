"""Stage three: data + latents -> runs. One run per algorithm and seed, each resumable at any moment."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from stages import algorithms
from stages.algorithms.contract import Algorithm, cost
from stages.artifacts.partial import Partial, find_unfinished
from stages.artifacts.refs import Ref, checked_name
from stages.artifacts.store import Artifact, Store, Writer
from stages.engines import checkpoint, clients, rounds
from stages.engines.assembly import Plan, assemble, fleet
from stages.engines.federation import Diverged, Federation, Share, State
from stages.engines.local import InProcess
from stages.errors import Interrupted, UserError, unknown
from stages.models import split
from stages.observer import SILENT, Observer
from stages.settings import Settings, Train

RESUMABLE = (
    "rounds",
    "device",
    "workers",
    "offload",
    "checkpoint_every",
    "patience",
)  # what may change when a run goes on


def train(
    store: Store, name: str | None, settings: Train, hyper: Mapping[str, Mapping[str, Any]], observer: Observer = SILENT
) -> list[Artifact]:
    """Run every algorithm with every seed. `hyper` holds what departs from an algorithm's defaults, by algorithm.

    Raises UserError for bad input and divergence, Interrupted when the observer asks to stop.
    """
    published = []
    for plan in plans(store, settings, hyper):
        federation, state = assemble(plan)
        partial = Partial.begin(store, "run", run_name(plan, name), plan.facts())
        published.append(finish(store, partial, plan, federation, state, observer))
    return published


def resume(store: Store, ref: str, changes: Mapping[str, Any], observer: Observer = SILENT) -> Artifact:
    """Go on with an unfinished run, or with a finished one for more rounds (which makes its next version)."""
    wanted = Ref.parse(ref)
    path = find_unfinished(store, wanted)
    if path is not None:
        partial = Partial.reopen(path)
        plan = plan_again(store, partial.facts, changes)
        saved = partial.checkpoint()
        packed = checkpoint.read(saved) if saved else None
    else:
        finished = store.open(wanted, "run")
        facts = finished.attributes["facts"]
        plan = plan_again(store, facts, changes)
        packed = packed_run(finished)
        if plan.settings.rounds <= int(packed["rounds"]):
            raise UserError(f"{finished.ref} has its {packed['rounds']} rounds; to go on, give more with --rounds.")
        partial = Partial.begin(store, "run", finished.ref.name, plan.facts())
    if packed is None:
        federation, state = assemble(plan)
    else:  # the checkpoint has the weights: files they once came from need not be there
        federation, state = assemble(replace(plan, settings=replace(plan.settings, pretrained=())))
        checkpoint.unpack(state, packed, plan.algorithm, federation.device)
    return finish(store, partial, plan, federation, state, observer)


def dry_run(store: Store, settings: Train, hyper: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each run would be, found by one batch through every architecture; nothing is written."""
    return [preview(plan) for plan in plans(store, settings, hyper)]


def plans(store: Store, settings: Train, hyper: Mapping[str, Mapping[str, Any]]) -> list[Plan]:
    """One plan per algorithm and seed, everything checked that can be without reading arrays."""
    chosen = [algorithms.get(name) for name in settings.algorithm]
    for name in hyper:
        if name not in settings.algorithm:
            raise unknown("algorithm in this run", name, settings.algorithm)
    hypers = {algorithm.name: algorithm.Hyper.make(hyper.get(algorithm.name, {})) for algorithm in chosen}
    data = store.open(settings.data, "data") if settings.data else store.newest("data")
    latents = None
    if any(algorithm.needs_latents(hypers[algorithm.name]) for algorithm in chosen):
        latents = store.open(settings.latents, "latents") if settings.latents else store.newest("latents")

    def plan(algorithm: Algorithm, seed: int) -> Plan:
        own = hypers[algorithm.name]
        return Plan(algorithm, own, settings, seed, data, latents if algorithm.needs_latents(own) else None)

    return [plan(algorithm, seed) for algorithm in chosen for seed in settings.seeds]


def plan_again(store: Store, facts: Mapping[str, Any], changes: Mapping[str, Any]) -> Plan:
    """The plan of an earlier run; UserError if its sources are gone or are not what they were."""
    for name in changes:
        if name not in RESUMABLE:
            raise UserError(f"A resumed run keeps its {name}; only {', '.join(RESUMABLE)} can change.")
    sources: dict[str, Artifact] = {}
    for role, identity in facts["made_from"].items():
        source = store.open(identity["ref"], role)
        if source.identity != identity:
            raise UserError(f"{role} {source.ref} is not the one this run was made from; restore that one to go on.")
        sources[role] = source
    algorithm = algorithms.get(facts["algorithm"])
    settings = Train.make(facts["settings"], changes)
    hyper: Settings = algorithm.Hyper.make(facts["hyper"])
    return Plan(algorithm, hyper, settings, facts["seed"], sources["data"], sources.get("latents"))


def run_name(plan: Plan, name: str | None) -> str:
    """The name asked for if the command makes one run, else one that tells its runs apart."""
    single = len(plan.settings.algorithm) == len(plan.settings.seeds) == 1
    if name and single:
        return checked_name(name)
    return checked_name("-".join(filter(None, [name, plan.algorithm.name, plan.data.ref.name, f"s{plan.seed}"])))


def finish(
    store: Store, partial: Partial, plan: Plan, federation: Federation, state: State, observer: Observer
) -> Artifact:
    """Run the rounds that are left and publish the run."""
    observer.start(f"{plan.algorithm.name}, seed {plan.seed}", plan.settings.rounds, state.rounds)
    try:
        with store.writable(partial.path), closing(fleet(federation, state)) as working:
            rounds.run(federation, state, working, observer, lambda s: _save(partial, s))
        observer.finish()
        if observer.stop_requested() and not rounds.finished(federation, state):
            raise Interrupted(f"Stopped after round {state.rounds}; go on with: fedktl train --resume {partial.ref}")
        artifact = publish(store, partial, plan, federation, state)
        partial.discard()
        return artifact
    except Diverged as error:
        raise UserError(f"{error}. The last good checkpoint is {partial.checkpoint()}; try a lower --lr.") from error
    finally:
        partial.close()


def _save(partial: Partial, state: State) -> None:
    partial.save(state.rounds, lambda path: checkpoint.write(state, path))


def publish(store: Store, partial: Partial, plan: Plan, federation: Federation, state: State) -> Artifact:
    """Write the run artifact under the version reserved for it."""
    ref = partial.ref
    with store.write("run", ref.name, plan.facts()["settings"], plan.seed, plan.sources, ref.version) as writer:
        names = split.architectures(plan.settings.models, len(state.clients))
        writer.attributes["facts"] = plan.facts() | {
            "data": str(plan.data.ref), "latents": str(plan.latents.ref) if plan.latents else None,
            "models": plan.settings.models, "architectures": names, "device": str(federation.device),
            "parameters": [split.parameters(client.model) for client in state.clients],
        }  # fmt: skip
        write_history(writer, federation, state)
        for number, client in enumerate(state.clients):
            writer.array(f"clients/{number:03d}", blob(checkpoint.client_weights(client)))
        rest = {
            name: value
            for name, value in checkpoint.pack(state).items()
            if "/model/" not in name and not name.startswith("history/")
        }
        writer.array("checkpoint", blob(save(rest)))
    assert writer.ref is not None
    return store.open(writer.ref)


def write_history(writer: Writer, federation: Federation, state: State) -> None:
    """All series as arrays; a run without pairs has empty ones."""
    series = state.history.tensors()
    for name in ("test", "validation"):
        series[f"rounds/{name}_samples"] = federation.sizes[name]
    series.setdefault("pairs/rounds", torch.zeros(0, dtype=torch.int64))
    series.setdefault("pairs/labels", torch.zeros(0, 0, dtype=torch.int64))
    series.setdefault("pairs/images", torch.zeros(0, 0, 3, 1, 1, dtype=torch.uint8))
    series["pairs/centroids"] = getattr(state.server, "centroids", torch.zeros(0, 0)).detach().cpu()
    for name, values in series.items():
        writer.array(name, values.numpy())


def packed_run(artifact: Artifact) -> dict[str, torch.Tensor]:
    """A finished run as the checkpoint it would have left."""
    from safetensors.torch import load

    packed = load(artifact.array("checkpoint").tobytes())
    for number in range(len(artifact.attributes["facts"]["architectures"])):
        weights = load(artifact.array(f"clients/{number:03d}").tobytes())
        packed |= {f"clients/{number:03d}/model/{name}": value for name, value in weights.items()}
    own = {"rounds/test_samples", "rounds/validation_samples", "pairs/centroids"}
    for group in ("rounds", "seconds", "client_metrics", "server_metrics", "pairs"):
        if group in artifact:
            for name in artifact.group[group].array_keys():  # type: ignore[union-attr]
                if f"{group}/{name}" not in own:
                    packed[f"history/{group}/{name}"] = torch.from_numpy(artifact.array(f"{group}/{name}"))
    return packed


def blob(content: bytes) -> np.ndarray:
    return np.frombuffer(content, dtype=np.uint8)


def preview(plan: Plan) -> dict[str, Any]:
    """Shapes and parameters of every architecture, and the floats of a round in which everyone takes part."""
    federation, state = assemble(plan)
    names = split.architectures(plan.settings.models, len(state.clients))
    shape = tuple(federation.shares["train"][0].images.shape[1:])
    rows = []
    for name in dict.fromkeys(names):
        model = state.clients[names.index(name)].model
        features, projections = split.shapes(model, shape)  # type: ignore[arg-type]
        rows.append({
            "model": name, "clients": names.count(name), "parameters": split.parameters(model),
            "features": list(features), "projections": list(projections),
        })  # fmt: skip
    small = sketch(federation)
    rounds.play_round(small, state, InProcess(small, state.clients))
    up = int(state.history.last("rounds/upload_floats").sum())
    down = cost(state.download)[0] * len(state.clients)
    return plan.facts() | {"architectures": rows, "upload_floats_per_round": up, "download_floats_per_round": down}


def sketch(federation: Federation) -> Federation:
    """The federation with one image of each class a client trains on: its records have the shapes of the real ones."""
    shares = []
    for share in federation.shares["train"]:
        seen = clients.batches(federation, share)
        first = torch.stack([(seen.labels == label).nonzero()[0, 0] for label in seen.labels.unique()])
        rows = first if len(first) > 1 else first.repeat(2)  # BatchNorm has no variance over one
        shares.append(Share(seen.images[rows], seen.labels[rows]))
    everyone = replace(
        federation.settings, join_ratio=1.0, random_join=False, drop_rate=0.0, local_epochs=1, drop_last=False
    )
    return replace(federation, settings=everyone, shares=federation.shares | {"train": shares})
