"""BatchNorm of two batches at once equals two of PyTorch's: on a CPU by Triton's interpreter, which tests/conftest.py asks for."""

import copy
import importlib
import sys

import pytest
import torch
from torch.nn import functional as F

from stages.algorithms.common import one_pass
from stages.algorithms.common.one_pass import OnePass, joint_norm_on
from stages.models import split

MODULE = "stages.algorithms.common.joint_norm"


@pytest.fixture
def joint_norm():
    pytest.importorskip("triton")
    return importlib.import_module(MODULE).joint_norm


def apart(x, weight, bias, mean, variance, size, tracked, momentum, eps):
    moved = [(mean, variance) if number < tracked else (None, None) for number in range(2)]
    parts = zip(x.split([size, len(x) - size]), moved, strict=True)
    return torch.cat([F.batch_norm(part, *both, weight, bias, True, momentum, eps) for part, both in parts])


@pytest.mark.parametrize("tracked", [0, 1, 2])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize(
    ("shape", "size", "memory_format"),
    [
        ((5, 12, 4, 4), 3, torch.channels_last),
        ((5, 12, 4, 4), 3, torch.contiguous_format),
        ((20, 3, 13, 13), 10, torch.channels_last),  # more values of a channel than a program holds at a time
        ((20, 70, 1, 1), 10, torch.channels_last),
        ((7, 40), 4, torch.contiguous_format),
        ((4, 5, 6), 2, torch.contiguous_format),
    ],
)
def test_values_gradients_and_running_statistics_are_pytorchs(
    joint_norm, shape, size, memory_format, dtype, tolerance, tracked
):
    draw = torch.Generator().manual_seed(0)
    x = (2 * torch.randn(shape, generator=draw) + 3).to(dtype).to(memory_format=memory_format).requires_grad_()
    weight, bias = (torch.randn(shape[1], generator=draw).requires_grad_() for _ in range(2))
    slope, found = torch.randn(shape, generator=draw).to(dtype), []
    for norm in (joint_norm, apart):
        statistics = torch.zeros(shape[1]), torch.ones(shape[1])
        y = norm(x, weight, bias, *statistics, size, tracked, 0.1, 1e-5)
        found.append([y, *torch.autograd.grad((y * slope).sum(), (x, weight, bias)), *statistics])
    assert found[0][0].is_contiguous(memory_format=memory_format)
    for ours, theirs in zip(*found, strict=True):
        assert ours.dtype == theirs.dtype
        assert float((ours - theirs).detach().abs().max()) <= tolerance * max(1.0, float(theirs.detach().abs().max()))


def test_a_single_value_a_channel_is_refused_as_by_pytorch(joint_norm):
    x, one = torch.randn(3, 2), torch.ones(2)
    for norm in (joint_norm, apart):
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            norm(x, one, one, None, None, 2, 0, 0.1, 1e-5)


@pytest.mark.parametrize("track_both", [False, True])
def test_a_network_computes_the_same_with_it(joint_norm, track_both, monkeypatch):
    model, used = split.build("resnet4", (3, 8, 8), 3, 16, seed=0).train(), []

    def counted(*given):
        used.append(given)
        return joint_norm(*given)

    outcomes = []
    for norm in (None, counted):
        monkeypatch.setattr(one_pass, "joint_norm_on", lambda device, norm=norm: norm)
        own = copy.deepcopy(model)
        features = OnePass(own, track_both)(torch.ones(2, 3, 8, 8).cumsum(3), torch.ones(3, 3, 8, 8).cumsum(0))
        sum(part.square().sum() for part in features).backward()
        outcomes.append([*features, *(p.grad for p in own.parameters() if p.grad is not None), *own.buffers()])
    assert len(used) == sum(name.endswith("running_mean") for name, _ in model.named_buffers())
    torch.testing.assert_close(*outcomes, rtol=1e-3, atol=1e-3)


def test_whether_networks_join_is_tried_with_pytorchs_norm(monkeypatch):
    """Through many layers the rounding of another norm grows beyond the trial's tolerance."""
    monkeypatch.setattr(one_pass, "_known", {})
    monkeypatch.setattr(one_pass, "joint_norm_on", lambda device: lambda x, *others: torch.zeros_like(x))
    model = split.build("resnet4", (3, 8, 8), 3, 16, seed=0).train()
    features = OnePass(model, False)(torch.randn(2, 3, 8, 8), torch.randn(3, 3, 8, 8))
    assert list(one_pass._known.values()) == [True]
    assert not features[0].std(0).any()  # the norm was used afterwards


def test_a_cpu_and_a_machine_without_triton_do_without(monkeypatch):
    assert joint_norm_on(torch.device("cpu")) is None
    monkeypatch.setitem(sys.modules, MODULE, None)  # importing it raises ImportError
    assert joint_norm_on.__wrapped__(torch.device("cuda")) is None
