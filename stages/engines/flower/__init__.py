"""Clients over Flower: simulated ones over Ray, or real ones on other machines. Needs the extra `fedktl[flower]`.

payload.py      named arrays and facts <-> Flower's records
link.py         how the server reaches nodes: in this process, or through a relay that the SuperLink runs
engine.py       the two engines: simulated nodes, and those of a SuperLink
pool.py         the pool for the round loop: sends, waits, checks what arrives, knows who is missing
checks.py       the rules for an answer
node.py         a client: its images, its model on its own disk, its answers; disk.py: that disk
simulation.py   nodes on this machine, over Ray; cluster.py: on several
deployment.py   the server's side of a SuperLink; server_app.py: what that runs
fleet.py        a node's side of a SuperLink; reach.py: whether one answers
worker.py       the process in which a node keeps its client ready; frames.py: how the two talk
"""

from __future__ import annotations

import importlib.util
import os

from stages.errors import UserError

SET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run` it would install the project again for every client
}


def require() -> None:
    """Call before importing Flower: turns off its telemetry. UserError if it is not installed."""
    if importlib.util.find_spec("flwr") is None:
        raise UserError("The flower engine needs Flower, which is not installed: pip install 'fedktl[flower]'")
    os.environ.update(SET)
