"""Forks a study's command again and again and ends it at a random moment.

Ended by SIGKILL, by SIGTERM, or by two of these, until the study is complete; then another study, until KILLS commands were
ended. Prints the stores as a JSON list.
"""

import json
import os
import random
import signal
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

from fedktl_cli.main import app
from stages.artifacts.store import Store
from tests.helpers.toy_store import write_toy_data

COMMAND = [
    "train", "--algorithm", "local", "--algorithm", "fedproto", "--set", "lambda=1,2", "--rounds", "3",
    "--models", "tests.helpers.toys:tiny", "--feature-dim", "16", "--checkpoint-every", "1", "--workers", "1",
]  # fmt: skip
ENDS = ([signal.SIGKILL], [signal.SIGTERM], [signal.SIGTERM, signal.SIGTERM])


def run(store: Store, seeds: str) -> int:
    return app(["--store", str(store.root), *COMMAND, "--seeds", seeds], standalone_mode=False) or 0


def begun(store: Store, seeds: str) -> int:
    """Fork; the child runs the command silently and exits as the program does."""
    number = os.fork()
    if number == 0:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        code = 1
        try:
            code = run(store, seeds)
        except KeyboardInterrupt:
            code = 130
        finally:
            os._exit(code)
    return number


def exit_code(number: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def main(folder: Path, seeds: str, kills: int) -> None:
    """Run in a process of its own, which has one thread."""
    rng, stores = random.Random(0), [Store(folder / "undisturbed")]
    write_toy_data(stores[0])
    with redirect_stdout(sys.stderr):  # in this process: what it imports, no child has to import
        seconds = time.monotonic()
        assert not run(stores[0], seeds)
        seconds = time.monotonic() - seconds
    while kills > 0:
        stores.append(Store(folder / f"disturbed-{len(stores)}"))
        write_toy_data(stores[-1])
        code = None
        while code != 0:
            number = begun(stores[-1], seeds)
            time.sleep(rng.uniform(0, seconds / 2))
            for each in rng.choice(ENDS) if kills > 0 else ():
                os.kill(number, each)
                time.sleep(rng.uniform(0, 0.05))
            code, kills = exit_code(number), kills - 1
            assert code in (0, 130, -signal.SIGKILL, -signal.SIGTERM), code
    print(json.dumps([str(store.root) for store in stores]))
