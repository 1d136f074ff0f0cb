"""The programs that the federation's commands start end with them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("flwr")

CODE = """
import signal
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)  # whatever these tests run under
from fedktl_cli.federation import hold
from fedktl_cli.terminal import Terminal
from stages.artifacts.store import Store
hold(Terminal(Store("x")), ["sh", "-c", "echo $$; exec sleep 60"])
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["asked to end", "terminal closed"])
def test_a_server_ends_with_the_command_that_started_it(number):
    told = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    command = subprocess.Popen([sys.executable, "-c", CODE], cwd=Path(__file__).parents[2], **told)
    server = int(command.stdout.readline())
    command.send_signal(number)
    command.communicate(timeout=20)
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)
