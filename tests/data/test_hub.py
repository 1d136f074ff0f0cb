"""Data sets that the library `datasets` saved."""

import numpy as np
import pytest

from stages import Prepare, Store, prepare, read
from stages.data import datasets as table
from stages.data import hub
from stages.errors import UserError
from tests.helpers.later import Later, needs

library = Later("datasets")
pytestmark = needs("datasets")


def made(labels, names=None, column="label"):
    """Images of one grey each, 20 times the label."""
    from PIL import Image

    kinds = {"image": library.Image(), column: library.ClassLabel(names=names) if names else library.Value("string")}
    values = labels if names else [f"class {label}" for label in labels]
    images = [Image.fromarray(np.full((8, 8), 20 * label, np.uint8)) for label in labels]
    return library.Dataset.from_dict({"image": images, column: values}, features=library.Features(kinds))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(library.config, "HF_HUB_OFFLINE", True)


def test_a_saved_folder(tmp_path):
    splits = {"test": made([1, 0], ["a", "b"]), "train": made([0, 1, 1], ["a", "b"])}
    library.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    found = table.read(Prepare(dataset=f"hf:{tmp_path / 'saved'}", image_size=16))
    assert found.train == 3 and found.labels.tolist() == [0, 1, 1, 1, 0] and found.class_names == ["a", "b"]
    assert found.images[np.array([4, 1])][:, :, 3, 3].tolist() == [[0] * 3, [20] * 3]
    assert found.images[np.array([0])].shape == (1, 3, 16, 16)


def test_parquet_files_of_which_one_is_the_test_set(tmp_path):
    (tmp_path / "data").mkdir()
    made([1, 0], column="class").to_parquet(tmp_path / "data" / "test-0.parquet")
    made([2, 1], column="class").to_parquet(tmp_path / "data" / "train-0.parquet")
    found = table.read(Prepare(dataset=f"hf:{tmp_path / 'data'}", image_size=8))
    assert found.train == 2 and found.labels.tolist() == [2, 1, 1, 0]
    assert found.class_names == ["class 0", "class 1", "class 2"]
    assert found.images[np.arange(4)][:, 0, 0, 0].tolist() == [40, 20, 20, 0]


def test_prepared_from_a_folder_without_splits(tmp_path):
    made([0, 1] * 60, ["a", "b"]).save_to_disk(tmp_path / "saved")
    settings = Prepare(dataset=f"hf:{tmp_path / 'saved'}", clients=2, beta=10, image_size=8, min_samples=10)
    data = read(prepare(Store(tmp_path / "store"), "saved", settings))
    assert data.counts.sum() == 120 and (data.test.images[:, 0, 0, 0] == 20 * data.test.labels).all()


def test_what_can_not_be_used_gets_a_sentence(tmp_path):
    def refused(sentence, name):
        with pytest.raises(UserError, match=sentence):
            table.read(Prepare(dataset=f"hf:{tmp_path / name}"))

    refused("add `download`", "absent")
    (tmp_path / "empty").mkdir()
    refused("can't be read as a data set", "empty")
    made([0, 1], ["a", "b"], column="mood").save_to_disk(tmp_path / "moody")
    refused("one of labels named label or", "moody")
    features = library.Features({"image": library.Image(decode=False), "label": library.ClassLabel(names=["a", "b"])})
    images = [{"bytes": b"x", "path": None}, {"bytes": None, "path": "/etc/hostname"}]
    odd = library.Dataset.from_dict({"image": images, "label": [0, 1]}, features=features)
    with pytest.raises(UserError, match="Image 0 of odd can't be read as an image"):
        hub.Encoded(odd, "image", 8, False, "odd")[np.array([0])]
    with pytest.raises(UserError, match="Image 1 of odd is not stored in it"):
        hub.Encoded(odd, "image", 8, False, "odd")[np.array([1])]


def test_a_name_is_looked_up_on_the_hub_only_if_asked(monkeypatch):
    asked = []
    splits = {"train": made([0, 1], ["a", "b"]), "validation": made([1, 0], ["a", "b"])}
    monkeypatch.setattr(library, "load_dataset", lambda name: asked.append(name) or splits)
    with pytest.raises(UserError, match="add `download`"):
        table.read(Prepare(dataset="hf:someone/pictures"))
    found = table.read(Prepare(dataset="hf:someone/pictures", download=True))
    assert asked == ["someone/pictures"] and found.train == 2 and found.labels.tolist() == [0, 1, 1, 0]
