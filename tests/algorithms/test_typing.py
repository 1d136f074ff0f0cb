"""mypy reads the contract's own example, and sees what is wrong in it once something is."""

import doctest

import pytest

from stages.algorithms import contract

pytestmark = pytest.mark.slow

HEADER = """
from collections.abc import Mapping
from dataclasses import dataclass
from torch import Tensor
from stages.algorithms.common.batches import Batches
from stages.algorithms.contract import ClientState, Hyperparameters, Metrics, Stateless, Task
from stages.randomness import Rng
"""
EXAMPLE = HEADER + "".join(example.source for example in doctest.DocTestParser().get_examples(contract.__doc__))
MISTAKES = {  # what is written, what stands there instead, and what mypy speaks of
    "results the wrong way round": ("Message(bias.clone()), metrics", "metrics, Message(bias.clone())", "return value"),
    "an upload the client does not send": (
        "uploads: Mapping[int, Message]",
        "uploads: Mapping[int, Tensor]",
        '"Tensor"',
    ),
    "a download that is not its record": ("Download=Message", "Download=Tensor", 'parameter "D"'),
    "hyperparameters it does not have": ("Hyper=Hyper", "Hyper=Hyperparameters", 'parameter "H"'),
    "a shared record that nobody makes": ("shared: Task, client", "shared: Message, client", '"client_update"'),
    "a shared record that the server does not get": (
        "shared: Task, state",
        "shared: Message, state",
        '"server_update"',
    ),
    "a state that the server does not keep": ("state: None", "state: Message", '"server_update"'),
    "an argument forgotten": ("client: ClientState, ", "", '"client_update"'),
}


def test_a_mistake_in_an_algorithm_is_seen(tmp_path):
    mypy = pytest.importorskip("mypy.api")
    (tmp_path / "right.py").write_text(EXAMPLE)
    for number, (right, wrong, _) in enumerate(MISTAKES.values()):
        assert right in EXAMPLE
        (tmp_path / f"wrong{number}.py").write_text(EXAMPLE.replace(right, wrong))
    told, _, _ = mypy.run(["--strict", "--ignore-missing-imports", "--config-file=", *map(str, tmp_path.iterdir())])
    assert "right.py" not in told, told
    for number, (name, (_, _, subject)) in enumerate(MISTAKES.items()):
        seen = [line for line in told.splitlines() if f"wrong{number}.py" in line and ": error:" in line]
        assert any(subject in line for line in seen), f"{name}: {told}"
