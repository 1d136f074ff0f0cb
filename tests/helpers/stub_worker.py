"""A worker process that computes nothing: it repeats what it is told, and dies or fails of what tells it to."""

import os
import signal
from pathlib import Path

from stages.engines.flower.frames import receive, send
from stages.engines.flower.worker import Home, Worker


def work(connection, home):
    if home.data == "missing":
        send(connection, {"error": "There is no data artifact 'missing'."}, {})
        return
    send(connection, {"pid": os.getpid()}, {})
    while True:
        try:
            asked, arrays = receive(connection)
        except ConnectionError:
            return
        dies = Path(asked["facts"].get("dies", "/nowhere"))
        if dies.exists():
            dies.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        if asked["facts"].get("always"):
            os.kill(os.getpid(), signal.SIGKILL)
        send(connection, {**asked["facts"], "pid": os.getpid()}, arrays)


if __name__ == "__main__":  # a node that is killed: prints its worker's process and waits
    import stages.engines.flower.worker as module

    module.work = work
    print(Worker(Home(Path("."), "toy", 0, Path("."))).start()["pid"], flush=True)
    signal.pause()
