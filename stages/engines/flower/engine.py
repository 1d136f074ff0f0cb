"""The two engines over Flower: simulated nodes, and those of a SuperLink."""

from __future__ import annotations

from contextlib import ExitStack

from stages.algorithms.contract import ClientState
from stages.artifacts import kinds
from stages.artifacts.store import Artifact, Store
from stages.engines.assembly import model_of
from stages.engines.federation import Federation, State
from stages.engines.flower import checks
from stages.engines.flower.disk import Disk
from stages.engines.flower.fleet import Nodes, Roll, awaited, called
from stages.engines.flower.link import Link
from stages.engines.flower.simulation import simulated
from stages.engines.plan import Elsewhere, Plan, census_of
from stages.observer import Observer
from stages.settings import Train


class Simulated:
    """Nodes on this machine, each with its client of one artifact; their models come back for every checkpoint."""

    images = False

    def __init__(self, observer: Observer):
        self.observer = observer

    def data(self, store: Store, settings: Train) -> Artifact:
        return store.open(settings.data, "data") if settings.data else store.newest("data")

    def fleet(self, plan: Plan, federation: Federation, state: State) -> Nodes:
        assert isinstance(plan.data, Artifact) and plan.run
        with ExitStack() as started:
            link, folder = started.enter_context(simulated(plan.data, federation.clients, plan.settings))
            disks = [Disk(folder, plan.run, client) for client in range(federation.clients)]
            for disk, client in zip(disks, state.clients, strict=True):
                disk.save(client, state.rounds)
            roll = Roll(link, self.observer)
            called(roll, plan.settings.round_timeout, federation.clients)
            fleet = nodes(plan, federation, state, link, roll)
            fleet.end = started.pop_all().close

        def gather(rounds: int) -> None:
            for disk, client in zip(disks, state.clients, strict=True):
                disk.load(client, rounds, federation.device)

        fleet.gather = gather
        return fleet


class Deployed:
    """The nodes of a SuperLink: their images and models stay with them."""

    images = False

    def __init__(self, link: Link, observer: Observer):
        self.link, self.roll = link, Roll(link, observer)

    def data(self, store: Store, settings: Train) -> Elsewhere:
        self.roll.observer.note("Waiting for every client to say what it holds.")
        said = called(self.roll, settings.round_timeout)
        sizes = {split: [facts["sizes"][split] for facts in said] for split in kinds.SPLITS}
        channels, height, width = said[0]["shape"]
        return Elsewhere(said[0]["data"], kinds.Census(said[0]["classes"], (channels, height, width), sizes))

    def fleet(self, plan: Plan, federation: Federation, state: State) -> Nodes:
        self.roll.expect(plan)
        awaited(self.roll, plan.settings.round_timeout, federation.clients)  # who is absent then may come later
        return nodes(plan, federation, state, self.link, self.roll)


def nodes(plan: Plan, federation: Federation, state: State, link: Link, roll: Roll) -> Nodes:
    """The fleet of one run."""
    census = census_of(plan.data)
    facts = plan.facts()
    terms = {name: facts[name] for name in ("algorithm", "hyper", "settings", "seed")}
    terms |= {
        "classes": census.classes, "shape": census.shape, "clients": census.clients,
        "latent_dim": federation.pairs.latent_dim if federation.pairs else 0,
    }  # fmt: skip
    sample = ClientState(model_of(plan, census, 0).to(federation.device))
    assert plan.run
    return Nodes(federation, link, roll, checks.form(federation, sample, census.shape), plan.run, terms, state.rounds)
