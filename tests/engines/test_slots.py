"""Clients that take turns on lanes, with a device that only writes down what it is asked to do."""

import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from stages.algorithms.common.cuda_graphs import Baton, Lane, Refused
from stages.engines import local, rounds
from stages.engines.assembly import assemble
from stages.engines.federation import Diverged
from stages.engines.local import InProcess
from stages.engines.slots import Slots
from stages.observer import SILENT
from stages.settings import Train
from tests.helpers.toy_runs import planned, played, same, weights


class Recorder(Lane):
    """Writes down who launches; fails if two do at once."""

    launching_now, log = None, []

    def enter(self):
        super().enter()
        assert Recorder.launching_now is None
        Recorder.launching_now = self

    def leave(self):
        assert Recorder.launching_now is self
        Recorder.launching_now = None
        super().leave()

    def capture(self, work):
        self.captures = getattr(self, "captures", 0) + 1

        def replay():
            Recorder.log.append(self)
            work()

        return replay

    def synchronise(self):
        time.sleep(0.001)  # others launch meanwhile


def in_slots(plan, count, lane=Recorder):
    Recorder.log, baton = [], Baton()
    lanes = [lane(baton) for _ in range(count)]
    federation, state = assemble(plan)
    pool = InProcess(federation, state.clients, Slots(lanes))
    try:
        rounds.run(federation, state, pool, SILENT, lambda s: None)
    finally:
        pool.close()
    return state, lanes


def slot_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("slot")]


@pytest.mark.parametrize("algorithm", ["fedktl", "fedkd", "local"])
def test_any_number_of_slots_computes_what_one_does(toy_store, algorithm):
    """One of the two architectures draws dropout: its random numbers are its client's own."""
    plan = planned(toy_store, algorithm)
    random = torch.get_rng_state()
    (_, alone), (one, _), (several, lanes) = played(plan), in_slots(plan, 1), in_slots(plan, 3)
    assert same(weights(alone), weights(one)) and same(weights(one), weights(several))
    assert torch.equal(alone.history["client_metrics/loss"], several.history["client_metrics/loss"])
    assert torch.equal(random, torch.get_rng_state())
    assert all(lane.captures for lane in lanes)
    assert not slot_threads()


def test_phases_inside_turns_are_charged(toy_store):
    state, _ = in_slots(planned(toy_store), 3)
    assert (state.history["seconds/prototypes"] > 0).all() and (state.history["seconds/local training"] > 0).all()


def test_slots_hand_on_after_every_replay():
    order, baton, ready = [], Baton(), threading.Barrier(3)
    lanes = [Lane(baton) for _ in range(3)]
    slots = Slots(lanes)

    def turn(client):
        lane = lanes[slots._slot[client]]
        lane._give()
        ready.wait()  # until all three have a turn
        lane._take()
        while len(baton._waiting) < 2 and not order:
            time.sleep(0.001)
        lane.hand_on()
        for _ in range(4):
            order.append(client)
            lane.hand_on()

    list(slots.each(turn, range(3), float))
    slots.close()
    assert sorted(order[:3]) == [0, 1, 2] and order == order[:3] * 4


def test_the_longest_turns_come_first_and_a_client_keeps_its_slot():
    slots = Slots([Lane(Baton()) for _ in range(2)])
    costs = [1.0, 5.0, 3.0, 2.0]
    for _ in range(2):
        assert [client for client, _, _ in slots.each(str, range(4), costs.__getitem__)] == [1, 2, 3, 0]
        assert slots._slot == {1: 0, 2: 1, 3: 1, 0: 0}
    slots.close()


class Late(Lane):
    """Its thread is the later to ask for the baton, the earlier its turn should come."""

    def __init__(self, baton, delay):
        super().__init__(baton)
        self.delay = delay

    def _take(self):
        time.sleep(self.delay)
        super()._take()


def test_turns_come_in_order_however_long_their_threads_take_to_start():
    baton, begun = Baton(), []
    slots = Slots([Late(baton, 0.03 * delay) for delay in (3, 2, 1)])
    list(slots.each(begun.append, range(5), lambda client: 5.0 - client))
    slots.close()
    assert begun[:3] == [0, 1, 2] and sorted(begun[3:]) == [3, 4]


def test_an_error_in_a_turn_names_its_client_and_ends_the_threads(toy_store):
    with pytest.raises(Diverged, match=r"Client \d diverged in round 1"):
        in_slots(planned(toy_store, "local", models="tests.helpers.toys:wild"), 2)
    assert not slot_threads()


class Refusing(Recorder):
    def capture(self, work):
        raise Refused("it waits for the device")


def test_a_run_goes_on_where_no_step_can_be_captured(toy_store, monkeypatch):
    monkeypatch.setattr("stages.algorithms.common.cuda_graphs._refused", set())
    plan = planned(toy_store)
    (_, alone), (refused, _) = played(plan), in_slots(plan, 2, Refusing)
    assert same(weights(alone), weights(refused))


@pytest.mark.parametrize(
    ("settings", "device", "in_flight"),
    [
        ({"in_flight": 3}, "cuda", 3),
        ({"in_flight": 9}, "cuda", 4),
        ({"deterministic": True}, "cuda", 1),
        ({}, "cpu", None),
    ],
)
def test_as_many_clients_train_at_a_time_as_are_wanted_and_there(settings, device, in_flight, monkeypatch):
    monkeypatch.setattr(local, "on_gpu", lambda device, count: count)
    federation = SimpleNamespace(settings=Train(**settings), device=torch.device(device), clients=4)
    assert local.in_process(federation, [])._slots == in_flight


def test_the_longest_turn_has_the_most_images_or_the_deepest_model(toy_store):
    federation, state = assemble(planned(toy_store, "local"))
    shallow, deep = (InProcess(federation, state.clients)._launches(client) for client in (0, 1))
    assert shallow < deep  # of equally many images
    share = federation.shares["train"][1]
    federation.shares["train"][1] = replace(share, images=share.images[:2], labels=share.labels[:2])
    assert InProcess(federation, state.clients)._launches(1) < shallow
