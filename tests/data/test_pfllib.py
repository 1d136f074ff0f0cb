import json
import os
import pickle
import zipfile

import numpy as np
import pytest
from numpy.lib import format as npy

from stages.artifacts.schemas import read
from stages.artifacts.store import Store
from stages.data import pfllib
from stages.data.counts import CONFIG_KEYS
from stages.errors import UserError
from stages.prepare import prepare
from stages.settings import Prepare


def normalised(images):
    return (images.astype(np.float32) / 255 - 0.5) / 0.5


def write_client(path, x, y):
    """A client's file just as PFLlib writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez_compressed(file, data={"x": x, "y": y})


@pytest.fixture
def partition(tmp_path):
    """Two clients, two classes, every byte value from 0 to 255; returns (folder, images and labels by file)."""
    rng, root, files = np.random.default_rng(0), tmp_path / "Mini", {}
    for part, sizes in (("train", (6, 9)), ("test", (2, 3))):
        for client, n in enumerate(sizes):
            images = rng.integers(0, 256, (n, 3, 8, 8), dtype=np.uint8)
            labels = np.arange(n) % 2
            files[f"{part}/{client}"] = images, labels
            write_client(root / part / f"{client}.npz", normalised(images), labels)
    (root / "config.json").write_text(json.dumps({"num_clients": 2, "num_classes": 2, "alpha": 0.1}))
    return root, files


def prepared(tmp_path, root, **more):
    chosen = {"dataset": "pfllib", "source": str(root), "image_size": 8, "validation_fraction": 0.0, **more}
    return read(prepare(Store(tmp_path / "store"), "mini", Prepare(**chosen)))


def test_clients_are_kept_image_by_image_in_their_order(tmp_path, partition):
    root, files = partition
    data = prepared(tmp_path, root, clients=9, partition="iid")  # neither is asked
    assert data.clients == data.artifact.settings["clients"] == 2
    assert data.counts.tolist() == [[4, 4], [7, 5]]
    assert len(data.validation.labels) == 0
    for name, (images, labels) in files.items():
        part, client = name.split("/")
        split = getattr(data, part)
        assert (split.images[split.rows(int(client))] == images).all()
        assert (split.labels[split.rows(int(client))] == labels).all()


def test_validation_is_cut_from_train_alone(tmp_path, partition):
    data = prepared(tmp_path, partition[0], validation_fraction=0.3)
    assert np.diff(data.train.offsets).tolist() == [4, 6]  # of 6 and 9: 1.8 and 2.7, rounded up
    assert np.diff(data.validation.offsets).tolist() == [2, 3]
    assert np.diff(data.test.offsets).tolist() == [2, 3]


def test_grey_images(tmp_path, partition):
    root, files = partition
    for name, (images, labels) in files.items():
        write_client(root / f"{name}.npz", normalised(images[:, :1]), labels)
    data = prepared(tmp_path, root)
    assert (data.test.images[0:2] == files["test/0"][0][:, :1]).all()


@pytest.mark.parametrize("validation", [0.0, 0.3])
def test_export_is_read_by_pfllib_and_read_back(tmp_path, partition, validation):
    data = prepared(tmp_path, partition[0], validation_fraction=validation)
    pfllib.export_pfllib(data, tmp_path / "out")
    with (tmp_path / "out" / "train" / "1.npz").open("rb") as file:
        content = np.load(file, allow_pickle=True)["data"].tolist()  # PFLlib's way
    assert content["x"].dtype == np.float32 and content["x"].shape == (9, 3, 8, 8) and content["y"].dtype == np.int64
    assert content["x"].min() >= -1 and content["x"].max() <= 1
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["num_clients"] == config["num_classes"] == 2
    assert config["Size of samples for labels in clients"] == [[[0, 4], [1, 4]], [[0, 7], [1, 5]]]
    again = prepared(tmp_path, tmp_path / "out")
    assert (again.counts == data.counts).all() and (again.test.images == data.test.images).all()
    assert len(again.train.labels) == len(data.train.labels) + len(data.validation.labels)


def test_export_names_the_partition_as_pfllib_does(tmp_path):
    data = read(prepare(Store(tmp_path), "digits", Prepare(image_size=8, clients=3, beta=0.5)))
    pfllib.export_pfllib(data, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["partition"], config["non_iid"], config["alpha"]) == ("dir", True, 0.5)
    assert set(config) == set(CONFIG_KEYS)
    counts = prepare(
        Store(tmp_path), "again",
        Prepare(image_size=8, partition="counts", counts=str(tmp_path / "out" / "config.json")),
    )  # fmt: skip
    assert (read(counts).counts == data.counts).all()


def test_export_overwrites_nothing(tmp_path, partition):
    data = prepared(tmp_path, partition[0])
    with pytest.raises(UserError, match="is not empty; give a new folder"):
        pfllib.export_pfllib(data, partition[0])
    with pytest.raises(UserError, match="can't be written"):
        pfllib.export_pfllib(data, partition[0] / "config.json")


# Files that can not be used


def write_pickle(path, payload, header=None):
    """An .npz whose `data` is an object array with this pickle."""
    with zipfile.ZipFile(path, "w") as archive, archive.open("data.npy", "w") as file:
        npy.write_array_header_1_0(file, header or {"descr": "|O", "fortran_order": False, "shape": ()})
        file.write(payload)


class Evil:
    def __init__(self, call, *arguments):
        self.reduced = call, arguments

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
@pytest.mark.parametrize(
    ("call", "named"), [(os.mkdir, "mkdir"), (exec, "exec"), (getattr, "getattr"), (np.load, "load")]
)
def test_a_malicious_pickle_runs_nothing(tmp_path, partition, protocol, call, named):
    target = tmp_path / "harm"
    evil = Evil(call, f"import os; os.mkdir({str(target)!r})" if call is exec else str(target))
    for harmful in (evil, [evil], {"x": 1, "y": evil}, np.array({"x": np.zeros(3), "y": evil}, dtype=object)):
        if isinstance(harmful, np.ndarray) and protocol not in (3, 4):
            continue  # NumPy writes arrays with these two
        write_pickle(partition[0] / "train" / "0.npz", pickle.dumps(harmful, protocol))
        with pytest.raises(UserError, match=rf"0\.npz can't be read .*{named}.*no code in it was run"):
            prepared(tmp_path, partition[0])
        assert not target.exists()


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"junk", pickle.dumps(7), pickle.dumps({"x": 1}), pickle.dumps((0, [])),
        b"\x80\x04r\xff\xff\xff\x7f.",  # a memo of 2^31 entries
        b"\x80\x04\x8e" + (1 << 62).to_bytes(8, "little") + b".",  # bytes of 4 EiB
        b"\x80\x04cnumpy\nndarray\n(K\x05tb.",  # state for a class
        pickle.dumps(np.array(7, dtype=object)), pickle.dumps(np.array({"x": 1, "y": 2}, dtype=object)),
        pickle.dumps(np.array({"x": np.array(["a"]), "y": np.arange(3)}, dtype=object)),
    ],
)  # fmt: skip
def test_a_pickle_that_is_no_client(tmp_path, partition, payload):
    write_pickle(partition[0] / "train" / "0.npz", payload)
    with pytest.raises(UserError, match=r"0\.npz"):
        prepared(tmp_path, partition[0])


def test_an_array_that_lies_about_its_size(tmp_path, partition):
    honest = pickle.dumps(np.array({"x": np.zeros(300, np.uint8), "y": np.zeros(3, np.int64)}, dtype=object), 3)
    lying = honest.replace(b"M\x2c\x01", b"J\xff\xff\xff\x7f")  # 300 becomes 2^31 - 1
    assert lying != honest
    write_pickle(partition[0] / "train" / "0.npz", lying)
    with pytest.raises(UserError, match=r"'x' in .* is not an array of numbers"):
        prepared(tmp_path, partition[0])


def test_a_plain_array_is_no_client(tmp_path, partition):
    np.savez(partition[0] / "train" / "0.npz", data=np.arange(4))
    with pytest.raises(UserError, match="not one object"):
        prepared(tmp_path, partition[0])


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.full((4, 3, 8, 8), np.nan, np.float32), np.arange(4) % 2, "go from nan to nan; they must be normalised"),
        (np.full((4, 3, 8, 8), 5, np.float32), np.arange(4) % 2, "go from 5 to 5; they must be normalised to -1..1"),
        (np.zeros((4, 3, 8, 8), np.float32), np.arange(3) % 2, "holds 4 images but 3 labels"),
        (np.zeros((4, 3, 8, 8), np.float32), np.array([0, 1, 2, 0]), "has the label 2; its labels must be in 0..1"),
        (np.zeros((4, 3, 8, 8), np.float32), np.zeros(4), "not images and their labels"),
        (np.zeros((4, 20), np.float32), np.arange(4) % 2, "not images and their labels"),
        (
            np.zeros((0, 3, 8, 8), np.float32),
            np.zeros(0, np.int64),
            "Client 0 has no training images, of 2 in all",
        ),
    ],
)
def test_contents_that_can_not_be_used(tmp_path, partition, x, y, message):
    write_client(partition[0] / "train" / "0.npz", x, y)
    with pytest.raises(UserError, match=message):
        prepared(tmp_path, partition[0])


def test_images_that_were_not_normalised(tmp_path, partition):
    root, files = partition
    for name, (images, labels) in files.items():
        write_client(root / f"{name}.npz", images.astype(np.float32) / 255, labels)
    with pytest.raises(UserError, match=r"No pixel in .* is below 0; images must be normalised to -1\.\.1"):
        prepared(tmp_path, root)


def test_files_that_are_damaged_or_missing(tmp_path, partition):
    root, _ = partition
    path = root / "test" / "1.npz"
    whole = path.read_bytes()
    for content in (whole[:-40], whole[: len(whole) // 2], b""):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"test/1\.npz can't be read"):
            prepared(tmp_path, root)
    path.unlink()
    with pytest.raises(UserError, match=r"test/1\.npz can't be read"):
        prepared(tmp_path, root)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, r"config\.json can't be read"),
        ({"num_classes": 2}, "has num_clients None; it must be a whole number above 0"),
        ({"num_clients": 2, "num_classes": [0] * 999}, r"has num_classes \[0, 0.*\.\.\.; it must"),
        ({"num_clients": "2", "num_classes": 2}, "has num_clients '2'"),
    ],
)
def test_configs_that_can_not_be_used(tmp_path, partition, config, message):
    path = partition[0] / "config.json"
    path.unlink() if config is None else path.write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
        prepared(tmp_path, partition[0])


def test_configs_of_forks_and_of_old(tmp_path, partition):
    path = partition[0] / "config.json"
    path.write_text(json.dumps({"num_clients": 2, "class_subset_ratio": 0.5, "D_alpha": 1}))
    found, shares = pfllib.read(Prepare(dataset="pfllib", source=str(partition[0])))
    assert found.class_names == ["0", "1"] and len(shares) == 2
    assert found.notes == ["Not used from config.json: class_subset_ratio, D_alpha."]


@pytest.mark.parametrize("kind", [int, np.int64, np.uint8])
def test_labels_in_a_list(tmp_path, partition, kind):
    root, files = partition
    images, labels = files["train/0"]
    write_client(root / "train" / "0.npz", normalised(images), [kind(label) for label in labels])
    data = prepared(tmp_path, root)
    assert (data.train.labels[data.train.rows(0)] == labels).all()
    write_client(root / "train" / "0.npz", normalised(images), ["a"] * len(labels))
    with pytest.raises(UserError, match=r"'y' in .* is not an array of numbers"):
        prepared(tmp_path, root)


def test_a_pipe_in_the_place_of_a_file(tmp_path, partition):
    for name in ("config.json", "train/1.npz"):
        path = partition[0] / name
        path.rename(tmp_path / "aside")
        os.mkfifo(path)
        with pytest.raises(UserError, match="it is not a plain file"):
            prepared(tmp_path, partition[0])
        (tmp_path / "aside").rename(path)
