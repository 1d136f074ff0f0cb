"""A node whose answers go wrong: python -m tests.helpers.spoiling_node ADDRESS STORE DATA CLIENT FAULT,FAULT,...

Each message that asks for training takes the next fault; after the last one all is well.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

from stages.artifacts.store import Store
from stages.engines import flower
from stages.engines.flower import fleet
from stages.engines.flower.node import Client, ClientNode

LATE = 8.0  # seconds


def spoilt(fault, own, told):
    prototypes = own["prototypes"]
    if fault == "late":
        time.sleep(LATE)
    elif fault == "die":
        os._exit(1)
    elif fault == "fail":
        raise RuntimeError("out of order")
    changed = {
        "nan": prototypes * np.float32("nan"), "shape": prototypes[:, 1:], "huge": prototypes * np.float32(10_000)
    }  # fmt: skip
    client = 0 if fault == "other" else told["client"]
    return {**own, "prototypes": changed.get(fault, prototypes)}, {**told, "client": client}


def main():
    address, store, data, client, faults = sys.argv[1:]
    faults = faults.split(",")
    flower.require()
    honest = Client(ClientNode(int(client), Store(Path(store)).open(data, "data"), Path(store).absolute() / "clients"))

    def answer(kind, arrays, facts):
        own, told = honest.answer(kind, arrays, facts)
        if kind != "train" or not faults:
            return own, told
        try:
            return spoilt(faults.pop(0), own, told)
        except RuntimeError as error:
            return {}, {"error": str(error)}

    fleet.serve(address, None, None, answer, lambda note: print(note, flush=True))


if __name__ == "__main__":
    main()
