"""Answers that no client of ours would give: each is refused with its client's name, and the federation goes on."""

import copy
import io
import json
import time
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import Array, ConfigRecord

from stages.engines import rounds
from stages.engines.assembly import assemble
from stages.engines.federation import Diverged, Missing
from stages.engines.flower.link import GridLink, reply
from stages.engines.flower.node import ClientNode
from stages.engines.flower.payload import from_records, to_records
from stages.engines.flower.pool import Exchange, NodeRegistry
from stages.engines.local import InProcess
from tests.helpers.flower_nodes import Grid, over_flower
from tests.helpers.npy_files import HOSTILE as HEADERS
from tests.helpers.toy_runs import Notes, planned
from tests.helpers.toy_store import CLIENTS

ESCAPE = "\x1b]0;mine\x07" * 1_000_000


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    """A pool, and by message type a genuine answer of client 1."""
    from stages.artifacts.store import Store
    from tests.helpers.toy_store import write_toy_data, write_toy_latents

    folder = tmp_path_factory.mktemp("federation")
    store = Store(folder / "store")
    data = write_toy_data(store)
    write_toy_latents(store)
    grid, notes, answers = Grid([ClientNode(client, data, folder / "disks") for client in range(CLIENTS)]), Notes(), {}
    grid.spoil = {1: lambda kind, answer: answers.setdefault(kind, copy.deepcopy(answer)) and answer}
    *_, state, pool = over_flower(store, list(grid.homes.values()), "fedproto", grid=grid, notes=notes, rounds=1)
    rounds.play_round(pool.federation, state, pool)
    rounds.evaluate(pool.federation, state, pool)
    answers["query"] = copy.deepcopy(answers["train"])
    answers["query"].content = to_records({}, {**grid.homes[2].described()})
    return pool, notes, answers


def facts(**changes):
    """Changes what an answer says; a function makes the new value of the old one."""

    def change(content):
        arrays, told = from_records(content)
        for name, value in changes.items():
            told[name] = value(told[name]) if callable(value) else value
        return to_records(arrays, told)

    return change


def arrays(**changes):
    def change(content):
        values, told = from_records(content)
        for name, value in changes.items():
            values[name] = value(values[name]) if callable(value) else value
        return to_records({name: value for name, value in values.items() if value is not None}, told)

    return change


def raw(data: bytes, name: str = "prototypes"):
    """The bytes of an array, under the label of the one that was there."""

    def change(content):
        content = copy.deepcopy(content)
        old = content.array_records["arrays"][name]
        content.array_records["arrays"][name] = Array(old.dtype, old.shape, old.stype, data)
        return content

    return change


def text(value):
    """The JSON as it stands, or whatever else is in its place."""

    def change(content):
        content = copy.deepcopy(content)
        content.config_records["facts"] = ConfigRecord({"json": value})
        return content

    return change


def without(*records):
    def change(content):
        content = copy.deepcopy(content)
        for name in records:
            del content[name]
        return content

    return change


def zipped() -> bytes:
    file = io.BytesIO()
    np.savez(file, np.zeros(3))
    return file.getvalue()


def deep(levels: int) -> str:
    return json.dumps({"client": 1}).replace("1", "[" * levels + "]" * levels)


ANY = {  # whatever was asked
    "no facts": without("facts"),
    "no arrays": without("arrays"),
    "nothing": without("facts", "arrays"),
    **{f"JSON {levels} deep": text(deep(levels)) for levels in (10, 990, 5000, 400_000)},
    **{f"the text {value!r:.20}": text(value) for value in ("", "{", "[]", "null", "1", '"a"', "{}", "\x1b[2J", "NaN", "1" * 5000)},
    **{f"a {type(value).__name__} for a text": text(value) for value in (1, 2.0, b"{}", [1, 2], ["{}"])},
    "10 MB of JSON": text(json.dumps({"client": 1, "x": "y" * 10_000_000})),
    "an error that writes to the terminal": facts(error=ESCAPE[: 500_000]),
    "an error that is no text": facts(error={"a": [1]}),
    **{f"from client {value!r:.12}": facts(client=value) for value in (0, 2, -1, 2**70, None, "1", [1], ESCAPE[:1000])},
}  # fmt: skip
LONG = "x" * 100_000
TRAIN = {
    **{f"an array with {name}": raw(data) for name, data in HEADERS.items()},
    "labels of 2^70": raw(HEADERS["2^70 numbers"], "labels"),
    "an npz": raw(zipped()),
    **{f"prototypes of {value:g}": arrays(prototypes=lambda p, value=value: p * 0 + np.float32(value))
       for value in (np.nan, np.inf, -np.inf, 3e38, -3e38, 1e16)},
    **{f"prototypes as {kind}": arrays(prototypes=lambda p, kind=kind: p.astype(kind)) for kind in ("f8", "i8", "u1", "?")},
    "prototypes of nothing": arrays(prototypes=np.zeros((0, 0), np.float32)),
    "a prototype too few": arrays(prototypes=lambda p: p[1:]),
    "one number": arrays(prototypes=np.float32(0)),
    "labels of one number": arrays(labels=np.int64(1)),
    "labels as floats": arrays(labels=lambda v: v.astype("f4")),
    "labels in a table": arrays(labels=lambda v: v[:, None]),
    **{f"labels {name}": arrays(labels=change) for name, change in {
        "beyond the classes": lambda v: v + 5, "below 0": lambda v: v - 5, "of 2^62": lambda v: v + 2**62,
        "twice": lambda v: v * 0}.items()},
    "counts below 0": arrays(counts=lambda v: -v),
    "counts of 2^62": arrays(counts=lambda v: v * 0 + 2**62),
    "more images than it has": arrays(counts=lambda v: v + 1),
    "no counts": arrays(counts=None),
    "an array more": arrays(more=np.zeros(3)),
    "an array with a name to trick the terminal": arrays(**{"\x1b[2J" * 10_000: np.zeros(3)}),
    "an array inside another": arrays(**{"prototypes.0": np.zeros(3)}),
    "2,000 arrays": arrays(**{f"more{i}": np.zeros(0) for i in range(2000)}),
    "no upload": facts(sent=False),
    **{f"sent {value!r}": facts(sent=value) for value in (1, None, "True", [True])},
    **{f"metrics {value!r:.20}": facts(metrics=value) for value in (None, [], {}, {"loss": 1.0}, "loss", {LONG: 1.0})},
    **{f"a loss of {value!r:.12}": facts(metrics=lambda m, value=value: m | {"loss": value})
       for value in (float("nan"), float("inf"), 1, 2**70, "1.0", None, [1.0], True, ESCAPE[:1000])},
    "a metric more": facts(metrics=lambda m: m | {"more": 1.0}),
}  # fmt: skip
EVALUATE = {
    f"{value!r:.30} rightly": facts(measured=value)
    for value in (None, [], {}, {"test": 1}, "test", *(
        {"test": number, "validation": 0} for number in (-1, 11, 2**70, 1.0, True, None, "1", [1], ESCAPE[:1000])
    ))
}  # fmt: skip
HERE = {"kind": "data", "ref": "toy@v1", "seal": "0" * 64}
QUERY = {
    **{f"{name} {value!r:.12}": facts(**{name: value}) for name in ("client", "clients", "classes")
       for value in (-1, 10**9, 2**70, None, "1", 1.0, True, [1])},
    "a client beyond the last": facts(client=4),
    **{f"shape {value!r:.20}": facts(shape=value)
       for value in (None, [], [3, 16], [3, 16, -1], [3, 16, 10**9], [3, 16, 2**70], "abc", {"a": 1})},
    **{f"sizes {value!r:.20}": facts(sizes=value) for value in (None, [], {}, {"train": 1})},
    **{f"{number!r:.12} images": facts(sizes=lambda s, number=number: s | {"train": number}) for number in (-1, 2**70, None, 1.5)},
    **{f"data {value!r:.30}": facts(data=value) for value in (
        None, {}, "toy@v1", HERE | {"kind": "run"}, HERE | {"ref": "../../etc"}, HERE | {"ref": ESCAPE[:1000]},
        HERE | {"ref": None}, HERE | {"seal": "x"}, HERE | {"seal": None}, HERE | {"more": LONG})},
}  # fmt: skip
ASKED = {"train": {**ANY, **TRAIN}, "evaluate": {**ANY, **EVALUATE}}
ASKED["query"] = {name: change for name, change in {**ANY, **QUERY}.items() if not name.startswith("from client")}
CASES = [(kind, name) for kind, changes in ASKED.items() for name in changes]


def came(told):
    return Exchange(1, {1: told}, {1: 100}, 0.1, {})


def test_there_are_many_of_them():
    assert len(CASES) >= 150


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_an_answer_that_can_not_be_is_refused_by_name(federation, kind, name):
    pool, notes, answers = federation
    notes.said.clear()
    pool.told.clear()
    start = time.perf_counter()
    answer = copy.copy(answers[kind])
    answer.content = ASKED[kind][name](answers[kind].content)
    told = reply(answer)
    if kind == "query":
        registry = NodeRegistry(pool.link, notes)
        registry.record(9, told)
        assert registry.refused == {9} and not registry.claims
        told_of = "A node was refused: "
    else:
        read = pool.trained if kind == "train" else pool.evaluated
        assert pool.judged(1, came(told), read) in (Missing.REFUSED, Missing.FAILED)
        told_of = "Client 1 is missing after round 1: "
    (note,) = notes.said
    assert note.startswith(told_of) and note.isprintable() and len(note) < 400
    assert time.perf_counter() - start < 5


def test_genuine_answers_are_not_refused(federation):
    pool, notes, answers = federation
    assert not isinstance(pool.judged(1, came(reply(answers["train"])), pool.trained), Missing)
    assert not isinstance(pool.judged(1, came(reply(answers["evaluate"])), pool.evaluated), Missing)
    registry = NodeRegistry(pool.link, notes)
    registry.record(9, reply(answers["query"]))
    assert registry.nodes == {1: 9}


def test_rows_longer_than_the_method_has_are_refused(toy_store, tmp_path):
    grid, notes = Grid([ClientNode(client, toy_store.open("toy"), tmp_path) for client in range(CLIENTS)]), Notes()
    *_, state, pool = over_flower(toy_store, list(grid.homes.values()), "fedktl", grid=grid, notes=notes, wire="fp16")

    def longer(kind, answer):
        answer.content = arrays(prototypes=lambda p: p * np.float16(1.2))(answer.content)
        return answer

    grid.spoil = {1: longer}
    rounds.play_round(pool.federation, state, pool)
    (note,) = notes.said  # the others' rows, of length 1 in half precision, are taken
    assert "its prototypes has a row of length 1.2, but the method allows at most 1" in note


class Poisoned(InProcess):
    """Client 2 sends finite numbers that no sum survives."""

    def train(self, rounds, joined, download):
        answers = super().train(rounds, joined, download)
        poison = replace(answers[2].upload, prototypes=answers[2].upload.prototypes * 0 + 3e38)
        return answers | {2: replace(answers[2], upload=poison)}


@pytest.mark.parametrize("algorithm", ["fedktl", "fedproto"])
def test_a_server_that_diverges_names_who_sent_the_largest_number(toy_store, algorithm):
    federation, state = assemble(planned(toy_store, algorithm))
    with pytest.raises(
        Diverged, match=r"The server diverged in round 1: its \w+ is (nan|inf); .* 3e\+38, came from client 2"
    ):
        rounds.play_round(federation, state, Poisoned(federation, state.clients))


class Torn(Grid):
    """Flower itself fails at what client 1 sent."""

    def pull_messages(self, ids):
        for id in ids:
            if (
                id in self.replies
                and b'"client": 1,' in self.replies[id].content.config_records["facts"]["json"].encode()
            ):
                raise ValueError("Object inconsistent")
        return super().pull_messages(ids)


def test_a_message_that_flower_can_not_open_is_its_senders_alone(toy_store, tmp_path):
    homes, notes = [ClientNode(client, toy_store.open("toy"), tmp_path) for client in range(CLIENTS)], Notes()
    grid = Grid(homes)
    *_, state, pool = over_flower(toy_store, homes, "fedproto", grid=grid, notes=notes)
    grid.__class__ = Torn  # once everybody has said who they are
    rounds.play_round(pool.federation, state, pool)
    assert state.history["rounds/uploaded"].tolist() == [[True, False, True, True]]
    assert notes.said == ["Client 1 is missing after round 0: Flower can't open its message (ValueError)"]


def test_a_first_word_of_many_clients_takes_no_memory(toy_store, tmp_path):
    liar = ClientNode(0, toy_store.open("toy"), tmp_path)
    grid, notes = Grid([liar]), Notes()
    grid.spoil = {0: lambda kind, answer: setattr(answer, "content", facts(clients=10**9)(answer.content)) or answer}
    registry = NodeRegistry(GridLink(grid), notes)
    registry.update()
    assert not registry.claims and "it does not say which client it is" in notes.said[0]
