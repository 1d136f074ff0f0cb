"""What a Flower node may answer: what is not as it must be is refused by name, and the others go on."""

import re

import numpy as np
import pytest
import torch

pytest.importorskip("flwr")

from stages.engines import rounds
from stages.engines.federation import Missing
from stages.engines.flower.node import ClientNode
from stages.engines.flower.payload import from_records, to_records
from tests.helpers.flower_nodes import Grid, Notes, over_flower
from tests.helpers.toy_store import CLIENTS


def spoilt(**changes):
    """Changes arrays or facts of an answer to `train`."""

    def change(kind, reply):
        if kind == "train":
            arrays, facts = from_records(reply.content)
            for name, value in changes.items():
                if name in ("client", "metrics", "sent"):
                    facts[name] = value(facts[name])
                else:
                    arrays[name] = value(arrays.get(name))
            reply.content = to_records(arrays, facts)
        return reply

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"prototypes": lambda p: p[:, :-1]}, r"prototypes is float32 \[4, 4\], not float32 \[4, 5\]"),
        ({"prototypes": lambda p: p[:-1]}, r"prototypes is float32 \[3, 5\]"),
        ({"prototypes": lambda p: p.astype(np.float64)}, "prototypes is float64"),
        ({"prototypes": lambda p: p * np.nan}, "prototypes is not finite"),
        ({"labels": lambda v: v + 5}, r"labels are not all in 0\.\.4"),
        ({"labels": lambda v: v * 0}, "a class twice"),
        ({"labels": lambda v: v.reshape(2, 2)}, "labels is int64"),
        ({"surplus": lambda v: np.zeros(3)}, "its upload is not a valid Upload"),
        ({"client": lambda k: (k + 1) % CLIENTS}, "it says it is client 2"),
        ({"metrics": lambda m: m | {"loss": float("inf")}}, "its loss is inf"),
        ({"metrics": lambda m: {}}, "its metrics are not loss, transfer"),
        ({"sent": lambda s: False}, "sent an upload, but this algorithm has none"),
    ],
)
def test_what_is_not_as_it_must_be_is_refused_by_name_and_the_others_go_on(toy_store, homes, change, sentence):
    grid, notes = Grid(homes), Notes()
    *_, federation, state, pool = over_flower(toy_store, homes, grid=grid, notes=notes, rounds=2)
    grid.spoil = {1: spoilt(**change)}
    rounds.play_round(federation, state, pool)
    assert state.history["rounds/uploaded"].tolist() == [[True, False, True, True]]
    assert state.history["faults/missing"].tolist() == [[1, 1, Missing.REFUSED]]
    (note,) = notes.said
    assert re.search(f"Client 1 is missing after round 0: .*{sentence}", note), note
    grid.spoil = {}
    rounds.play_round(federation, state, pool)  # it is taken back
    assert state.history["rounds/uploaded"][1].all()


def test_numbers_far_beyond_everybody_elses_are_refused_where_it_shows_whose_they_are(toy_store, homes):
    grid, notes = Grid(homes), Notes()
    *_, federation, state, pool = over_flower(toy_store, homes, "fedproto", grid=grid, notes=notes, rounds=3)
    grid.spoil = {1: spoilt(prototypes=lambda p: p * np.float32(10_000))}
    rounds.play_round(federation, state, pool)
    assert state.history["rounds/uploaded"].tolist() == [[True, False, True, True]]
    assert state.history["faults/missing"].tolist() == [[1, 1, Missing.REFUSED]]
    (note,) = notes.said
    assert re.search(
        r"Client 1 is missing after round 0: its prototypes has values up to [\d.e+]+, every other client's only", note
    )
    ten = {client: spoilt(prototypes=lambda p: p * np.float32(10)) for client in range(2)}
    grid.spoil = ten  # as honest clients of different networks may differ
    rounds.play_round(federation, state, pool)
    assert state.history["rounds/uploaded"][1].all()
    for client in (0, 1):
        grid.leave(client)
    grid.spoil = {2: spoilt(prototypes=lambda p: p * np.float32(10_000))}
    rounds.play_round(federation, state, pool)  # one of two may be the larger as well as the other the smaller
    assert state.history["rounds/uploaded"][2].tolist() == [False, False, True, True]


def evaluation(**changes):
    """Changes what an answer says was measured."""

    def change(kind, reply):
        arrays, facts = from_records(reply.content)
        if "measured" in facts:
            facts["measured"] |= changes
            reply.content = to_records(arrays, facts)
        return reply

    return change


def test_a_measurement_that_can_not_be_is_refused_by_name(toy_store, homes):
    grid, notes = Grid(homes), Notes()
    *_, federation, state, pool = over_flower(toy_store, homes, "local", grid=grid, notes=notes)
    grid.spoil = {0: evaluation(test=11), 1: evaluation(test_auc=1.5), 2: evaluation(test_auc=None)}
    rounds.evaluate(federation, state, pool)
    assert state.history["rounds/test_accuracy"][0].isnan().tolist() == [True, True, True, False]
    assert torch.equal(state.history["rounds/test_accuracy"].isnan(), state.history["rounds/test_auc"].isnan())
    for said, sentence in zip(
        notes.said, ("classifies 11 of its 10 test images", "AUC is 1.5", "AUC is None"), strict=True
    ):
        assert sentence in said


def test_a_late_client_is_not_waited_for_and_one_that_fails_is_told_from_it(toy_store, homes, monkeypatch):
    grid, notes = Grid(homes), Notes()
    *_, federation, state, pool = over_flower(toy_store, homes, grid=grid, notes=notes)
    grid.spoil = {0: lambda kind, reply: None}
    monkeypatch.setattr(ClientNode, "row", property(lambda home: home.client // (home.client != 3)))
    rounds.play_round(federation, state, pool)
    assert [row[1:] for row in state.history["faults/missing"].tolist()] == [[0, Missing.LATE], [3, Missing.FAILED]]
    assert "did not answer in time" in notes.said[0]
    notes.said.clear()
    del grid.spoil[0]
    rounds.evaluate(federation, state, pool)  # the one that was late must identify itself again
    grid.spoil = {1: lambda kind, reply: None}
    rounds.play_round(federation, state, pool)
    rounds.evaluate(federation, state, pool)  # with the training of the round after it
    rounds.play_round(federation, state, pool)
    assert [3, 1, Missing.LATE] in state.history["faults/missing"].tolist()
    assert len([note for note in notes.said if "Client 1" in note]) == 1
