"""The check that users run on their own algorithms."""

from dataclasses import dataclass, replace

import pytest
import torch

from stages import algorithms
from stages.algorithms.fedavg import ALGORITHM
from stages.algorithms.fedavg import Upload as Weights
from stages.checking import check_algorithm
from stages.errors import UserError
from tests.helpers.toys import OWN

QUICK = ("local", "fedproto", "fedavg")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in algorithms.NAMES]
)
def test_every_algorithm_passes(name):
    algorithm = algorithms.get(name)
    quick = {"server_epochs": 2} if hasattr(algorithm.Hyper, "server_epochs") else {}
    check_algorithm(algorithm, quick, clients=1 if name == "ktl" else 3)


def test_an_own_algorithm_passes_with_its_own_hyperparameters():
    check_algorithm(OWN, {"pace": 2})
    with pytest.raises(ZeroDivisionError):
        check_algorithm(OWN, {"pace": 0})


@dataclass
class Listed:
    heads: list


def after(function, change):
    """The function with its result changed."""
    return lambda *arguments: change(*function(*arguments))


def update(change):
    return {"client_update": after(ALGORITHM.client_update, change)}


def server(change):
    return {"server_update": after(ALGORITHM.server_update, change)}


def forgetful():
    """Whose clients remember how often they trained where no checkpoint looks."""
    seen = []

    def client_update(hyper, shared, client, download, batches, rng):
        seen.append(batches)
        found = ALGORITHM.client_update(hyper, shared, client, download, batches, rng)
        with torch.no_grad():
            client.model.head.bias.add_(len(seen))
        return found

    return {"client_update": client_update}


BREACHES = {
    "an upload must be a dataclass": update(lambda upload, metrics: (upload.weights, metrics)),
    "an upload's heads must be a tensor or a mapping": update(
        lambda upload, metrics: (Listed([upload.count]), metrics)
    ),
    "metrics must hold its loss": update(lambda upload, metrics: (upload, {"l": metrics["loss"]})),
    "a client's metrics must be a mapping of scalar": update(lambda upload, metrics: (upload, {"loss": 1.0})),
    r"client_update must return \(upload, metrics\)": update(lambda upload, metrics: upload),
    r"server_update must return \(state, download, metrics\)": server(lambda *found: found[:2]),
    "a download must be a Download": server(lambda state, sent, m: (state, Weights(sent.weights, torch.tensor(1)), m)),
    r"must return float32 \[B, 4\], not torch.int64 \[\d+\]": {"predict": lambda *known: known[-1][:, 0, 0, 0].long()},
    "must return numbers": {"predict": lambda *known: ALGORITHM.predict(*known) * torch.nan},
    "resumed after round 1": forgetful(),
}


@pytest.mark.parametrize("sentence", BREACHES)
def test_what_breaks_the_contract_is_said(sentence):
    with pytest.raises(UserError, match=f"^fedavg: .*{sentence}"):
        check_algorithm(replace(ALGORITHM, **BREACHES[sentence]))
