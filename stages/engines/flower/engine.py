"""The two engines over Flower: simulated nodes, and those of a SuperLink."""

from __future__ import annotations

from contextlib import ExitStack

from stages.algorithms.contract import ClientState
from stages.artifacts import schemas
from stages.artifacts.store import Artifact, Store
from stages.engines.assembly import model_of
from stages.engines.federation import Federation, State
from stages.engines.flower import checks
from stages.engines.flower.disk import Disk
from stages.engines.flower.link import Link
from stages.engines.flower.pool import FlowerClients, NodeRegistry, require_nodes, wait_for_nodes
from stages.engines.flower.simulation import simulated
from stages.engines.plan import RemoteData, RunSpec, data_spec_of, source
from stages.observer import Observer
from stages.settings import Train


class Simulated:
    """Nodes on this machine, each with its client's part of one artifact; their models come back for every checkpoint."""

    images = False

    def __init__(self, observer: Observer):
        self.observer = observer

    def data(self, store: Store, settings: Train) -> Artifact:
        return source(store, "data", settings.data)

    def pool(self, spec: RunSpec, federation: Federation, state: State) -> FlowerClients:
        assert isinstance(spec.data, Artifact) and spec.run
        with ExitStack() as started:
            link, folder = started.enter_context(simulated(spec.data, federation.clients, spec.settings))
            disks = [Disk(folder, spec.run, client) for client in range(federation.clients)]
            for disk, client in zip(disks, state.clients, strict=True):
                disk.save(client, state.rounds)
            registry = NodeRegistry(link, self.observer)
            require_nodes(registry, spec.settings.round_timeout, federation.clients)
            pool = nodes(spec, federation, state, link, registry)
            pool.end = started.pop_all().close

        def gather(rounds: int) -> None:
            for disk, client in zip(disks, state.clients, strict=True):
                disk.load(client, rounds, federation.device)

        pool.gather = gather
        return pool


class Deployed:
    """The nodes of a SuperLink: their images and models stay with them."""

    images = False

    def __init__(self, link: Link, observer: Observer):
        self.link, self.registry = link, NodeRegistry(link, observer)

    def data(self, store: Store, settings: Train) -> RemoteData:
        self.registry.observer.note("Waiting for all clients to describe their data.")
        said = require_nodes(self.registry, settings.round_timeout)
        sizes = {split: [facts["sizes"][split] for facts in said] for split in schemas.SPLITS}
        channels, height, width = said[0]["shape"]
        return RemoteData(said[0]["data"], schemas.DataSpec(said[0]["classes"], (channels, height, width), sizes))

    def pool(self, spec: RunSpec, federation: Federation, state: State) -> FlowerClients:
        self.registry.expect(spec)
        # those absent after this may come later
        wait_for_nodes(self.registry, spec.settings.round_timeout, federation.clients)
        return nodes(spec, federation, state, self.link, self.registry)


def nodes(spec: RunSpec, federation: Federation, state: State, link: Link, registry: NodeRegistry) -> FlowerClients:
    """The pool of one run."""
    data_spec = data_spec_of(spec.data)
    facts = spec.facts()
    terms = {name: facts[name] for name in ("algorithm", "hyper", "settings", "seed")}
    terms |= {
        "classes": data_spec.classes, "shape": data_spec.shape, "clients": data_spec.clients,
        "latent_dim": federation.pairs.latent_dim if federation.pairs else 0,
    }  # fmt: skip
    sample = ClientState(model_of(spec, data_spec, 0).to(federation.device))
    assert spec.run
    return FlowerClients(
        federation,
        link,
        registry,
        checks.upload_spec(federation, sample, data_spec.shape),
        spec.run,
        terms,
        state.rounds,
    )
