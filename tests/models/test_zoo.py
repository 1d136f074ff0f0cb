"""Architectures by name: the groups, torchvision's, timm's, and those that do not fit."""

import sys

import pytest
import torch

from stages.artifacts.store import Store
from stages.errors import UserError
from stages.models import split, zoo
from stages.settings import Train
from stages.train import dry_run
from tests.helpers.toy_store import write_toy_data


def test_the_groups_of_the_library():
    assert [len(zoo.GROUPS[f"HtFE{count}"]) for count in (2, 3, 4, 8, 9)] == [2, 3, 4, 8, 9]
    assert zoo.GROUPS["HtFE5"] == ("googlenet", "mobilenet_v2", "resnet18", "resnet34", "resnet50")
    assert zoo.GROUPS["HtFE9"][2:6] == ("resnet8", "resnet10", "resnet18", "resnet34")
    assert zoo.GROUPS["HtM10"] == (*zoo.GROUPS["HtFE8"], "vit_b_16", "vit_b_32")
    assert zoo.GROUPS["Res34-HtC4"] == ("resnet34", "resnet34+512", "resnet34+256", "resnet34+128")
    assert zoo.GROUPS["HtFE8-HtC4"][3:6] == ("resnet18+128", "resnet34", "resnet50+512")


def test_every_group_stands_in_the_table_and_loads_nothing(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    for group in zoo.GROUPS:
        for part in split.architectures(group, len(zoo.GROUPS[group])):
            assert part.partition("+")[0] in zoo.ARCHITECTURES
    split.build("resnet4", (3, 32, 32), 10, 512, seed=0)


def test_what_a_library_makes_as_it_is_imported_is_no_part_of_a_model_without_memory(tmp_path, monkeypatch):
    """PyTorch 2.6 can't import its compiler so, and would be left with half of it."""
    (tmp_path / "making.py").write_text("import torch\nmade = torch.zeros(1)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with torch.device("meta"):
        assert zoo.imported("making").made.device.type == "cpu"


@pytest.mark.parametrize("size", [64, 224])
@pytest.mark.parametrize("name", zoo.GROUPS["HtM10"])
def test_larger_images(name, size):
    shape = (3, size, size)
    assert split.shapes(split.meta_model(name, shape, 10, 512), shape) == ((2, 512), (2, 10))


@pytest.mark.parametrize(
    ("name", "size", "base"),
    [  # torchvision's published counts for 1000 classes, less the last linear layer
        ("convnext_tiny", 32, 28589128 - 769 * 1000), ("densenet121", 32, 7978856 - 1025 * 1000),
        ("mobilenet_v3_small", 32, 2542856 - 1025 * 1000), ("squeezenet1_1", 32, 1235496 - 513 * 1000),
        ("swin_t", 32, 28288354 - 769 * 1000), ("inception_v3", 96, 27161264 - 3326696 - 2049 * 1000),
        ("regnet_x_400mf", 32, 5495976 - 401 * 1000), ("maxvit_t", 224, 30919624 - 512 * 1000),
    ],
)  # fmt: skip
def test_any_torchvision_classifier_by_name(name, size, base):
    model = split.meta_model(name, (3, size, size), 10, 64)
    assert split.shapes(model, (3, size, size)) == ((2, 64), (2, 10))
    assert split.parameters(model.base) == base


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["googlenet", "mobilenet_v2"])
def test_a_step_of_training(name):
    """No auxiliary outputs, no warnings, a gradient for every weight."""
    model = split.build(name, (3, 32, 32), 10, 512, seed=0).train()
    model(torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32)).logsumexp(1).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("models", "size", "sentence"),
    [
        ("tests.helpers.toys:tiny,vit_b_32", 16, "Client 1's model 'vit_b_32' .* 16x16 images"),
        (
            "tests.helpers.toys:tiny,tests.helpers.toys:tiny,squeezenet1_1+4",
            8,
            r"Client 2's model 'squeezenet1_1\+4' .* 3x8x8 images",
        ),
        ("FedAvgCNN", 12, "Client 0's model 'FedAvgCNN' .* 12x12 images .*16x16 or more"),
    ],
)
def test_a_dry_run_names_client_model_and_shape(tmp_path, models, size, sentence):
    store = Store(tmp_path)
    write_toy_data(store, size=size)
    with pytest.raises(UserError, match=sentence):
        dry_run(store, Train(algorithm=("local",), models=models, device="cpu"), {})


def test_an_error_without_words_still_has_a_reason(monkeypatch):
    def wordless(channels, size, classes):
        raise AssertionError

    monkeypatch.setitem(zoo.ARCHITECTURES, "wordless", wordless)
    with pytest.raises(UserError, match="AssertionError"):
        split.build("wordless", (3, 32, 32), 10, 512, seed=0)


def test_timm_is_asked_for_when_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match="pip install timm"):
        split.architectures("timm:resnet18", 1)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "dla34", "deit_tiny_distilled_patch16_224"])
def test_timm_models(name):
    """Flat features whatever timm's own classifier is: a linear layer, a convolution, two heads."""
    pytest.importorskip("timm")
    model = split.build(f"timm:{name}", (3, 32, 32), 10, 64, seed=0)
    assert split.shapes(model, (3, 32, 32)) == ((2, 64), (2, 10))
    with pytest.raises(UserError, match="no model named 'x'"):
        split.architectures("timm:x", 1)
