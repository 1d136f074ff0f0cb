import io
import sys

import numpy as np
import pytest
from PIL import Image

from stages.data import datasets
from stages.data.images import Files, Joined, Pixels
from stages.errors import UserError
from stages.settings import DATASETS, Prepare
from tests.helpers.datasets import everything, idx, picture, read


def test_every_name_has_a_reader():
    assert {*datasets.READERS, "pfllib"} == set(DATASETS)  # pfllib is read with its partition


# Images


def test_grey_arrays_become_three_channels():
    grey = np.arange(2 * 8 * 8, dtype=np.uint8).reshape(2, 8, 8)
    for values in (grey, grey[..., None], grey[:, None]):
        block = Pixels(values, 8)[np.array([1, 0])]
        assert block.shape == (2, 3, 8, 8) and block.dtype == np.uint8
        assert (block == grey[[1, 0], None]).all()


def test_colour_arrays_keep_their_channels():
    colour = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    assert (Pixels(colour, 8)[np.array([0])] == colour[:1].transpose(0, 3, 1, 2)).all()
    assert (Pixels(colour.transpose(0, 3, 1, 2), 8)[np.array([0])] == colour[:1].transpose(0, 3, 1, 2)).all()


def test_arrays_are_resized_and_cropped_at_the_centre():
    wide = np.zeros((1, 16, 32), np.uint8)
    wide[:, :, 8:24] = 200  # the middle 16 columns
    block = Pixels(wide, 8)[np.array([0])]
    assert block.shape == (1, 3, 8, 8) and (block[..., 1:7] == 200).all() and (block > 100).all()


def test_joined_images_keep_their_order():
    joined = Joined([Pixels(np.full((2, 8, 8), 1, np.uint8), 8), Pixels(np.full((3, 8, 8), 2, np.uint8), 8)])
    assert len(joined) == 5
    assert joined[np.array([4, 0, 2, 1])][:, 0, 0, 0].tolist() == [2, 1, 2, 1]


@pytest.mark.parametrize(("mode", "colour"), [("RGB", (9, 9, 9)), ("L", 9), ("RGBA", (9, 9, 9, 255)), ("P", 9)])
def test_files_of_any_mode_become_three_channels(tmp_path, mode, colour):
    picture(tmp_path / "a.png", colour, (20, 10), mode)
    expected = np.array(Image.open(tmp_path / "a.png").convert("RGB"))[0, 0]
    assert (Files([tmp_path / "a.png"], 8)[np.array([0])] == expected[:, None, None]).all()


@pytest.mark.parametrize("shape", [(32, 48), (48, 32), (30, 30), (5, 5), (8, 8)])
def test_files_are_resized_and_cropped_as_arrays_are(tmp_path, shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    first = np.array([0])
    apart = Files([tmp_path / "a.png"], 8)[first].astype(int) - Pixels(pixels[None], 8)[first]
    assert np.abs(apart).max() <= 1


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_squeezed_files_are_those_of_torchvision(tmp_path, ending):
    """PFLlib resizes to (64, 64), which keeps every column and row, whatever the shape."""
    from torchvision.transforms import Resize

    noise = np.random.default_rng(0).integers(0, 256, (90, 140, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / f"a.{ending}")
    found = Files([tmp_path / f"a.{ending}"], 8, squeeze=True)[np.array([0])][0]
    with Image.open(tmp_path / f"a.{ending}") as image:
        assert (found.transpose(1, 2, 0) == np.asarray(Resize((8, 8))(image.convert("RGB")))).all()
    arrays = Pixels(noise[None], 8, squeeze=True)[np.array([0])][0]
    if ending == "png":
        assert np.abs(arrays.astype(int) - found).max() <= 1


def test_squeezing_is_a_setting_of_every_reader(tmp_path):
    halves = np.zeros((6, 8, 16, 3), np.uint8)
    halves[:, :, :4] = 200  # cut off, or the left quarter
    np.savez(tmp_path / "a.npz", x_train=halves, y_train=np.arange(6) % 2)
    for label, name in enumerate("ab"):
        (tmp_path / "folder" / name).mkdir(parents=True)
        Image.fromarray(halves[label]).save(tmp_path / "folder" / name / "1.png")
    for dataset, source in (("npz", "a.npz"), ("folder", "folder")):
        cropped, squeezed = (everything(read(dataset, tmp_path / source, squeeze=how)) for how in (False, True))
        assert cropped.max() == 0 and squeezed[0, 0, 0].tolist()[0] == 200 and squeezed[..., 4:].max() == 0


def test_an_unreadable_image_is_named(tmp_path):
    good = io.BytesIO()
    Image.effect_noise((40, 40), 50).save(good, "PNG")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").touch()
    (tmp_path / "cut.png").write_bytes(good.getvalue()[:700])
    Image.new("I;16", (9, 9)).save(tmp_path / "deep.png")
    for name in ("text.png", "empty.png", "cut.png", "deep.png", "absent.png"):
        with pytest.raises(UserError, match=f"{name} can't be read as an image .*; repair or remove it"):
            Files([tmp_path / name], 8)[np.array([0])]


# Digits


def test_digits():
    found = read("digits")
    assert len(found.images) == len(found.labels) == found.train == 1797 and found.classes == 10
    first = found.images[np.array([0])][0, 0]
    assert first[0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]  # 5, 13, 9, 1 of 16, times 255 / 16


# torchvision


def test_mnist(tmp_path):
    raw, rng = tmp_path / "MNIST" / "raw", np.random.default_rng(0)
    train, test = rng.integers(0, 256, (2, 3, 28, 28))
    for name, values in (("train", train), ("t10k", test)):
        idx(raw / f"{name}-images-idx3-ubyte", values)
        idx(raw / f"{name}-labels-idx1-ubyte", np.array([7, 0, 9]))
    found = read("mnist", tmp_path, image_size=28)
    assert found.classes == 10 and found.train == 3 and found.labels.tolist() == [7, 0, 9] * 2
    assert (everything(found)[:, 1] == np.concatenate([train, test])).all()
    (raw / "t10k-images-idx3-ubyte").write_bytes(b"cut")
    with pytest.raises(UserError, match=r"holds no usable mnist .*; put MNIST/raw there or add `download`"):
        read("mnist", tmp_path)


def test_emnist_letters_stand_upright(tmp_path):
    letters = np.random.default_rng(0).integers(0, 256, (2, 28, 28))
    for part in ("train", "test"):
        idx(tmp_path / "EMNIST" / "raw" / f"emnist-balanced-{part}-images-idx3-ubyte", letters)
        idx(tmp_path / "EMNIST" / "raw" / f"emnist-balanced-{part}-labels-idx1-ubyte", np.array([0, 46]))
    found = read("emnist", tmp_path, image_size=28)
    assert found.classes == 47
    assert (everything(found)[:2, 0] == letters.transpose(0, 2, 1)).all()


def test_gtsrb(tmp_path):
    base = tmp_path / "gtsrb"
    for label in range(2):
        picture(base / "GTSRB" / "Training" / f"0000{label}" / "0.ppm", (label, 0, 0))
    picture(base / "GTSRB" / "Final_Test" / "Images" / "0.ppm", (9, 0, 0))
    (base / "GT-final_test.csv").write_text("Filename;ClassId\n0.ppm;1\n")
    found = read("gtsrb", tmp_path)
    assert found.labels.tolist() == [0, 1, 1] and found.train == 2 and found.class_names == ["0", "1"]
    assert everything(found)[:, 0, 0, 0].tolist() == [0, 1, 9]


def test_country211_counts_its_validation_images_as_training(tmp_path):
    for value, part in enumerate(("train", "valid", "test")):
        for country in ("AD", "ZW"):
            picture(tmp_path / "country211" / part / country / "1.png", (value, 0, 0))
    found = read("country211", tmp_path)
    assert found.class_names == ["AD", "ZW"] and found.train == 4 and found.labels.tolist() == [0, 1] * 3
    assert everything(found)[:, 0, 0, 0].tolist() == [0, 0, 1, 1, 2, 2]


def test_stanford_cars(tmp_path):
    from scipy.io import savemat

    base = tmp_path / "stanford_cars"
    kind = [("fname", "O"), ("class", "O")]
    for part, table in (("train", "devkit/cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        for name in "12":
            picture(base / f"cars_{part}" / f"{name}.jpg", (1, 2, 3))
        (base / "devkit").mkdir(exist_ok=True)
        savemat(base / table, {"annotations": np.array([("1.jpg", 2), ("2.jpg", 1)], kind)})
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": np.array(["coupe", "van"], object)})
    found = read("stanford-cars", tmp_path)
    assert found.class_names == ["coupe", "van"] and found.labels.tolist() == [1, 0, 1, 0] and found.train == 2
    assert everything(found).shape == (4, 3, 8, 8)


@pytest.mark.parametrize("name", ["fashion-mnist", "svhn", "cifar10", "cifar100", "flowers102", "stanford-cars"])
def test_absent_files_are_asked_for(tmp_path, name):
    with pytest.raises(UserError, match=f"The data set '{name}' needs `source`, the folder that holds"):
        read(name)
    with pytest.raises(UserError, match=r"There is no .*; `source` must name the folder that holds"):
        read(name, tmp_path / "none")
    with pytest.raises(UserError, match=f"holds no usable {name} .*; put .* there"):
        read(name, tmp_path)


class FakeCifar:
    """What is used of torchvision's reader, whose files can't be imitated: it checks their MD5."""

    classes = ("plane", "car")

    def __init__(self, root, train, download):
        self.data = np.full((2, 8, 8, 3), 1 if train else 2, np.uint8)
        self.targets = [0, 1]


class FakeSvhn:
    def __init__(self, root, split, download):
        self.data = np.full((2, 3, 8, 8), 1 if split == "train" else 2, np.uint8)
        self.labels = np.array([0, 1])


class FakeFlowers:
    def __init__(self, root, split, download):
        self._image_files, self._labels = [root / f"{split}.png"], [0 if split == "val" else 1]


@pytest.mark.parametrize(("name", "reader", "fake"), [("cifar10", "CIFAR10", FakeCifar), ("svhn", "SVHN", FakeSvhn)])
def test_sets_held_as_arrays(tmp_path, monkeypatch, name, reader, fake):
    monkeypatch.setattr(f"torchvision.datasets.{reader}", fake)
    found = read(name, tmp_path)
    assert found.train == 2 and found.labels.tolist() == [0, 1, 0, 1]
    assert everything(found)[:, 2, 0, 0].tolist() == [1, 1, 2, 2]


def test_flowers_count_their_validation_images_as_training(tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.Flowers102", FakeFlowers)
    for value, split in enumerate(("train", "val", "test")):
        picture(tmp_path / f"{split}.png", (value, 0, 0))
    found = read("flowers102", tmp_path)
    assert found.train == 2 and found.labels.tolist() == [1, 0, 1]
    assert everything(found)[:, 0, 0, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["stanford-cars", "folder", "digits"])
def test_download_where_there_is_none(tmp_path, name):
    with pytest.raises(UserError, match=f"{name} can't be downloaded; leave out `download`"):
        read(name, tmp_path, download=True)


def test_data_sets_of_a_library_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="pip install datasets"):
        datasets.read(Prepare(dataset="hf:pictures"))
