"""The programs that the federation's commands start end with them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("flwr")

CODE = """
import os
import signal
import subprocess
import sys
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)  # whatever these tests run under
from fedktl_cli.federation import hold
from fedktl_cli.terminal import Terminal
from stages.artifacts.store import Store
class Interrupted(subprocess.Popen):
    def __init__(self, *given, **named):
        super().__init__(*given, **named)
        if "starting" in sys.argv:
            os.kill(os.getpid(), signal.SIGTERM)
subprocess.Popen = Interrupted
hold(Terminal(Store("x")), ["sh", "-c", "echo $$; exec sleep 60"])
"""
TOLD = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["asked to end", "terminal closed"])
def test_a_server_ends_with_the_command_that_started_it(number):
    command = subprocess.Popen([sys.executable, "-c", CODE], cwd=Path(__file__).parents[2], **TOLD)
    server = int(command.stdout.readline())
    command.send_signal(number)
    command.communicate(timeout=20)
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)


def test_a_command_that_is_stopped_while_its_server_starts_leaves_no_server():
    command = subprocess.run(
        [sys.executable, "-c", CODE, "starting"], cwd=Path(__file__).parents[2], timeout=20, **TOLD
    )
    assert command.returncode
    for server in map(int, command.stdout.split()):  # none if it was ended before it could tell
        with pytest.raises(ProcessLookupError):
            os.kill(server, 0)
