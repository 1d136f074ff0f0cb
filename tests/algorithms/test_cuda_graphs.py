"""Replayed steps, with a capture that runs on a CPU: what is replayed reads and writes the tensors it was captured on."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stages.algorithms.common import cuda_graphs
from stages.algorithms.common.batches import Steps
from stages.algorithms.common.cuda_graphs import AHEAD, WARM_UP, Baton, Lane, Refused, Replayed
from stages.algorithms.common.sgd import MOST, SGD, Adam


class Tape(Lane):
    """A lane that captures a step as the function itself; a real capture computes nothing, and neither does this one."""

    def __init__(self, refuses=False):
        super().__init__(Baton())
        self.captures, self.replays, self.refuses = 0, 0, refuses

    def capture(self, work):
        self.captures += 1
        if self.refuses:
            raise Refused("operation not permitted when stream is capturing")

        def replay():
            self.replays += 1
            work()

        return replay


def test_first_steps_are_eager_and_each_shape_is_captured_once():
    tape, seen = Tape(), []
    step = Replayed(lambda x: seen.append(x.clone()), tape, "kind")
    batches = [torch.full((size,), float(number)) for number, size in enumerate([2] * 6 + [3] + [2] * 2)]
    for batch in batches:
        step(batch)
    assert [x.tolist() for x in seen] == [x.tolist() for x in batches]  # every call is one real step
    assert tape.captures == 1 and tape.replays == 8 - WARM_UP


def test_what_a_lane_has_captured_it_captures_at_once_the_next_time():
    tape, seen = Tape(), []
    for captures, (kind, size) in ((1, ("kind", 2)), (2, ("kind", 2)), (2, ("kind", 3)), (2, ("another", 2))):
        step = Replayed(lambda x: seen.append(x.clone()), tape, kind)
        for number in range(WARM_UP + 1 if captures == 1 else WARM_UP):
            step(torch.full((size,), float(number)))
        assert tape.captures == captures
    assert [float(x[0]) for x in seen] == [*range(WARM_UP + 1), *3 * [*range(WARM_UP)]]


def test_a_capture_refused_before_any_eager_step_is_tried_again_after_one(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "_refused", set())
    tape, seen = Tape(), []
    for _ in range(2):
        step = Replayed(lambda x: seen.append(float(x)), tape, "kind")
        for number in range(WARM_UP + 2):
            tape.refuses = bool(tape.captures == 1)
            step(torch.tensor(float(number)))
    assert seen == [*range(WARM_UP + 2)] * 2
    assert tape.captures == 3 and not cuda_graphs._refused and not cuda_graphs.refusals()


def test_a_replay_works_on_tensors_of_its_own():
    tape, met = Tape(), []
    step = Replayed(lambda x: met.append(x.data_ptr()), tape, "kind")
    for number in range(WARM_UP + 3):
        step(torch.full((4,), float(number)))
    assert len(set(met[WARM_UP:])) == 1


def test_others_launch_after_every_replay_but_the_first_ones():
    tape, done = Tape(), []
    tape.hand_on = lambda: done.append(tape.replays)
    step = Replayed(lambda x: None, tape, "kind")
    for _ in range(WARM_UP + AHEAD + 3):
        step(torch.zeros(2))
    assert done == [AHEAD + 1, AHEAD + 2, AHEAD + 3]


def test_a_refused_capture_loses_no_step_and_is_not_tried_again_for_its_kind(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "_refused", set())
    refusing, seen = Tape(refuses=True), []
    for kind in ("waits", "waits", "another"):
        step = Replayed(lambda x: seen.append(float(x)), refusing, kind)
        for number in range(4):
            step(torch.tensor(float(number)))
    assert seen == [0, 1, 2, 3] * 3
    assert refusing.captures == 2  # once a kind
    assert (
        cuda_graphs.refusals() == ["operation not permitted when stream is capturing"] * 2
        and not cuda_graphs.refusals()
    )


def trained(kind, lane):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.3), nn.Linear(4, 2))
    data = torch.randn(48, 3), torch.randint(0, 2, (48,))

    def objective(x, y):
        loss = F.cross_entropy(model(x), y)
        return loss, {"loss": loss}

    with lane.turn() if lane else nullcontext():
        torch.manual_seed(1)
        steps = Steps(((rows,) for rows in torch.arange(48).split(5)), lambda rows: (data[0][rows], data[1][rows]))
        metrics = kind(0.1, model).minimise(objective, steps)
    assert all(parameter.grad is None for parameter in model.parameters())
    return metrics["loss"], model.state_dict()


@pytest.mark.parametrize("kind", [SGD, Adam])
def test_replayed_training_equals_eager_training(kind):
    tape = Tape()
    loss, weights = trained(kind, None)
    again, same = trained(kind, tape)
    assert tape.captures == 1 and tape.replays == 9 - WARM_UP
    assert torch.equal(loss, again) and all(torch.equal(weights[name], same[name]) for name in weights)


@pytest.mark.parametrize(
    ("ours", "theirs", "lr"),
    [(SGD, torch.optim.SGD, 3e-7), (Adam, torch.optim.Adam, 0.1)],
)
@pytest.mark.parametrize("max_norm", [None, 100])
def test_steps_are_those_of_torchs_optimizers(ours, theirs, lr, max_norm):
    torch.manual_seed(0)
    one, other, x = nn.Linear(3, 2), nn.Linear(3, 2), torch.randn(8, 3) * 1000
    other.load_state_dict(one.state_dict())
    follower, optimizer = ours(lr, one, max_norm=max_norm), theirs(other.parameters(), lr=lr)
    for _ in range(4):
        follower.step(one(x).square().mean())
        optimizer.zero_grad()
        other(x).square().mean().backward()
        norm = nn.utils.clip_grad_norm_(other.parameters(), max_norm or torch.inf)
        assert norm > 100
        optimizer.step()
    torch.testing.assert_close(one.weight, other.weight, rtol=1e-6, atol=1e-6)


def test_an_objective_may_report_so_many_scalars_and_no_more():
    def reporting(count):
        loss = model(torch.ones(1, 2)).sum()
        return loss, {f"{number}": loss.detach() * 0 + number for number in range(count)}

    model, steps = nn.Linear(2, 1), Steps([()] * 3)
    assert [float(value) for value in SGD(0.1, model).minimise(lambda: reporting(MOST), steps).values()] == [
        *range(MOST)
    ]
    with pytest.raises(ValueError, match="at most 32 scalars, not 33"):
        SGD(0.1, model).minimise(lambda: reporting(MOST + 1), steps)
