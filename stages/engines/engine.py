"""Which engine runs a federation: where its data is, and the pool of its clients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from stages.artifacts.store import Artifact, Store
from stages.engines.federation import Federation, State
from stages.engines.growing import Growing, worthwhile
from stages.engines.local import in_process
from stages.engines.plan import RemoteData, RunSpec, source
from stages.engines.rounds import ClientPool
from stages.engines.workers import Workers
from stages.errors import UserError
from stages.observer import SILENT, Observer
from stages.settings import Train


class Engine(Protocol):
    images: bool  # whether this process needs the clients' images

    def data(self, store: Store, settings: Train) -> Artifact | RemoteData:
        """What the clients train on."""

    def pool(self, spec: RunSpec, federation: Federation, state: State) -> ClientPool:
        """The clients of one run, with the states in `state`; the caller closes it."""


class Local:
    """Clients on this machine: in this process, or in several."""

    images = True

    def __init__(self, observer: Observer = SILENT):
        self._observer = observer

    def data(self, store: Store, settings: Train) -> Artifact:
        return source(store, "data", settings.data)

    def pool(self, spec: RunSpec, federation: Federation, state: State) -> ClientPool:
        """UserError if the clients can't be divided among processes."""
        workers, on_cpu = spec.settings.workers, federation.device.type == "cpu"
        if state.shelf:
            if (workers or 1) > 1:
                raise UserError("Worker processes share models in memory; with `offload=disk` leave out `workers`.")
            return in_process(federation, state.shelf)
        if workers is None and on_cpu:
            count = worthwhile(federation.clients, spec.settings.threads)
            return Growing(federation, state.clients, count, self._observer.note)
        if workers is None or workers == 1:
            return in_process(federation, state.clients)
        if not on_cpu:
            raise UserError(
                f"`workers={workers}` is for CPUs; on {federation.device} leave it out, or add `device=cpu`."
            )
        return Workers(federation, state.clients, workers)


def check_engine(settings: Train) -> None:
    """UserError for settings that do not go with the engine, or with where its clients are."""
    if settings.engine == "local":
        for name in ("federation", "ray_address"):
            if getattr(settings, name):
                raise UserError(f"`{name}` needs `engine=flower`.")
    elif (settings.workers or 1) > 1:
        raise UserError("`workers` is for the local engine; Flower's clients already run side by side.")
    if settings.federation and settings.ray_address:
        raise UserError("`ray_address` is for simulated clients; with `federation` leave it out.")
    if settings.federation and settings.data:
        raise UserError("The clients of a federation hold the data; leave out `data`.")


@contextmanager
def open_engine(settings: Train, observer: Observer) -> Iterator[Engine]:
    """The engine that the settings name. UserError if it is not available."""
    check_engine(settings)
    if settings.engine == "local":
        yield Local(observer)
        return
    from stages.engines import flower

    flower.require()
    from stages.engines.flower.cluster import answering
    from stages.engines.flower.deployment import deployed
    from stages.engines.flower.engine import Deployed, Simulated

    if settings.federation is None:
        if settings.ray_address:
            answering(settings.ray_address)
        yield Simulated(observer)
        return
    with deployed(settings.federation, settings.root_certificates) as link:
        yield Deployed(link, observer)
