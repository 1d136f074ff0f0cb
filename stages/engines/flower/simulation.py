"""Simulated clients: Flower's Ray backend in this process, which ends with the run and leaves nothing behind.

Ray starts on this machine, or `ray_address` names a cluster that is already running.
"""

from __future__ import annotations

import logging
import os
import queue
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from stages.artifacts.folders import scratch
from stages.artifacts.store import Artifact
from stages.engines.flower.cluster import joined
from stages.engines.flower.link import GridLink, Reply
from stages.engines.flower.node import ClientNode, client_app
from stages.environment import socket_folder
from stages.errors import UserError, printable
from stages.settings import Train

if TYPE_CHECKING:
    from flwr.app import Context
    from flwr.serverapp import Grid


class SimulationLink(GridLink):
    """A grid's link that raises if the simulation behind it has ended, as it does when Ray can't start a client."""

    def __init__(self, grid: Grid, thread: threading.Thread):
        super().__init__(grid)
        self.thread = thread

    def nodes(self) -> set[int]:
        self.check()
        return super().nodes()

    def pull(self, ids: Iterable[str]) -> dict[str, Reply]:
        self.check()
        return super().pull(ids)

    def check(self) -> None:
        if not self.thread.is_alive():
            raise UserError(
                "Flower's simulation ended; its output above says why. There may be too few cores or GPUs for one client "
                "(`client_cpus`, `client_gpus`)."
            )


@contextmanager
def simulated(data: Artifact, clients: int, settings: Train) -> Iterator[tuple[GridLink, Path]]:
    """A link to one node per client of `data`, and the folder of their models, until the block ends."""
    opened: queue.Queue[Grid | BaseException] = queue.Queue()
    done = threading.Event()

    def serve(grid: Grid, context: Context) -> None:
        opened.put(grid)
        done.wait()

    def simulate(folder: Path) -> None:
        try:
            with quiet(), joined(settings.ray_address, folder) if settings.ray_address else nullcontext():
                run(serve, data, clients, settings, folder)
        except BaseException as error:  # without Ray, Flower raises SystemExit
            opened.put(error)

    with models(data, settings) as folder:
        thread = threading.Thread(target=simulate, args=(folder,), daemon=True)
        thread.start()
        try:
            grid = opened.get()
            if isinstance(grid, UserError):
                raise grid
            if isinstance(grid, BaseException):
                raise UserError(f"Flower's simulation did not start ({printable(str(grid), 300)}).") from grid
            yield SimulationLink(grid, thread), folder
        finally:
            done.set()
            thread.join()


@contextmanager
def models(data: Artifact, settings: Train) -> Iterator[Path]:
    """A folder for the clients' models, which every machine of a cluster sees: beside the data, which all of them must see as well."""
    if settings.ray_address:
        with scratch(data.path.parent.absolute()) as folder:
            yield folder
    else:
        with tempfile.TemporaryDirectory(prefix="fedktl-", ignore_cleanup_errors=True) as name:
            yield Path(name)


@contextmanager
def quiet() -> Iterator[None]:
    """Within this block, Flower and Ray report errors only."""
    for talkative in ("flwr", "ray"):
        logging.getLogger(talkative).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for known in (".*run_simulation.*", "Tip: In future versions of Ray"):
            warnings.filterwarnings("ignore", known)
        yield


def run(serve: Callable[[Grid, Context], None], data: Artifact, clients: int, settings: Train, folder: Path) -> None:
    from flwr.serverapp import ServerApp
    from flwr.simulation import run_simulation

    server, seen = (
        ServerApp(),
        replace(data, path=data.path.absolute()),
    )  # Ray may start its processes in another folder
    server.main()(serve)

    def home(context: Context) -> ClientNode:
        return ClientNode(int(context.node_config["partition-id"]), seen, folder)

    with socket_folder() as sockets:
        run_simulation(  # deprecated, but its replacement would leave a daemon running
            server, client_app(home), clients,
            backend_config={
                "init_args": {  # unless this process is in a cluster already
                    "address": "local", "_temp_dir": str(sockets), "num_cpus": os.cpu_count() or 1,
                    "include_dashboard": False, "log_to_driver": False,
                },
                "client_resources": {"num_cpus": settings.client_cpus, "num_gpus": settings.client_gpus},
            },
        )  # fmt: skip
