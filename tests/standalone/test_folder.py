"""Exported folders from anyone: what is wrong with one is said in a sentence, and no code that it names is run."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from stages.errors import UserError
from stages.standalone import folder
from stages.standalone.exporting import export_clients

CODE = ["tests.helpers.toys:tiny", "tests.helpers.toys:narrow"]


@pytest.fixture(scope="session")
def exported(runs, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "client"
    export_clients(*runs("fedktl"), path, client=0)
    return path


@pytest.fixture
def copy(exported, tmp_path):
    """An exported client to spoil."""
    return shutil.copytree(exported, tmp_path / "client")


def edited(path, **changes):
    facts = json.loads((path / "config.json").read_text()) | changes
    (path / "config.json").write_text(json.dumps({name: value for name, value in facts.items() if value is not ...}))


def refused(path, sentence, code=CODE):
    with pytest.raises(UserError, match=sentence) as error:
        folder.read(path, code)
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"fedktl_client": 2}, "another format than 1"),
        ({"seed": ...}, "there is no 'seed'"),
        ({"feature_dim": 10**9}, "feature_dim must be at most 65,536"),
        ({"feature_dim": 17}, "Tensor head.weight is .* where"),
        ({"feature_dim": "\x1b[2J"}, "feature_dim must be a whole number"),
        ({"image_size": 1e400}, "image_size must be a whole number"),
        ({"class_names": ["a"]}, "names 1 classes"),
        ({"class_names": ["a"] * 10_001}, "names 10,001 classes"),
        ({"architecture": "tests.helpers.toys:tiny+999999"}, "far smaller"),
        ({"architecture": "resnet152"}, "far smaller"),
        ({"architecture": "\x1b[2J"}, "no model or model group"),
        ({"algorithm": "fedmagic"}, "no algorithm named 'fedmagic'"),
        ({"hyper": {"mu": -1}}, "mu must be at least 0"),
        ({"hyper": [1]}, "can't be understood"),
        ({"hyper": {"nu": 1}}, "no setting named 'nu'"),
        ({"algorithm": "local", "hyper": {}}, "has shared.etf, which is not what"),
    ],
)
def test_a_description_of_something_else(copy, changes, sentence):
    edited(copy, **changes)
    refused(copy, sentence)


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, "nonsense", '{"fedktl_client": 1}', "\x00"])
def test_a_description_that_is_none(copy, text):
    (copy / "config.json").write_text(text)
    refused(copy, "config.json can't be|an exported client's description")


def test_tensors_that_are_others(copy):
    values = load_file(copy / "model.safetensors")
    for changed, sentence in (
        ({name: value for name, value in values.items() if name != "shared.etf"}, "lacks shared.etf"),
        (values | {"shared.\x1b[2J": torch.ones(1)}, r"has shared.\\x1b"),
        (values | {"shared.etf": torch.ones(2, 2)}, r"shared.etf is torch.float32 \[2, 2\]"),
        (values | {"head.bias": values["head.bias"].double()}, "head.bias is torch.float64"),
    ):
        save_file(changed, copy / "model.safetensors")
        refused(copy, sentence)
    (copy / "model.safetensors").write_bytes(b"\x80\x04cos\nsystem\n")
    refused(copy, "can't be read as an exported client's tensors")
    (copy / "model.safetensors").unlink()
    refused(copy, "is not an exported client")


@pytest.mark.parametrize("name", ["architecture", "algorithm"])
def test_code_that_only_the_folder_names_is_not_run(copy, name):
    edited(copy, **{name: "tests.helpers.toys:evil"})
    refused(copy, "'tests.helpers.toys:evil' is code that a file names but you did not")


def test_without_a_word_no_code_of_the_folders_is_run(exported):
    with pytest.raises(UserError, match="is code that a file names but you did not"):
        folder.read(exported)
