"""Stage three: data + latents -> runs. One run per algorithm and seed, each resumable at any moment."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from stages import algorithms, plugins
from stages.algorithms.common.records import cost
from stages.algorithms.contract import Algorithm
from stages.artifacts.kinds import Census, read_facts
from stages.artifacts.partial import Partial, find_unfinished
from stages.artifacts.refs import Ref, checked_name
from stages.artifacts.store import Artifact, Store, Writer
from stages.engines import checkpoint, clients, engine, rounds
from stages.engines.assembly import Elsewhere, Plan, assemble, census_of
from stages.engines.engine import Engine
from stages.engines.federation import Diverged, Federation, Share, State
from stages.engines.local import in_process
from stages.errors import Interrupted, UserError, unknown
from stages.foreign import understood
from stages.models import split
from stages.observer import SILENT, Observer
from stages.settings import Settings, Train

RESUMABLE = (  # what may change when a run goes on
    "rounds", "device", "workers", "in_flight", "offload", "checkpoint_every", "patience",
    "federation", "root_certificates", "client_cpus", "client_gpus", "round_timeout", "min_clients",
)  # fmt: skip
NAMING = ("models", "generator")  # given again, they say which code of the run's may be loaded, and change nothing


def train(
    store: Store, name: str | None, settings: Train, hyper: Mapping[str, Mapping[str, Any]], observer: Observer = SILENT
) -> list[Artifact]:
    """Run every algorithm with every seed. `hyper` holds what departs from an algorithm's defaults, by algorithm.

    Raises UserError for bad input and divergence, Interrupted when the observer asks to stop.
    """
    published = []
    with engine.opened(settings, observer) as found:
        for plan in plans(store, settings, hyper, found):
            federation, state = assemble(plan, found.images)
            partial = Partial.begin(store, "run", run_name(plan, name), plan.facts())
            published.append(finish(store, partial, plan, federation, state, found, observer))
    return published


def resume(store: Store, ref: str, changes: Mapping[str, Any], observer: Observer = SILENT) -> Artifact:
    """Go on with an unfinished run, or with a finished one for more rounds (which makes its next version).

    Code that the run names is loaded only if `changes` name it, too, in `models` or `generator`.
    """
    wanted = Ref.parse(ref)
    path = find_unfinished(store, wanted)
    with ExitStack() as held:
        if path is not None:
            partial = Partial.reopen(path)
            held.callback(partial.close)
            plan = plan_again(store, partial.facts, changes)
            saved = partial.checkpoint()
            packed = checkpoint.read(saved) if saved else None
        else:
            finished = store.open(wanted, "run")
            plan = plan_again(store, read_facts(finished), changes)
            packed = packed_run(finished)
            if plan.settings.rounds <= int(packed["rounds"]):
                raise UserError(f"{finished.ref} has its {packed['rounds']} rounds; to go on, give more with --rounds.")
        held.enter_context(plugins.only(*map(changes.get, NAMING)))
        found = held.enter_context(engine.opened(plan.settings, observer))
        if packed is None:
            federation, state = assemble(plan, found.images)
        else:  # the checkpoint has the weights: files they once came from need not be there
            federation, state = assemble(replace(plan, settings=replace(plan.settings, pretrained=())), found.images)
            checkpoint.unpack(state, packed, plan.algorithm, federation.device)
        if path is None:
            partial = Partial.begin(store, "run", finished.ref.name, plan.facts())
        return finish(store, partial, plan, federation, state, found, observer)


def dry_run(store: Store, settings: Train, hyper: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each run would be, found by one batch through every architecture; nothing is written."""
    if settings.federation:
        raise UserError(
            "A dry run needs the data here; leave out --federation and name what the clients have by --data."
        )
    return [preview(plan) for plan in plans(store, settings, hyper, engine.Local())]


def plans(store: Store, settings: Train, hyper: Mapping[str, Mapping[str, Any]], found: Engine) -> list[Plan]:
    """One plan per algorithm and seed, everything checked that can be without reading arrays."""
    chosen = [algorithms.get(name) for name in settings.algorithm]
    for name in hyper:
        if name not in settings.algorithm:
            raise unknown("algorithm in this run", name, settings.algorithm)
    hypers = {algorithm.name: algorithm.Hyper.make(hyper.get(algorithm.name, {})) for algorithm in chosen}
    data, latents = found.data(store, settings), None
    if any(algorithm.needs_latents(hypers[algorithm.name]) for algorithm in chosen):
        latents = store.open(settings.latents, "latents") if settings.latents else store.newest("latents")

    def plan(algorithm: Algorithm, seed: int) -> Plan:
        own = hypers[algorithm.name]
        key = uuid.uuid4().hex if settings.engine == "flower" else None
        return Plan(algorithm, own, settings, seed, data, latents if algorithm.needs_latents(own) else None, key)

    return [plan(algorithm, seed) for algorithm in chosen for seed in settings.seeds]


@understood("What the run tells of itself")
def plan_again(store: Store, facts: Mapping[str, Any], changes: Mapping[str, Any]) -> Plan:
    """The plan of an earlier run; UserError if its sources are gone or are not what they were."""
    own = plugins.parts(
        *(text for text in (*facts["settings"].values(), *facts["hyper"].values()) if type(text) is str)
    )
    for name, value in changes.items():
        if name not in RESUMABLE and not (name in NAMING and plugins.parts(value) <= own):
            raise UserError(f"A resumed run keeps its {name}; only {', '.join(RESUMABLE)} can change.")
    elsewhere, sources = data_elsewhere(facts), {}
    for role, identity in facts["made_from"].items():
        if role == "data" and elsewhere:
            continue
        source = store.open(identity["ref"], role)
        if source.identity != identity:
            raise UserError(f"{role} {source.ref} is not the one this run was made from; restore that one to go on.")
        sources[role] = source
    algorithm = algorithms.get(facts["algorithm"])
    settings = Train.make(facts["settings"], {name: changes[name] for name in changes if name not in NAMING})
    hyper: Settings = algorithm.Hyper.make(facts["hyper"])
    key = facts.get("federation", {}).get("run")
    return Plan(algorithm, hyper, settings, facts["seed"], elsewhere or sources["data"], sources.get("latents"), key)


def data_elsewhere(facts: Mapping[str, Any]) -> Elsewhere | None:
    """The data of a run whose clients are other machines."""
    federation = facts.get("federation", {})
    if "census" not in federation:
        return None
    census = federation["census"]
    return Elsewhere(federation["identity"], Census(**census | {"shape": tuple(census["shape"])}))


def run_name(plan: Plan, name: str | None) -> str:
    """The name asked for if the command makes one run, else one that tells its runs apart."""
    single = len(plan.settings.algorithm) == len(plan.settings.seeds) == 1
    if name and single:
        return checked_name(name)
    return checked_name("-".join(filter(None, [name, plan.algorithm.name, plan.data.ref.name, f"s{plan.seed}"])))


def finish(
    store: Store, partial: Partial, plan: Plan, federation: Federation, state: State, found: Engine, observer: Observer
) -> Artifact:
    """Run the rounds that are left and publish the run."""
    observer.start(f"{plan.algorithm.name}, seed {plan.seed}", plan.settings.rounds, state.rounds)
    try:
        with closing(found.fleet(plan, federation, state)) as fleet, store.writable(partial.path):
            rounds.run(federation, state, fleet, observer, lambda s: _save(partial, s))
        observer.finish()
        if observer.stop_requested() and not rounds.finished(federation, state):
            code = plugins.again(models=plan.settings.models, generator=plan.settings.generator)
            raise Interrupted(
                f"Stopped after round {state.rounds}; go on with: fedktl train --resume {partial.ref}{code}"
            )
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
        names, census = split.architectures(plan.settings.models, federation.clients), census_of(plan.data)
        size = {
            name: split.parameters(split.outline(name, census.shape, census.classes, plan.settings.feature_dim))
            for name in set(names)
        }
        writer.attributes["facts"] = plan.facts() | {
            "data": str(plan.data.ref), "latents": str(plan.latents.ref) if plan.latents else None,
            "models": plan.settings.models, "architectures": names, "device": str(federation.device),
            "parameters": [size[name] for name in names],
        }  # fmt: skip
        write_history(writer, federation, state)
        for number, client in enumerate(state.clients):
            writer.array(f"clients/{number:03d}", blob(checkpoint.client_weights(client)))
            predictor = plan.algorithm.predictor(plan.hyper, federation.shared, client, state.download)
            writer.attributes["predicts"] = predictor.rule
            if predictor.tensors:
                writer.array(f"predictors/{number:03d}", blob(checkpoint.packed(predictor.tensors)))
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


@understood("A part of the finished run")
def packed_run(artifact: Artifact) -> dict[str, torch.Tensor]:
    """A finished run as the checkpoint it would have left."""
    from safetensors.torch import load

    packed = load(artifact.array("checkpoint").tobytes())
    packed["rounds"].item()  # there is one number of rounds
    for number in artifact.names("clients"):
        weights = load(artifact.array(f"clients/{number}").tobytes())
        packed |= {f"clients/{number}/model/{name}": value for name, value in weights.items()}
    own = {"rounds/test_samples", "rounds/validation_samples", "pairs/centroids"}
    for group in ("rounds", "seconds", "client_metrics", "server_metrics", "pairs", "faults"):
        for name in artifact.names(group):
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
    with closing(in_process(small, state.clients)) as fleet:
        rounds.play_round(small, state, fleet)
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
