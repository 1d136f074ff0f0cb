"""What a run is: from settings and data, or from what an earlier run recorded."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from stages import algorithms, plugins
from stages.algorithms.contract import AnyAlgorithm, Hyperparameters
from stages.artifacts import schemas
from stages.artifacts.refs import Ref
from stages.artifacts.store import Artifact, Store
from stages.errors import UserError, unknown
from stages.fields import product
from stages.foreign import understood
from stages.models import pretrained
from stages.settings import DECISIVE, Train, names

RESUMABLE = names(Train, resumable=True)
NAMING = (
    "algorithm",
    "models",
    "generator",
)  # given again, they allow the run's own code to be loaded, and change nothing


@dataclass(frozen=True)
class RemoteData:
    """Data that only the clients have, as they describe it."""

    identity: dict[str, str]  # of the artifact their shares were taken from
    data_spec: schemas.DataSpec

    @property
    def ref(self) -> Ref:
        return Ref.parse(self.identity["ref"])


@dataclass(frozen=True)
class RunSpec:
    """One run: one algorithm, one seed."""

    algorithm: AnyAlgorithm
    hyper: Hyperparameters
    settings: Train
    seed: int
    data: Artifact | RemoteData
    latents: Artifact | None
    run: str | None = None  # key of the models on the clients' disks, for an engine that keeps them there
    digests: Mapping[str, str] = field(default_factory=dict)  # of files with pre-trained weights, by architecture

    @property
    def sources(self) -> dict[str, Artifact | RemoteData]:
        return {"data": self.data} | ({"latents": self.latents} if self.latents else {})

    def facts(self) -> dict[str, Any]:
        """What is needed to rebuild this spec, JSON-able."""
        own = replace(self.settings, algorithm=(self.algorithm.name,), seeds=(self.seed,))
        federation: dict[str, Any] = {"run": self.run}
        if isinstance(self.data, RemoteData):
            told = asdict(self.data.data_spec)
            federation |= {"weights": "with the clients", "identity": self.data.identity, "census": told}
        return {
            "algorithm": self.algorithm.name, "hyper": self.hyper.as_dict(), "settings": own.as_dict(),
            "seed": self.seed, "made_from": {role: source.identity for role, source in self.sources.items()},
        } | ({"federation": federation} if self.run else {}) | ({"pretrained": self.digests} if self.digests else {})  # fmt: skip

    def at(self, facts: Mapping[str, Any]) -> RunSpec:
        """This run where an earlier one with these facts keeps its clients' models."""
        return replace(self, run=facts.get("federation", {}).get("run", self.run))


def source(store: Store, kind: str, ref: str | None) -> Artifact:
    """The artifact asked for, or else the newest, if all have one name; UserError if there are several names."""
    if ref:
        return store.open(ref, kind)
    named = [name for name in store.names(kind) if store.versions(kind, name)]
    if len(named) > 1:
        raise UserError(
            f"There are several {kind} artifacts in {store.root}: {', '.join(named)}; set `{kind}` to one of them."
        )
    return store.newest(kind)


def data_spec_of(data: Artifact | RemoteData) -> schemas.DataSpec:
    return data.data_spec if isinstance(data, RemoteData) else schemas.census(data)


def planned(
    store: Store,
    settings: Train,
    hyper: Mapping[str, Mapping[str, Any]],
    data: Callable[[Store, Train], Artifact | RemoteData],
    grid: Mapping[str, Any] | None = None,
) -> list[RunSpec]:
    """One spec per algorithm, choice of settings and hyperparameters, and seed, checked as far as can be without reading arrays.

    A hyperparameter, or a setting in `grid`, that is a list, or text with commas, stands for each of its values.

    `data` gives what the clients train on, for which an engine may have to wait: it is asked when the settings are known
    to be right.
    """
    chosen = [algorithms.get(name) for name in settings.algorithm]
    for name in hyper:
        if name not in settings.algorithm:
            raise unknown("algorithm in this run", name, settings.algorithm)
    for name in grid or {}:
        if name not in DECISIVE:
            raise unknown("setting that may have several values", name, DECISIVE)
    variants = [Train.make(settings.as_dict(), values) for values in product(Train, grid or {})]
    points = [
        (algorithm, algorithm.Hyper.make(values), variant)
        for algorithm in chosen
        for variant in variants
        for values in product(algorithm.Hyper, hyper.get(algorithm.name, {}))
    ]
    training, latents = data(store, settings), None
    if any(own.needs_latents() for _, own, _ in points):
        latents = source(store, "latents", settings.latents)

    digests = pretrained.digests(settings.pretrained)

    def spec(algorithm: AnyAlgorithm, own: Hyperparameters, variant: Train, seed: int) -> RunSpec:
        key = uuid.uuid4().hex if settings.engine == "flower" else None
        return RunSpec(algorithm, own, variant, seed, training, latents if own.needs_latents() else None, key, digests)

    return [spec(*point, seed) for point in points for seed in settings.seeds]


@understood("What the run records about itself")
def planned_again(store: Store, facts: Mapping[str, Any], changes: Mapping[str, Any]) -> RunSpec:
    """The spec of an earlier run; UserError if its sources are missing or have changed."""
    said = (*facts["settings"].values(), *facts["hyper"].values(), facts["algorithm"])
    own = plugins.parts(*(text for text in said if type(text) is str))
    for name, value in changes.items():
        if name not in RESUMABLE and not (name in NAMING and plugins.parts(value) <= own):
            raise UserError(f"A resumed run keeps its {name}; only {', '.join(RESUMABLE)} can change.")
    remote, sources = remote_data(facts), {}
    for role, identity in facts["made_from"].items():
        if role == "data" and remote:
            continue
        found = store.open(identity["ref"], role)
        if found.identity != identity:
            raise UserError(f"{role} {found.ref} is not the one this run was made from; restore that one to continue.")
        sources[role] = found
    algorithm = algorithms.get(facts["algorithm"])
    settings = Train.make(facts["settings"], {name: changes[name] for name in changes if name not in NAMING})
    hyper: Hyperparameters = algorithm.Hyper.make(facts["hyper"])
    key = facts.get("federation", {}).get("run")
    training, digests = remote or sources["data"], facts.get("pretrained", {})
    return RunSpec(algorithm, hyper, settings, facts["seed"], training, sources.get("latents"), key, digests)


def remote_data(facts: Mapping[str, Any]) -> RemoteData | None:
    """The data of a run whose clients are on other machines."""
    federation = facts.get("federation", {})
    if "census" not in federation:
        return None
    told = federation["census"]
    return RemoteData(federation["identity"], schemas.DataSpec(**told | {"shape": tuple(told["shape"])}))
