"""Pre-trained weights: into the base and nowhere else, or a sentence that names what does not fit."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from stages.artifacts.store import Store
from stages.errors import UserError
from stages.models import pretrained, split
from stages.models.pretrained import Weights
from stages.settings import Train
from stages.train import dry_run
from tests.helpers.toy_store import write_toy_data

SHAPE = (3, 32, 32)


def classifier(name: str) -> dict[str, torch.Tensor]:
    """The weights of a torchvision classifier of 1000 classes, drawn from another seed."""
    from torchvision import models

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        return models.get_model(name, weights=None).state_dict()


@pytest.fixture(scope="module")
def shufflenet() -> dict[str, torch.Tensor]:
    return classifier("shufflenet_v2_x0_5")


@pytest.mark.parametrize(("suffix", "write"), [(".pth", torch.save), (".safetensors", save_file)])
def test_the_base_is_the_files_and_the_head_the_seeds(tmp_path, shufflenet, suffix, write):
    path = tmp_path / f"weights{suffix}"
    write(shufflenet, path)
    found = pretrained.read([f"shufflenet_v2_x0_5={path}"], ["resnet4", "shufflenet_v2_x0_5+8"])
    model = split.build("shufflenet_v2_x0_5+8", SHAPE, 10, 512, 0, found)
    plain = split.build("shufflenet_v2_x0_5+8", SHAPE, 10, 512, 0)
    assert all(torch.equal(tensor, shufflenet[name]) for name, tensor in model.base.state_dict().items())
    assert set(shufflenet) - set(model.base.state_dict()) == {"fc.weight", "fc.bias"}
    assert torch.equal(model.head[0].weight, plain.head[0].weight)
    assert torch.equal(
        split.build("resnet4", SHAPE, 10, 512, 0, found).base.conv1.weight,
        split.build("resnet4", SHAPE, 10, 512, 0).base.conv1.weight,
    )


def test_the_files_inner_classifier_layers_belong_to_the_base():
    """MobileNetV3 has two linear layers above its convolutions; only the last one is cut off."""
    weights = classifier("mobilenet_v3_small")
    model = split.build("mobilenet_v3_small", SHAPE, 10, 512, 0, {"mobilenet_v3_small": Weights("f", weights)})
    assert torch.equal(model.base.classifier[0].weight, weights["classifier.0.weight"])


class Toy(nn.Module):
    """Has names as in old DenseNet files, a counter, and a classifier."""

    def __init__(self):
        super().__init__()
        self.denselayer1 = nn.Sequential()
        self.denselayer1.norm1 = nn.BatchNorm1d(2)
        self.fc = nn.Linear(2, 3)


def test_older_files_and_auxiliary_heads():
    model = split.SplitModel(Toy(), 4, 3)
    one = torch.ones(2)
    norm = {f"denselayer1.norm.1.{part}": 2 * one for part in ("weight", "bias", "running_mean", "running_var")}
    pretrained.load(model.base, model.cut, Weights("f", norm | {"aux1.fc.bias": one, "fc.bias": one}))
    assert model.base.denselayer1.norm1.running_var.tolist() == [2, 2]


def test_a_vit_takes_weights_of_another_image_size():
    """One patch and the class token of a 32-pixel model at 64 pixels: each of the 4 patches gets the one's position."""
    from torchvision.models import VisionTransformer

    def vit(size: int) -> VisionTransformer:
        return VisionTransformer(size, 32, num_layers=1, num_heads=1, hidden_dim=4, mlp_dim=4, num_classes=3)

    weights = vit(32).state_dict()
    token, position = weights["encoder.pos_embedding"][0]
    model = split.SplitModel(vit(64), 8, 3)
    pretrained.load(model.base, model.cut, Weights("f", weights))
    torch.testing.assert_close(model.base.encoder.pos_embedding[0], torch.stack([token, *[position] * 4]))
    assert weights["encoder.pos_embedding"].shape == (1, 2, 4)
    odd = weights | {"encoder.pos_embedding": torch.zeros(1, 4, 4)}
    with pytest.raises(UserError, match="f does not fit the model"):
        pretrained.load(model.base, model.cut, Weights("f", odd))


def test_what_does_not_fit_is_named():
    small, large = (split.build(name, SHAPE, 10, 512, 0) for name in ("resnet4", "resnet6"))
    weights = small.base.state_dict()
    for model, change, sentence in [
        (large, {}, "f has no tensor layers.1.conv1.weight"),
        (
            small,
            {"conv1.weight": torch.zeros(64, 1, 7, 7)},
            r"conv1.weight has shape \[64, 1, 7, 7\]; .* \[64, 3, 7, 7\]",
        ),
        (small, {"layers.1.conv1.weight": torch.zeros(1)}, "of another model: this one has no tensor layers.1.conv1"),
    ]:
        with pytest.raises(UserError, match=sentence):
            pretrained.load(model.base, model.cut, Weights("f", weights | change))


def test_files_that_are_no_weights(tmp_path):
    torch.save(nn.Linear(1, 1), tmp_path / "module.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "noise.pth").write_bytes(b"PK\3\4" + bytes(100))
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "noise.safetensors").write_bytes(bytes(100))
    for file, sentence in [
        ("module.pth", "can't be read"), ("noise.pth", "can't be read"), ("empty.pth", "can't be read"),
        ("noise.safetensors", "can't be read"), ("list.pth", "holds no state dict"), ("absent.pth", "There is no file"),
    ]:  # fmt: skip
        with pytest.raises(UserError, match=sentence):
            pretrained.read([f"resnet4={tmp_path / file}"], ["resnet4"])


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [("weights.pth", "ARCHITECTURE=FILE"), ("resnet4=", "ARCHITECTURE=FILE"), ("resnet8=f", "did you mean resnet4")],
)
def test_settings_that_can_not_be(setting, sentence):
    with pytest.raises(UserError, match=sentence):
        pretrained.read([setting], ["resnet4", "FedAvgCNN"])


def test_a_run_starts_from_the_weights(tmp_path, shufflenet):
    store, file = Store(tmp_path / "store"), tmp_path / "w.pth"
    write_toy_data(store)
    torch.save(shufflenet | {"conv1.0.weight": torch.zeros(1)}, file)
    settings = {
        "algorithm": "local",
        "models": "tests.helpers.toys:tiny,shufflenet_v2_x0_5",
        "device": "cpu",
        "feature_dim": 16,
    }
    assert dry_run(store, Train.make(settings), {})
    with pytest.raises(UserError, match=r"Client 1's .* conv1.0.weight has shape \[1\]"):
        dry_run(store, Train.make(settings, {"pretrained": f"shufflenet_v2_x0_5={file}"}), {})


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model."])
@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"epoch": 3, "state_dict": state, "best": 0.5}])
def test_wrappers_names_and_checkpoints(tmp_path, shufflenet, prefix, wrap):
    path = tmp_path / "weights.pth"
    torch.save(wrap({f"{prefix}{name}": value for name, value in shufflenet.items()}), path)
    found = pretrained.read([f"shufflenet_v2_x0_5={path}"], ["shufflenet_v2_x0_5"])
    model = split.build("shufflenet_v2_x0_5", SHAPE, 10, 512, 0, found)
    assert all(torch.equal(tensor, shufflenet[name]) for name, tensor in model.base.state_dict().items())


def test_a_client_model_of_an_earlier_run(tmp_path):
    """As `fedktl export` writes it: the base goes on, the head starts anew."""
    earlier, path = split.build("resnet4", SHAPE, 7, 512, 1), tmp_path / "model.safetensors"
    save_file({**earlier.state_dict(), "shared.etf": torch.eye(7)}, path)
    model = split.build("resnet4", SHAPE, 10, 512, 0, pretrained.read([f"resnet4={path}"], ["resnet4"]))
    assert all(torch.equal(tensor, earlier.base.state_dict()[name]) for name, tensor in model.base.state_dict().items())
    assert model.head.out_features == 10


def test_a_pickled_model_is_answered_with_what_to_save(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pth")
    with pytest.raises(UserError, match=r"can't be read without running code from it; save a state dict") as refused:
        pretrained.opened(tmp_path / "whole.pth")
    assert "\x1b" not in str(refused.value)
    torch.save({"generator": {"a": torch.ones(1)}, "critic": {"a": torch.ones(1)}}, tmp_path / "two.pth")
    with pytest.raises(UserError, match="holds no state dict"):
        pretrained.opened(tmp_path / "two.pth")
