"""Archives of arrays under the names that people give them."""

import io
import os
import zipfile

import numpy as np
import pytest

from stages.errors import UserError
from tests.helpers.datasets import everything, read


def keras(tmp_path, **changes):
    """A valid file of 6 + 4 images of two classes, with what `changes` says put in or, if None, left out."""
    arrays = {
        "x_train": np.full((6, 8, 8, 3), 70, np.uint8), "y_train": np.array([0, 1] * 3),
        "x_test": np.full((4, 8, 8, 3), 90, np.uint8), "y_test": np.array([0, 1] * 2),
    }  # fmt: skip
    path = tmp_path / "own.npz"
    np.savez(path, **{name: values for name, values in {**arrays, **changes}.items() if values is not None})
    return path


def test_npz(tmp_path):
    found = read("npz", keras(tmp_path, y_train=np.array([[0], [1]] * 3, np.uint8)))
    assert found.train == 6 and found.labels.dtype == np.int64 and found.labels.tolist() == [0, 1] * 5
    assert everything(found)[:, 0, 0, 0].tolist() == [70] * 6 + [90] * 4


def test_npz_without_test(tmp_path):
    found = read("npz", keras(tmp_path, x_test=None, y_test=None))
    assert found.train == len(found.labels) == 6


def test_npz_of_floats(tmp_path):
    unit = np.linspace(0, 1, 6 * 64).reshape(6, 8, 8)
    for values in (unit, unit.astype(np.float32), unit * 255):
        found = read("npz", keras(tmp_path, x_train=values, x_test=None))
        assert (everything(found)[:6, 0] == np.rint(unit * 255)).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(y_train=np.array([0, 1])), "y_train of .* holds 2 labels for 6 images"),
        (dict(y_train=None), "has x_train but no labels for it; it holds x_train, x_test, y_test"),
        (dict(x_train=None), "has no x_train or train_images; it holds y_train, x_test, y_test"),
        (dict(y_train=np.array([1, 2] * 3), y_test=np.array([1, 2] * 2)), "2 numbers from 1 to 2; they must be 0..1"),
        (dict(y_train=np.array([-1, 0] * 3)), "from -1 to 1"),
        (dict(y_test=np.array([0, 3] * 2)), "3 numbers from 0 to 3; they must be 0..2 without gaps"),
        (dict(y_train=np.zeros(6, int), y_test=np.zeros(4, int)), "images of 1 class; a classifier needs at least 2"),
        (dict(y_train=np.array([0.0, 1.0] * 3)), "labels must be whole numbers"),
        (dict(x_train=np.full((6, 8, 8), np.nan)), "holds NaN or infinity"),
        (dict(x_train=np.full((6, 8, 8), 3.0), x_test=None), "goes from 3 to 3; the pixels must fill 0..255 or 0..1"),
        (dict(x_train=np.full((6, 8, 8), 16, np.uint8), x_test=None), "goes from 16 to 16; the pixels must fill"),
        (dict(x_train=np.full((6, 8, 8), 1.0)), r"x_train of .* goes from 1 to 1 while other arrays go to 90"),
        (dict(X_train=np.full((6, 8, 8), 90)), "has both x_train and X_train; keep one"),
        (dict(y_train=np.zeros((6, 3), int)), r"y_train of .* is int64 \[6, 3\]; labels must be"),
        (dict(x_train=np.linspace(-1, 1, 6 * 64).reshape(6, 8, 8)), "goes from -1 to 1"),
        (dict(x_train=np.full((6, 8, 8), 300)), "goes from 300 to 300"),
        (dict(x_train=np.zeros((6, 8, 8, 4), np.uint8)), r"x_train of .*own.npz of shape \[6, 8, 8, 4\]"),
        (dict(x_train=np.zeros((6, 0, 8), np.uint8)), "images must be numbers"),
        (dict(x_train=np.array([object()] * 6)), "can't be read as an .npz of plain arrays"),
    ],
)
def test_npz_that_can_not_be_used(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        read("npz", keras(tmp_path, **changes))


def test_damaged_npz(tmp_path):
    path = keras(tmp_path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:-30], b"", b"no archive", whole[:300] + b"\xff" + whole[301:]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"can't be read as an \.npz"):
            read("npz", path)


def archive(tmp_path, **arrays):
    np.savez(tmp_path / "own.npz", **arrays)
    return read("npz", tmp_path / "own.npz")


GREY = np.linspace(0, 255, 6 * 64).reshape(6, 8, 8).round().astype(np.uint8)
LABELS = np.array([0, 1, 2] * 2)


@pytest.mark.parametrize(
    ("images", "labels"),
    [("x_{}", "y_{}"), ("X_{}", "Y_{}"), ("{}_images", "{}_labels"), ("images_{}", "labels_{}"), ("{}_x", "{}_y")],
)
@pytest.mark.parametrize("validation", ["val", "valid", "validation"])
def test_names_of_the_neighbours(tmp_path, images, labels, validation):
    parts = {part: np.full((6, 8, 8), 100 + at, np.uint8) for at, part in enumerate(("test", "train", validation))}
    arrays = {images.format(part): values for part, values in parts.items()}
    found = archive(tmp_path, **arrays, **{labels.format(part): LABELS[:, None] for part in parts})
    assert found.train == 12 and everything(found)[:, 0, 0, 0].tolist() == [101] * 6 + [102] * 6 + [100] * 6
    assert found.notes == [f"{images.format(validation)} is added to the training images."]


def test_validation_images_stand_in_for_a_test_set(tmp_path):
    found = archive(tmp_path, x_train=GREY, y_train=LABELS, x_val=GREY[:3], y_val=LABELS[:3])
    assert found.train == 6 and len(found.labels) == 9 and "x_val is used as the test set" in found.notes[0]


def test_names_without_a_part_are_training(tmp_path):
    assert archive(tmp_path, X=GREY, y=LABELS).train == 6


def test_what_is_left_out_is_said(tmp_path):
    found = archive(tmp_path, x_train=GREY, y_train=LABELS, y_test=LABELS, ids=LABELS, **{"a\nb": LABELS})
    assert found.notes == [r"Not used from own.npz: y_test, ids, a\nb."]


def test_what_an_archive_of_other_names_holds_is_said(tmp_path):
    with pytest.raises(UserError, match="has no x_train or train_images; it holds features, targets"):
        archive(tmp_path, features=GREY, targets=LABELS)


def test_our_own_export_is_read_whole(tmp_path):
    from stages.artifacts.store import Store
    from stages.export import export
    from tests.helpers.toy_store import write_toy_data

    toy = write_toy_data(Store(tmp_path / "store"))
    export(toy, "npz", tmp_path / "out")
    found = read("npz", tmp_path / "out" / "data.npz")
    assert (np.bincount(found.labels) == toy.array("counts").sum(0)).all()


def test_axes_as_svhn_has_them(tmp_path):
    colour = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    found = archive(tmp_path, x_train=colour.transpose(1, 2, 3, 0), y_train=LABELS)
    assert (everything(found) == colour.transpose(0, 3, 1, 2)).all()


@pytest.mark.parametrize(
    "values",
    [
        GREY / 255 * 1.0000001,
        GREY / 255 - 1e-7,
        (GREY > 99).astype(np.uint8),
        GREY > 99,
        GREY * 1.0000001,
        GREY.astype(np.int64),
        (GREY / 255).astype(np.float16),
    ],
)
def test_pixels_fill_the_whole_range(tmp_path, values):
    found = everything(archive(tmp_path, x_train=values, y_train=LABELS))
    expected = (GREY > 99) * 255 if values.dtype == bool or (values.max() == 1 and values.dtype == np.uint8) else GREY
    assert (found[:, 0] == expected).all()


def test_the_range_is_that_of_all_parts(tmp_path):
    arrays = {"y_train": LABELS, "y_test": LABELS}
    for scale in (1, 1 / 255):
        dark = everything(archive(tmp_path, x_train=GREY * scale, x_test=GREY * scale // (8 * scale) * scale, **arrays))
        assert (dark[:6, 0] == GREY).all() and (dark[6:, 0] == GREY // 8).all()


def npy(descr="'|u1'", shape="(6, 8, 8)", content=bytes(384)):
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


@pytest.mark.parametrize(
    "content",
    [
        npy(shape="(" * 3000), npy(shape=f"({2**70},)"), npy(shape="(10**9, 10**9)"), npy(shape="(1000000000000,)"),
        npy(shape="(-6, -64)"), npy(shape="None"), npy(descr="'O'"), npy(descr="'<f99'"), npy(descr="[" * 9000), b"", b"\x93NUMPY",
        b"\x93NUMPY\x03\x00\xff\xff\xff\xff", npy(content=bytes(383)), npy(content=bytes(10**6)),
    ],
)  # fmt: skip
def test_a_header_that_lies_is_refused_before_it_costs_memory(tmp_path, content):
    path = tmp_path / "own.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x_train.npy", content)
    with pytest.raises(UserError, match=r"own\.npz can't be read as an \.npz of plain arrays"):
        read("npz", path)


def test_archives_of_other_kinds(tmp_path):
    path = tmp_path / "own.npz"
    np.save(tmp_path / "one.npy", GREY)
    path.write_bytes((tmp_path / "one.npy").read_bytes())
    with pytest.raises(UserError, match=r"it is an \.npy file, one array without a name"):
        read("npz", path)
    whole = io.BytesIO()
    np.savez_compressed(whole, x_train=GREY, y_train=LABELS)
    for method in (1, 6, 98):  # of compression, unknown here
        raw = bytearray(whole.getvalue())
        for start in range(len(raw) - 4):
            if raw[start : start + 4] in (b"PK\1\2", b"PK\3\4"):
                raw[start + (10 if raw[start + 2] == 1 else 8)] = method
        path.write_bytes(raw)
        with pytest.raises(UserError, match=r"own\.npz can't be read"):
            read("npz", path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match="it is not a plain file"):
        read("npz", path)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match="it is not a plain file"):
        read("npz", path)
