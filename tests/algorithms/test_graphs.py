"""Replayed steps, with a capture that runs on a CPU: what is replayed reads and writes the tensors it was captured on."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stages.algorithms import descent
from stages.algorithms.descent import AdamDescent, Descent, clip
from stages.algorithms.graphs import WARM_UP, Replayed


class Tape:
    """Captures a step as the function itself; a real capture computes nothing, and neither does this one."""

    def __init__(self):
        self.captures = self.replays = 0

    def __call__(self, work):
        self.captures += 1

        def replay():
            self.replays += 1
            work()

        return replay


def test_first_steps_are_eager_and_each_shape_is_captured_once():
    tape, seen = Tape(), []
    step = Replayed(lambda x: seen.append(x.clone()), tape)
    batches = [torch.full((size,), float(number)) for number, size in enumerate([2] * 6 + [3] * 2 + [2] * 2)]
    for batch in batches:
        step(batch)
    assert [x.tolist() for x in seen] == [x.tolist() for x in batches]  # every call is one real step
    assert tape.captures == 1 and tape.replays == 8 - WARM_UP


def test_a_replay_works_on_tensors_of_its_own():
    tape, met = Tape(), []
    step = Replayed(lambda x: met.append(x.data_ptr()), tape)
    for number in range(WARM_UP + 3):
        step(torch.full((4,), float(number)))
    assert len(set(met[WARM_UP:])) == 1


def test_a_step_that_cant_be_captured_stays_eager():
    def refuse(work):
        raise RuntimeError("operation not permitted when stream is capturing")

    seen = []
    step = Replayed(lambda x: seen.append(float(x)), refuse)
    for number in range(6):
        step(torch.tensor(float(number)))
    assert seen == [0, 1, 2, 3, 4, 5]


def trained(kind, replayed, monkeypatch):
    torch.manual_seed(0)
    model, tape = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)), Tape()
    data = torch.randn(48, 3), torch.randint(0, 2, (48,))
    if replayed:
        from contextlib import nullcontext

        monkeypatch.setattr(descent, "replayable", lambda step, device: nullcontext(Replayed(step, tape)))

    def objective(x, y):
        loss = F.cross_entropy(model(x), y)
        return loss, {"loss": loss}

    metrics = kind(0.1, model).follow(objective, zip(data[0].split(5), data[1].split(5), strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert tape.replays == (9 - WARM_UP if replayed else 0)
    return metrics["loss"], model.state_dict()


@pytest.mark.parametrize("kind", [Descent, AdamDescent])
def test_replayed_training_equals_eager_training(kind, monkeypatch):
    loss, weights = trained(kind, False, monkeypatch)
    again, same = trained(kind, True, monkeypatch)
    assert torch.equal(loss, again) and all(torch.equal(weights[name], same[name]) for name in weights)


@pytest.mark.parametrize(
    ("ours", "theirs", "lr"),
    [(Descent, torch.optim.SGD, 3e-7), (AdamDescent, torch.optim.Adam, 0.1)],
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


@pytest.mark.parametrize("size", [0.01, 1e4])
def test_clipping_is_torchs_to_the_last_bit(size):
    ours = [torch.randn(shape) * size for shape in ((40, 30), (40,), (3, 4, 5, 5))]
    theirs = [nn.Parameter(torch.zeros_like(gradient)) for gradient in ours]
    for parameter, gradient in zip(theirs, ours, strict=True):
        parameter.grad = gradient.clone()
    clip(ours, 100.0)
    nn.utils.clip_grad_norm_(theirs, 100.0)
    assert all(torch.equal(gradient, parameter.grad) for gradient, parameter in zip(ours, theirs, strict=True))
