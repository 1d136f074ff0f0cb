"""What a run is: from settings and data, or again from what a run recorded."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from stages import algorithms, plugins
from stages.algorithms.contract import Algorithm
from stages.artifacts import schemas
from stages.artifacts.refs import Ref, checked_name
from stages.artifacts.store import Artifact, Store
from stages.errors import UserError, unknown
from stages.foreign import understood
from stages.settings import Settings, Train, names

RESUMABLE = names(Train, resumable=True)
NAMING = (
    "algorithm",
    "models",
    "generator",
)  # given again, they say which code of the run's may be loaded, and change nothing


@dataclass(frozen=True)
class RemoteData:
    """Data that only the clients have: what they say of it."""

    identity: dict[str, str]  # of the artifact that their shares were cut from
    data_spec: schemas.DataSpec

    @property
    def ref(self) -> Ref:
        return Ref.parse(self.identity["ref"])


@dataclass(frozen=True)
class RunSpec:
    """One run: one algorithm, one seed."""

    algorithm: Algorithm
    hyper: Settings
    settings: Train
    seed: int
    data: Artifact | RemoteData
    latents: Artifact | None
    run: str | None = None  # key of the clients' models on their own disks, for an engine that keeps them there

    @property
    def sources(self) -> dict[str, Artifact | RemoteData]:
        return {"data": self.data} | ({"latents": self.latents} if self.latents else {})

    def facts(self) -> dict[str, Any]:
        """What is needed to make this spec again, JSON-able."""
        own = replace(self.settings, algorithm=(self.algorithm.name,), seeds=(self.seed,))
        federation: dict[str, Any] = {"run": self.run}
        if isinstance(self.data, RemoteData):
            told = asdict(self.data.data_spec)
            federation |= {"weights": "with the clients", "identity": self.data.identity, "census": told}
        return {
            "algorithm": self.algorithm.name, "hyper": self.hyper.as_dict(), "settings": own.as_dict(),
            "seed": self.seed, "made_from": {role: source.identity for role, source in self.sources.items()},
        } | ({"federation": federation} if self.run else {})  # fmt: skip


def data_spec_of(data: Artifact | RemoteData) -> schemas.DataSpec:
    return data.data_spec if isinstance(data, RemoteData) else schemas.census(data)


def planned(
    store: Store,
    settings: Train,
    hyper: Mapping[str, Mapping[str, Any]],
    data: Callable[[Store, Train], Artifact | RemoteData],
) -> list[RunSpec]:
    """One spec per algorithm and seed, everything checked that can be without reading arrays.

    `data` gives what the clients train on, for which an engine may have to wait: it is asked when the settings are known
    to be right.
    """
    chosen = [algorithms.get(name) for name in settings.algorithm]
    for name in hyper:
        if name not in settings.algorithm:
            raise unknown("algorithm in this run", name, settings.algorithm)
    hypers = {algorithm.name: algorithm.Hyper.make(hyper.get(algorithm.name, {})) for algorithm in chosen}
    training, latents = data(store, settings), None
    if any(algorithm.needs_latents(hypers[algorithm.name]) for algorithm in chosen):
        latents = store.open(settings.latents, "latents") if settings.latents else store.newest("latents")

    def spec(algorithm: Algorithm, seed: int) -> RunSpec:
        own = hypers[algorithm.name]
        key = uuid.uuid4().hex if settings.engine == "flower" else None
        return RunSpec(algorithm, own, settings, seed, training, latents if algorithm.needs_latents(own) else None, key)

    return [spec(algorithm, seed) for algorithm in chosen for seed in settings.seeds]


@understood("What the run tells of itself")
def planned_again(store: Store, facts: Mapping[str, Any], changes: Mapping[str, Any]) -> RunSpec:
    """The spec of an earlier run; UserError if its sources are gone or are not what they were."""
    said = (*facts["settings"].values(), *facts["hyper"].values(), facts["algorithm"])
    own = plugins.parts(*(text for text in said if type(text) is str))
    for name, value in changes.items():
        if name not in RESUMABLE and not (name in NAMING and plugins.parts(value) <= own):
            raise UserError(f"A resumed run keeps its {name}; only {', '.join(RESUMABLE)} can change.")
    remote, sources = remote_data(facts), {}
    for role, identity in facts["made_from"].items():
        if role == "data" and remote:
            continue
        source = store.open(identity["ref"], role)
        if source.identity != identity:
            raise UserError(f"{role} {source.ref} is not the one this run was made from; restore that one to go on.")
        sources[role] = source
    algorithm = algorithms.get(facts["algorithm"])
    settings = Train.make(facts["settings"], {name: changes[name] for name in changes if name not in NAMING})
    hyper: Settings = algorithm.Hyper.make(facts["hyper"])
    key = facts.get("federation", {}).get("run")
    return RunSpec(algorithm, hyper, settings, facts["seed"], remote or sources["data"], sources.get("latents"), key)


def remote_data(facts: Mapping[str, Any]) -> RemoteData | None:
    """The data of a run whose clients are other machines."""
    federation = facts.get("federation", {})
    if "census" not in federation:
        return None
    told = federation["census"]
    return RemoteData(federation["identity"], schemas.DataSpec(**told | {"shape": tuple(told["shape"])}))


def run_name(spec: RunSpec, name: str | None) -> str:
    """The name asked for if the command makes one run, else one that tells its runs apart."""
    single = len(spec.settings.algorithm) == len(spec.settings.seeds) == 1
    if name and single:
        return checked_name(name)
    algorithm = spec.algorithm.name.replace(":", ".")  # of a user's own
    return checked_name("-".join(filter(None, [name, algorithm, spec.data.ref.name, f"s{spec.seed}"])))
