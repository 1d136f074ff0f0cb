"""Images in folders as people lay them out: what is read, what is refused, and what is said to be left out."""

import os
import unicodedata

import numpy as np
import pytest

from stages.errors import UserError
from tests.helpers.datasets import everything, picture, read


def test_folder_of_classes(tmp_path):
    for label, name in enumerate(("cat", "dog")):
        picture(tmp_path / name / "1.png", (label, 0, 0))
        picture(tmp_path / name / "2.JPG", (label, 0, 0))
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / ".cache").mkdir()
    found = read("folder", tmp_path)
    assert found.class_names == ["cat", "dog"] and found.labels.tolist() == [0, 0, 1, 1] and found.train == 4
    assert everything(found)[[0, 2], 0, 0, 0].tolist() == [0, 1]


def test_folder_with_train_and_test(tmp_path):
    for part, names in (("train", "ab"), ("test", "b")):
        for name in names:
            picture(tmp_path / part / name / "1.png", (1, 2, 3))
    found = read("folder", tmp_path)
    assert found.class_names == ["a", "b"] and found.labels.tolist() == [0, 1, 1] and found.train == 2


def test_folders_that_can_not_be_used(tmp_path):
    with pytest.raises(UserError, match="has no subfolders"):
        read("folder", tmp_path)
    picture(tmp_path / "cat" / "1.png", (1, 2, 3))
    with pytest.raises(UserError, match="images of 1 class"):
        read("folder", tmp_path)
    (tmp_path / "dog").mkdir()
    with pytest.raises(UserError, match="dog holds no images"):
        read("folder", tmp_path)
    with pytest.raises(UserError, match="can't be read as a folder"):
        read("folder", tmp_path / "cat" / "1.png")


def test_tiny_imagenet(tmp_path):
    root = tmp_path / "tiny-imagenet-200"
    for label, wnid in enumerate(("n01", "n02")):
        picture(root / "train" / wnid / "images" / f"{wnid}_0.JPEG", (label * 100,) * 3, (64, 64))
        picture(root / "val" / "images" / f"val_{label}.JPEG", (label * 100 + 50,) * 3, (64, 64))
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn01\t0\t0\t9\t9\nval_1.JPEG\tn02\t0\t0\t9\t9\n")
    (root / "words.txt").write_text("n01\tgoldfish, Carassius auratus\n")
    found = read("tiny-imagenet", tmp_path)
    assert found.class_names == ["goldfish", "n02"] and found.labels.tolist() == [0, 1] and found.train == 2
    kept = read("tiny-imagenet", tmp_path, merge=False)  # merged sets are the 100,000 training images, as in the paper
    assert kept.labels.tolist() == [0, 1, 0, 1] and kept.train == 2
    assert np.abs(everything(kept)[:, 0, 4, 4].astype(int) - [0, 100, 50, 150]).max() <= 2
    with pytest.raises(UserError, match="has the layout of tiny-imagenet-200; read it with `dataset=tiny-imagenet`"):
        read("folder", root)
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn09\t0\t0\t9\t9\n")
    with pytest.raises(UserError, match=r"gives val_0\.JPEG the class 'n09', which train/ does not have"):
        read("tiny-imagenet", root, merge=False)
    with pytest.raises(UserError, match="is not tiny-imagenet-200"):
        read("tiny-imagenet", root / "train")


def pictures(root, *paths):
    for value, path in enumerate(paths):
        picture(root / path, (value, 0, 0))


def values(found):
    """The number of each image in `pictures`."""
    return everything(found)[:, 0, 0, 0].tolist()


def test_inner_folders_belong_to_the_class_above(tmp_path):
    pictures(tmp_path, "cat/1.png", "cat/siamese/1.png", "cat/tabby/old/1.png", "dog/pug/1.png")
    (tmp_path / "cat" / "tabby" / "all").symlink_to(tmp_path / "cat")  # a circle
    found = read("folder", tmp_path)
    assert found.class_names == ["cat", "dog"] and found.labels.tolist() == [0, 0, 0, 1]
    assert sorted(values(found)) == [0, 1, 2, 3]
    assert found.notes == [
        "Images in inner folders belong to the class of the folder above: cat/siamese/, cat/tabby/, cat/tabby/old/, dog/pug/."
    ]


@pytest.mark.parametrize(
    ("folders", "train", "test", "note"),
    [
        ("train val", ["train"], ["val"], "val/ is used as the test set, since there is no test/."),
        ("train valid", ["train"], ["valid"], "valid/ is used as the test set, since there is no test/."),
        ("train val test", ["train", "val"], ["test"], "val/ is added to the training images."),
        ("Train Validation TEST", ["Train", "Validation"], ["TEST"], "Validation/ is added to the training images."),
        ("Training Testing", ["Training"], ["Testing"], None),
        ("train", ["train"], [], None),
        ("train test notes", ["train"], ["test"], "Skipped notes, beside test, train."),
    ],
)
def test_splits_by_the_names_people_give_them(tmp_path, folders, train, test, note):
    names = folders.split()
    pictures(tmp_path, *(f"{name}/{kind}/1.png" for name in names for kind in ("cat", "dog")))
    found = read("folder", tmp_path)
    expected = [2 * names.index(name) + label for name in (*train, *test) for label in (0, 1)]
    assert values(found) == expected and found.train == 2 * len(train) and found.class_names == ["cat", "dog"]
    assert found.notes == ([note] if note else [])


def test_a_class_may_be_called_train(tmp_path):
    pictures(tmp_path, "bus/1.png", "train/1.png")
    assert read("folder", tmp_path).class_names == ["bus", "train"]


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["test/cat/1.png"], "has test but no train/"),
        (["val/cat/1.png", "test/cat/1.png"], "has test, val but no train/"),
        (["train/a/1.png", "val/a/1.png", "valid/a/1.png"], "has both val/ and valid/ as its validation images"),
        (["train/1.png", "test/1.png"], "train has no subfolders; put the images of each class"),
        (["cat/1.heic", "cat/2.heic", "dog/1.png"], r"cat holds no images \(.*\) but 2 \.heic;"),
        (["train/Cat/1.png", "train/dog/1.png", "test/cat/1.png"], "whose names differ only in case: Cat, cat"),
    ],
)
def test_layouts_that_can_not_be_used(tmp_path, paths, message):
    for path in paths:
        picture(tmp_path / path, (0, 0, 0)) if path.endswith("png") else (
            (tmp_path / path).parent.mkdir(exist_ok=True), (tmp_path / path).touch()
        )  # fmt: skip
    with pytest.raises(UserError, match=message):
        read("folder", tmp_path)


def test_what_is_left_out_is_counted_and_said(tmp_path):
    pictures(
        tmp_path, "train/a/1.png", "train/b/1.png", "test/1.png", "test/2.png", "test/c/1.png", "train/3.png", "4.png"
    )
    for name in ("1.heic", "2.heic", "notes.txt", "Thumbs", ".DS_Store"):
        (tmp_path / "train" / "a" / name).touch()
    notes = [note.replace(str(tmp_path), "") for note in read("folder", tmp_path).notes]
    assert notes == [
        "Only the test set has images of c.",
        "Skipped images outside the class folders (1 directly in /, 1 directly in train/, 2 directly in test/).",
        "Skipped files without an image's extension (2 .heic, 1 without extension, 1 .txt).",
    ]


def test_two_forms_of_unicode_are_one_name(tmp_path):
    for form, part in (("NFC", "train"), ("NFD", "test")):
        pictures(tmp_path, *(f"{part}/{unicodedata.normalize(form, name)}/1.png" for name in ("café", "thé")))
    found = read("folder", tmp_path)
    assert found.class_names == ["café", "thé"] and found.labels.tolist() == [0, 1, 0, 1]
    pictures(tmp_path, f"train/{unicodedata.normalize('NFD', 'café')}/1.png")
    with pytest.raises(UserError, match="train has two folders called café, in two forms of Unicode"):
        read("folder", tmp_path)


def test_letters_may_be_classes_in_both_sizes(tmp_path):
    pictures(tmp_path, "train/a/1.png", "train/A/1.png", "test/a/1.png")
    assert read("folder", tmp_path).labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize("name", ["狗".encode("gbk"), b"caf\xe9", b"\x1b[31mred", b"two\nlines"])
def test_a_class_that_is_not_named_in_text_is_refused_at_the_door(tmp_path, name):
    pictures(tmp_path, "dog/1.png", os.path.join(os.fsdecode(name), "1.png"))
    with pytest.raises(UserError, match="is not UTF-8 text, so it can't name a class; rename it") as refused:
        read("folder", tmp_path)
    assert str(refused.value).isprintable()


def test_what_is_no_file_among_images_is_refused(tmp_path):
    pictures(tmp_path, "a/1.png", "b/1.png")
    os.mkfifo(tmp_path / "a" / "2.png")
    found = read("folder", tmp_path)
    with pytest.raises(UserError, match=r"2\.png can't be read as an image \(it is not a plain file\)"):
        everything(found)
