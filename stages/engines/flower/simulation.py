"""Simulated clients: Flower's Ray backend in this process, which ends with the run and leaves nothing behind."""

from __future__ import annotations

import logging
import os
import queue
import shutil
import tempfile
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.artifacts.store import Artifact
from stages.engines.flower.link import GridLink, Reply
from stages.engines.flower.node import ClientNode, client_app
from stages.environment import socket_folder
from stages.errors import UserError
from stages.settings import Train

if TYPE_CHECKING:
    from flwr.app import Context
    from flwr.serverapp import Grid


class Lasting(GridLink):
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
                "Flower's simulation ended; its output above says why. This machine may have too few cores or GPUs for one "
                "client (`client_cpus`, `client_gpus`)."
            )


@contextmanager
def simulated(data: Artifact, clients: int, settings: Train) -> Iterator[tuple[GridLink, Path]]:
    """A link to one node per client of `data`, and the folder of their models, until the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="fedktl-"))
    opened: queue.Queue[Grid | BaseException] = queue.Queue()
    done = threading.Event()

    def serve(grid: Grid, context: Context) -> None:
        opened.put(grid)
        done.wait()

    def simulate() -> None:
        try:
            run(serve, data, clients, settings, folder)
        except BaseException as error:  # without Ray, Flower raises SystemExit
            opened.put(error)

    thread = threading.Thread(target=simulate, daemon=True)
    thread.start()
    try:
        grid = opened.get()
        if isinstance(grid, BaseException):
            raise UserError(f"Flower's simulation did not start ({grid}).") from grid
        yield Lasting(grid, thread), folder
    finally:
        done.set()
        thread.join()
        shutil.rmtree(folder, ignore_errors=True)


def run(serve: Any, data: Artifact, clients: int, settings: Train, folder: Path) -> None:
    from flwr.serverapp import ServerApp
    from flwr.simulation import run_simulation

    for talkative in ("flwr", "ray"):
        logging.getLogger(talkative).setLevel(logging.ERROR)
    server = ServerApp()
    server.main()(serve)

    def home(context: Context) -> ClientNode:
        return ClientNode(int(context.node_config["partition-id"]), data, folder)

    with warnings.catch_warnings(), socket_folder() as sockets:
        # the replacement for run_simulation, which is deprecated, would leave a daemon running
        for known in (".*run_simulation.*", "Tip: In future versions of Ray"):
            warnings.filterwarnings("ignore", known)
        run_simulation(
            server, client_app(home), clients,
            backend_config={
                "init_args": {
                    "address": "local", "_temp_dir": str(sockets), "num_cpus": os.cpu_count() or 1,
                    "include_dashboard": False, "log_to_driver": False,
                },
                "client_resources": {"num_cpus": settings.client_cpus, "num_gpus": settings.client_gpus},
            },
        )  # fmt: skip
