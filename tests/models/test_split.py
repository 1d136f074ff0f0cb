"""Client models against the reference's parameter counts and initial weights."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from stages.errors import UserError
from stages.models import split, zoo

FIXTURES = Path(__file__).parents[1] / "fixtures"
COUNTS = json.loads((FIXTURES / "param_counts.json").read_text())
INITIAL = json.loads((FIXTURES / "initial-client-weights.json").read_text())


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("name", zoo.ARCHITECTURES)
def test_parameter_counts(name, classes):
    model, expected = split.meta_model(name, (3, 32, 32), classes, 512), COUNTS[name][str(classes)]
    assert split.parameters(model.base) == expected["base"]
    assert split.parameters(model.head) == expected["head"]
    assert sum(buffer.numel() for buffer in model.base.buffers()) == expected["buffers"]
    features, projections = split.shapes(model, (3, 32, 32))
    assert [list(features), list(projections)] == [expected["feature_shape"], expected["output_shape"]]


@pytest.mark.parametrize("architecture", zoo.GROUPS["HtFE8"])
def test_an_outline_is_not_filled(architecture):
    """Random numbers on the meta device are PyTorch's compiler's, whose import takes more than a second."""
    with Operations() as made:
        split.meta_model(architecture, (3, 32, 32), 10, 512)
    assert not {name for name in made.names if name.endswith(("normal_", "uniform_"))}


class Operations(TorchDispatchMode):
    """Their names."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.names.add(operation.overloadpacket.__name__)
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", INITIAL)
def test_initial_weights_are_the_references(name):
    """Same seed, same weights; the tensors only go by other names, and the shortcut's come last here as there."""
    ours = split.build(name, (3, 32, 32), 10, 512, seed=0).state_dict().values()
    theirs = INITIAL[name]["tensors"].values()
    for tensor, expected in zip(ours, theirs, strict=True):
        assert list(tensor.shape) == expected["shape"]
        assert float(tensor.double().sum()) == pytest.approx(expected["sum"], abs=1e-6)
        assert tensor.flatten()[:3].tolist() == pytest.approx(expected["first"], abs=1e-7)


def test_building_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    split.build("resnet4", (3, 32, 32), 10, 512, seed=1)
    assert torch.equal(torch.rand(1), expected)


def test_weights_depend_on_the_seed_alone():
    one, again, other = (split.build("mobilenet_v2", (3, 32, 32), 10, 512, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["base.features.0.0.weight"], other["base.features.0.0.weight"])


def test_client_i_takes_architecture_i_mod_n():
    assert split.architectures("small", 6) == ["FedAvgCNN", "resnet4", "resnet6", "resnet8", "FedAvgCNN", "resnet4"]
    assert split.architectures("resnet4, tests.helpers.toys:tiny+8", 3) == [
        "resnet4",
        "tests.helpers.toys:tiny+8",
        "resnet4",
    ]


def test_groups_are_parts_of_lists_and_take_hidden_layers():
    assert split.listed("HtFE2+8, resnet4,CNN") == ["FedAvgCNN+8", "resnet18+8", "resnet4", "FedAvgCNN"]
    with pytest.raises(UserError, match="followed by the width"):
        split.listed("resnet4,small+x")


def test_plus_adds_hidden_layers_to_the_head():
    model = split.build("tests.helpers.toys:tiny+4+3", (3, 16, 16), 10, 64, seed=0)
    kinds = [type(layer) for layer in model.head]
    assert kinds == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    assert [tuple(layer.weight.shape) for layer in model.head[::2]] == [(4, 64), (3, 4), (10, 3)]
    assert model(torch.rand(8, 3, 16, 16)).min() < 0  # HtFLlib's heads could not give this


def test_the_vits_of_htm10_have_a_head_of_their_own():
    head = split.meta_model("vit_b_32", (3, 32, 32), 10, 512).head
    assert [type(layer) for layer in head] == [nn.Linear, nn.Tanh, nn.Linear]
    assert split.parameters(split.meta_model("vit_b_32+256", (3, 32, 32), 10, 512).head) == 513 * 256 + 257 * 10


@pytest.mark.parametrize(
    "name",
    [
        "resnet4+",
        "resnet4+x",
        "resnet4+0",
        "resnet4+-1",
        "resnet4+8+",
        "tests.helpers.toys:tiny+²",
        "resnet4+1000000",
        "resnet4+" + "9" * 5000,
    ],
)
def test_the_width_of_a_hidden_layer_is_a_whole_number(name):
    with pytest.raises(UserError, match="followed by the width"):
        split.architectures(name, 1)


def test_a_users_own_classifier_is_split_at_its_last_linear_layer():
    model = split.build("tests.helpers.toys:tiny", (3, 16, 16), 10, 64, seed=0)
    assert split.shapes(model, (3, 16, 16)) == ((2, 64), (2, 10))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("resnet5", "did you mean"), ("tests.helpers.toys:absent", "can't be loaded"), ("tests.absent:x", "can't be loaded"),
        ("tests.helpers.toys:headless", "linear layer"), ("tests.helpers.toys:CLASSES", "can't be loaded"),
    ],
)  # fmt: skip
def test_models_that_can_not_be_are_named(name, sentence):
    with pytest.raises(UserError, match=sentence):
        split.architectures(name, 1)
        split.build(name, (3, 16, 16), 10, 64, seed=0)


def test_an_image_too_small_for_the_model_is_refused():
    with pytest.raises(UserError, match="8x8"):
        split.shapes(split.build("FedAvgCNN", (3, 8, 8), 10, 512, seed=0), (3, 8, 8))


def test_an_image_of_the_wrong_size_is_refused():
    model = split.build("FedAvgCNN", (3, 32, 32), 10, 512, seed=0)
    with pytest.raises(UserError, match="3x28x28"):
        split.shapes(model, (3, 28, 28))


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize(("name", "on_gpu"), [("resnet18", True), ("mobilenet_v2", False), ("resnext50_32x4d", True)])
def test_channels_come_last_unless_a_gpu_convolves_each_on_its_own(name, on_gpu, asked):
    model = split.build(name, (3, 32, 32), 10, 512, seed=0)
    weight = next(
        layer.weight for layer in model.modules() if isinstance(layer, nn.Conv2d) and layer.kernel_size > (1, 1)
    )
    for device, expected in (("cpu", asked), ("cuda", asked and on_gpu)):
        split.laid_out(model, asked, torch.device(device))
        assert weight.is_contiguous(memory_format=torch.channels_last) == expected
        assert weight.is_contiguous() != expected
