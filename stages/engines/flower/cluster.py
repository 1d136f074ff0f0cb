"""A Ray cluster that is already running, whose machines simulate the clients.

Each has fedktl installed and sees the store: during a run, the clients' models lie beside the data.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.engines.flower import reach
from stages.errors import UserError, printable

PATIENCE = 10.0  # seconds for an answer
LOOK = 60.0  # seconds for all machines to look for the store


def answering(address: str) -> None:
    """UserError unless Ray answers at the address. Ray itself would go on trying for minutes."""
    import grpc

    reach.parsed(address)
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")(b"", timeout=PATIENCE)
        except grpc.RpcError as error:
            if error.code() in (
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.DEADLINE_EXCEEDED,
                grpc.StatusCode.UNIMPLEMENTED,
            ):
                why = printable(error.details(), 300)
                raise UserError(f"No Ray cluster answers at {address} ({why}); start it with `ray start`.") from error


@contextmanager
def joined(address: str, folder: Path) -> Iterator[None]:
    """Within this block, this process is part of the cluster. UserError if it can't join, or a machine does not see the folder."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    path = os.pathsep.join(sys.path)  # which Flower would set where it starts Ray
    try:
        ray.init(
            address, log_to_driver=False, logging_level=logging.ERROR, runtime_env={"env_vars": {"PYTHONPATH": path}}
        )
        machines = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        there = [NodeAffinitySchedulingStrategy(machine, soft=False) for machine in machines]
        look = ray.remote(num_cpus=0)(blind)
        hosts = ray.get([look.options(scheduling_strategy=one).remote(folder) for one in there], timeout=LOOK)
    except Exception as error:  # Ray raises many kinds, with messages of several lines
        ray.shutdown()
        why = printable(f"{type(error).__name__}: {error}", 300)
        raise UserError(f"The Ray cluster at {address} can't be used from this machine ({why}).") from error
    try:
        if names := ", ".join(filter(None, hosts)):
            raise UserError(
                f"Machines of the Ray cluster do not see {folder.parent}: {names}; keep the store on a disk that all share."
            )
        yield
    finally:
        ray.shutdown()


def blind(folder: Path) -> str:
    """The name of this machine if it does not see the folder."""
    return "" if folder.is_dir() else socket.gethostname()
