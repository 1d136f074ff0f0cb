"""Clients simulated over Ray give the run that clients in this process give."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import stages
from stages import algorithms
from tests.helpers.later import needs
from tests.helpers.toy_runs import numbers, settings

pytestmark = needs("flwr", "ray")
OTHERS = [name for name in algorithms.NAMES if name not in ("fedktl", "fedkd", "ktl")]
MANY = pytest.param(OTHERS, marks=pytest.mark.slow, id="all others")


@pytest.mark.parametrize("names", [["fedktl"], ["fedkd"], MANY], ids=lambda names: names[0])
def test_the_artifact_equals_the_local_engines(toy_store, names):
    for name in names:
        plan = {"algorithm": name, "rounds": 2, "join_ratio": 0.75, "drop_rate": 0.4, "data": "toy"}
        (local,) = stages.train(toy_store, "local", settings(**plan), {})
        (flower,) = stages.train(toy_store, "flower", settings(**plan, engine="flower"), {})
        one, other = numbers(local), numbers(flower)
        assert other.keys() - one.keys() == {"rounds/wire_upload_bytes", "rounds/wire_download_bytes"}
        assert one.keys() - other.keys() == {"rounds/test_confusion"}
        for series in one.keys() & other.keys():
            np.testing.assert_array_equal(one[series], other[series], err_msg=f"{name}: {series}")


def test_nothing_is_left_running(toy_store, tmp_path):
    """Nor does it matter where the environment wants Ray's sockets, and which cluster it names."""
    temporary = tmp_path / ("x" * 90)
    temporary.mkdir()
    steered = {"TMPDIR": str(temporary), "RAY_ADDRESS": "127.0.0.1:6399"}
    code = (
        "import sys; from pathlib import Path; from stages import Store, train\n"
        "from tests.test_train import settings\n"
        "train(Store(Path(sys.argv[1])), 'x', settings(algorithm='local', rounds=1, data='toy', engine='flower'), {})"
    )
    before, sockets = others(), sessions()
    subprocess.run(
        [sys.executable, "-c", code, str(toy_store.root)], check=True, timeout=300, capture_output=True,
        env={**os.environ, **steered},
    )  # fmt: skip
    assert others() <= before
    assert not list(temporary.glob("fedktl-*")) and sessions() <= sockets


def sessions() -> set[Path]:
    return set(Path("/tmp").glob("fedktl-*/session_*"))


def others() -> set[str]:
    """Processes of Ray and Flower on this machine."""
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return {
        line.split()[0] for line in listed if any(name in line for name in ("raylet", "gcs_server", "flower-super"))
    }
