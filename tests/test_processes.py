"""How processes start and end."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from stages import processes


def tell(pipe):
    pipe.send((time.process_time(), "torch" in sys.modules, "stages.dealing" in sys.modules))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each process starts anew")
def test_processes_need_not_import_pytorch_again():
    for _ in range(2):
        ours, theirs = multiprocessing.Pipe()
        process = processes.started(tell, theirs)
        seconds, *imported = ours.recv()
        process.join()
        assert process.exitcode == 0 and imported == [True, True] and seconds < 0.5


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each process starts anew")
def test_the_server_of_processes_starts_early_and_undisturbed(monkeypatch):
    blocked = []
    note = lambda: blocked.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))  # noqa: E731
    monkeypatch.setattr("multiprocessing.forkserver.ensure_running", note)
    processes.get_ready()
    assert {signal.SIGINT, signal.SIGTERM, signal.SIGHUP} <= blocked[0]


def test_a_process_never_sees_what_asks_to_stop():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    process = processes.started(time.sleep, 60)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(process.pid, number)
    process.join(0.5)
    assert process.is_alive()
    process.kill()
    process.join()


def test_a_process_goes_when_its_parent_is_killed():
    code = "import time; from stages import processes; processes.HEAVY.clear(); print(processes.started(time.sleep, 600).pid, flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        os.kill(int(parent.stdout.readline()), 0)
        parent.kill()
        assert parent.communicate(timeout=30) == ("", None)  # all that held the pipe are gone
