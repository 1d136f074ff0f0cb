"""Short runs on the toy federation, of the round loop alone or of the train stage, and what of them must be equal."""

import numpy as np
import torch

from stages import algorithms
from stages.engines import checkpoint, rounds
from stages.engines.assembly import assemble
from stages.engines.local import InProcess
from stages.engines.plan import RunSpec
from stages.observer import SILENT, Observer
from stages.settings import Train
from tests.helpers.toy_store import write_toy_data

CODE = {"models": "tests.helpers.toys:tiny,tests.helpers.toys:narrow"}  # what a resumed run needs to be told again
BRIEF = {"server_epochs": 2, "auxiliary": "tests.helpers.toys:tiny", "sub_feature_dim": 16}  # hyperparameters
QUICK = {**CODE, "feature_dim": 16, "rounds": 3, "batch_size": 8}


def fitting_models(algorithm: str) -> dict[str, str]:
    """One architecture for an algorithm that averages whole models; for any other the usual two."""
    return {"models": "tests.helpers.toys:narrow"} if algorithms.get(algorithm).same_start else {}


def planned(store, algorithm="fedktl", seed=0, hyper=None, **settings) -> RunSpec:
    found = algorithms.get(algorithm)
    default = {name: value for name, value in BRIEF.items() if name in found.Hyper.__dataclass_fields__}
    settings = {**fitting_models(algorithm), **settings}
    chosen = found.Hyper.make({**default, **(hyper or {})})
    data = write_toy_data(store, "solo", clients=1) if algorithm == "ktl" else store.open("toy")
    return RunSpec(found, chosen, Train.make(QUICK, settings), seed, data, store.open("bank"))


def played(spec: RunSpec):
    federation, state = assemble(spec)
    play(federation, state)
    return federation, state


def play(federation, state):
    rounds.run(federation, state, InProcess(federation, state.clients), SILENT, lambda s: None)


def weights(state):
    return {name: value for name, value in checkpoint.pack(state).items() if "/model/" in name}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def settings(**changes) -> Train:
    own = fitting_models(changes["algorithm"]) if changes.get("algorithm") in algorithms.NAMES else {}
    return Train.make(QUICK, own, changes)


class StopAfter(Observer):
    """Asks to stop after some rounds or images, as Ctrl-C does."""

    def __init__(self, steps):
        self.left = steps

    def advance(self, steps=1, **facts):
        self.left -= steps

    def stop_requested(self):
        return self.left <= 0


def numbers(artifact) -> dict[str, np.ndarray]:
    """Everything a run holds that does not depend on the clock or the machine."""
    names = [name for name, member in artifact.group.members(max_depth=None) if hasattr(member, "dtype")]
    return {n: artifact.array(n) for n in names if not n.startswith("seconds/") and n != "rounds/peak_memory"}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
