"""PyTorch's private functions do what its public ones do."""

import pytest
import torch
from torch import nn

from stages import torch_private


def pair(seed):
    """Parameters with gradients, and the same ones for PyTorch's optimizers."""
    torch.manual_seed(seed)
    ours = [torch.randn(4, 3), torch.randn(5)]
    theirs = [nn.Parameter(tensor.clone()) for tensor in ours]
    return ours, theirs


def gradients(theirs, step):
    torch.manual_seed(step)
    for parameter in theirs:
        parameter.grad = torch.randn_like(parameter)
    return [parameter.grad.clone() for parameter in theirs]


def test_descent_is_torchs_sgd_to_the_last_bit():
    ours, theirs = pair(0)
    optimizer = torch.optim.SGD(theirs, lr=0.1)
    for step in range(3):
        torch_private.descend(ours, gradients(theirs, step), 0.1)
        optimizer.step()
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_descent_by_adam_is_torchs_adam():
    ours, theirs = pair(1)
    optimizer = torch.optim.Adam(theirs, lr=0.1, fused=True)
    means, squares = ([torch.zeros_like(tensor) for tensor in ours] for _ in range(2))
    steps = [torch.zeros(()) for _ in ours]
    for step in range(3):
        torch_private.descend_by_adam(ours, gradients(theirs, step), means, squares, steps, 0.1, (0.9, 0.999))
        optimizer.step()
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    assert [float(each) for each in steps] == [3, 3]


@pytest.mark.parametrize("size", [0.01, 1e4])
def test_clipping_is_torchs_to_the_last_bit(size):
    ours = [torch.randn(shape) * size for shape in ((40, 30), (40,), (3, 4, 5, 5))]
    theirs = [nn.Parameter(torch.zeros_like(gradient)) for gradient in ours]
    for parameter, gradient in zip(theirs, ours, strict=True):
        parameter.grad = gradient.clone()
    torch_private.clip(ours, 100.0)
    nn.utils.clip_grad_norm_(theirs, 100.0)
    assert all(torch.equal(gradient, parameter.grad) for gradient, parameter in zip(ours, theirs, strict=True))


def test_counting_adds_each_counter_its_number():
    counters = [torch.tensor(5), torch.tensor(7)]
    torch_private.count(counters, [1, 2])
    assert counters == [6, 9] and counters[0].dtype == torch.int64


def test_approaching_is_torchs_lerp_to_the_last_bit():
    ours, goals = pair(2)[0], pair(3)[0]
    theirs = [tensor.lerp(goal, 0.3) for tensor, goal in zip(ours, goals, strict=True)]
    torch_private.approach(ours, goals, 0.3)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


class Recorder:
    """A graph that writes down how it is captured."""

    def __init__(self):
        self.calls = []

    def capture_begin(self, *pool, **mode):
        self.calls.append(("begin", pool, mode))

    def capture_end(self):
        self.calls.append(("end",))


def test_a_capture_on_a_pool_ends_even_when_it_breaks():
    graph = Recorder()
    with pytest.raises(ZeroDivisionError), torch_private.capturing(graph, (0, 1)):
        _ = 1 / 0
    assert graph.calls == [("begin", ((0, 1),), {"capture_error_mode": "thread_local"}), ("end",)]


def test_a_pool_that_is_closed_already_is_left_alone():
    torch_private.abandon((0, 1), 0)


def test_a_watch_sees_what_something_is_computed_from_and_nothing_else():
    used, viewed, unused = (torch.ones(2, 2) for _ in range(3))
    with torch_private.Watch() as watch:
        used + viewed.T
    assert watch.saw(used) and watch.saw(viewed) and not watch.saw(unused)
