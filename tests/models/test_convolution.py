"""Convolutions as products of matrices, against PyTorch's own."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stages.models import convolution, split
from stages.models.convolution import Conv2d

pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


def outcome(layer: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """What comes out, and the gradients of the input and all parameters."""
    x = x.clone().requires_grad_()
    out = layer(x)
    out.backward(torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out))
    return [out.detach(), x.grad, *(parameter.grad for parameter in layer.parameters())]


@settings(deadline=None)
@given(image=st.tuples(st.integers(1, 5), st.integers(1, 5)), kernel=pairs, stride=pairs, padding=pairs, dilation=pairs,
       bias=st.booleans())  # fmt: skip
def test_it_computes_what_pytorch_does(image, kernel, stride, padding, dilation, bias):
    padding = tuple(min(p, (k * d) // 2) for p, k, d in zip(padding, kernel, dilation, strict=True))
    own = nn.Conv2d(3, 2, kernel, stride, padding, dilation, bias=bias).double().to(memory_format=torch.channels_last)
    quick = copy.deepcopy(own)
    convolution.quick(quick)
    x = torch.randn(2, 3, *image, dtype=torch.double).to(memory_format=torch.channels_last)
    try:
        expected = outcome(own, x)
    except RuntimeError:  # the image is smaller than the kernel
        with pytest.raises(RuntimeError, match="Kernel size can't be greater"):
            quick(x)
        return
    torch.testing.assert_close(outcome(quick, x), expected)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "product"),
    [(1, 3, 1, 1, True), (2, 3, 1, 1, True), (4, 3, 2, 1, True), (3, 3, 1, 1, False), (8, 4, 4, 0, False)],
)
def test_only_where_few_pixels_come_out_of_a_small_image(monkeypatch, size, kernel, stride, padding, product):
    layer = nn.Conv2d(4, 4, kernel, stride, padding)
    convolution.quick(layer)
    monkeypatch.setattr(nn.Conv2d, "forward", lambda layer, x: "convolved")
    out = layer(torch.randn(2, 4, size, size))
    assert isinstance(out, torch.Tensor) == product


@pytest.mark.parametrize("size", [1, 2])
def test_what_comes_out_and_gradients_keep_the_channels_last(size):
    layer = nn.Conv2d(4, 8, 3, padding=1).to(memory_format=torch.channels_last)
    convolution.quick(layer)
    out, _, weight, _ = outcome(layer, torch.randn(2, 4, size, size).to(memory_format=torch.channels_last))
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert weight.stride() == layer.weight.stride()  # else PyTorch copies it


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3, padding="same"), nn.Conv2d(4, 4, 3, padding_mode="circular"),
     nn.LazyConv2d(4, 3)],
)  # fmt: skip
def test_other_convolutions_stay_what_they_are(layer):
    kind = type(layer)
    convolution.quick(layer)
    assert type(layer) is kind


def test_a_size_that_evaluation_sees_first_can_be_trained_on():
    layer = nn.Conv2d(2, 2, 3, padding=1)
    convolution.quick(layer)
    convolution.few.cache_clear()
    with torch.inference_mode():
        layer(torch.randn(1, 2, 2, 1))
    outcome(layer, torch.randn(1, 2, 2, 1))


@pytest.mark.parametrize(
    ("last", "device", "kind"), [(True, "cpu", Conv2d), (False, "cpu", nn.Conv2d), (True, "cuda", nn.Conv2d)]
)
def test_models_convolve_so_on_a_cpu_with_the_channels_last(last, device, kind):
    model = split.laid_out(split.build("resnet8", (3, 32, 32), 10, 8, seed=0), last, torch.device(device))
    assert {type(layer) for layer in model.modules() if isinstance(layer, nn.Conv2d)} == {kind}


def test_an_exported_program_convolves():
    layer = nn.Conv2d(2, 2, 3, padding=1)
    convolution.quick(layer)
    program = torch.export.export(layer, (torch.randn(2, 2, 2, 2),), strict=False)
    assert any("conv2d" in str(node.target) for node in program.graph.nodes)
