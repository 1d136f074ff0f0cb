"""When a checkpoint is due, on a clock of the test's own."""

import itertools

import pytest

from stages.engines.pace import Pace


class Clock:
    def __init__(self):
        self.time = 0.0

    def __call__(self):
        return self.time


def checkpoints(rounds, seconds, cost, every=None):
    """The rounds after which a run of so many rounds of these seconds saves, and the part of the time that saving takes."""
    clock = Clock()
    pace, saved = Pace(every, clock), []
    for number in range(1, rounds + 1):
        clock.time += seconds
        if pace.due(number):
            saved.append(number)
            with pace.saving():
                clock.time += cost
    return saved, len(saved) * cost / clock.time


def test_quick_rounds_are_saved_every_half_minute():
    saved, share = checkpoints(100, seconds=2, cost=0.125)
    assert saved == [15, 30, 45, 60, 75, 90] and share < 0.03


def test_checkpoints_that_cost_much_are_fewer():
    saved, share = checkpoints(2000, seconds=2, cost=3)
    assert saved[0] == 15 and {b - a for a, b in itertools.pairwise(saved)} == {50} and share < 0.031


@pytest.mark.parametrize(("seconds", "cost"), [(20, 20), (70, 5), (140, 1), (299, 60), (1000, 1)])
def test_a_kill_costs_five_minutes_or_a_round_at_most(seconds, cost):
    saved, _ = checkpoints(100, seconds, cost)
    longest = max(b - a for a, b in itertools.pairwise([0, *saved]))
    assert longest == 1 or longest * seconds + cost <= 300
    assert 100 - saved[-1] <= longest


def test_rounds_may_be_asked_for():
    assert checkpoints(10, seconds=0.01, cost=1, every=3)[0] == [3, 6, 9]
    assert checkpoints(4, seconds=200, cost=1, every=3)[0] == [1, 2, 3, 4]
