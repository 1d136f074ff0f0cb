"""Artifacts for other programs."""

import numpy as np
import pytest

from stages.data import datasets
from stages.errors import UserError
from stages.export import WRITERS, export
from stages.settings import Prepare
from tests.helpers.archive import CLASS_NAMES, ramp
from tests.helpers.damage import flip


def test_data_as_npz(archived, tmp_path):
    (path,) = export(archived["data"], "npz", tmp_path / "out")
    with np.load(path, allow_pickle=False) as arrays:
        assert (arrays["x_train"] == ramp(4, 3, 4, 4).transpose(0, 2, 3, 1)).all()
        assert arrays["y_train"].tolist() == [0, 0, 2, 2] and arrays["offsets_train"].tolist() == [0, 2, 4]
        assert arrays["x_validation"].shape == (1, 4, 4, 3) and arrays["y_test"].tolist() == [0, 1]
        assert arrays["counts"].tolist() == [[3, 1, 0], [0, 1, 2]] and arrays["class_names"].tolist() == CLASS_NAMES


def test_the_npz_is_read_as_a_data_set(archived, tmp_path):
    (path,) = export(archived["data"], "npz", tmp_path / "out")
    dataset = datasets.read(Prepare(dataset="npz", source=str(path), image_size=8))
    assert dataset.labels.tolist() == [0, 0, 2, 2, 1, 0, 1]  # validation images are not lost


def test_data_as_pfllib(archived, tmp_path):
    paths = export(archived["data"], "pfllib", tmp_path / "new" / "out")
    names = [str(path.relative_to(tmp_path / "new" / "out")) for path in paths]
    assert names == ["config.json", "test/0.npz", "test/1.npz", "train/0.npz", "train/1.npz"]


def test_latents_as_npz(archived, tmp_path):
    (path,) = export(archived["latents"], "npz", tmp_path / "out")
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays["latents"].tolist() == [[0, 0.25], [0.5, 0.75], [1, 1.25]]
        assert (arrays["images"] == ramp(3, 3, 4, 4)).all()


def test_the_metrics_of_a_run_as_npz(archived, tmp_path):
    (path,) = export(archived["run"], "npz", tmp_path / "out")
    with np.load(path, allow_pickle=False) as arrays:
        groups = {name.split("/")[0] for name in arrays.files}
        assert groups == {"rounds", "seconds", "client_metrics", "server_metrics", "pairs"}
        assert arrays["rounds/upload_floats"].tolist() == [[6, 6], [6, 0]]
        assert arrays["seconds/local training"].tolist() == [1.5, 2]


@pytest.mark.parametrize(
    ("kind", "format", "client", "sentence"),
    [
        ("data", "safetensors", None, "exported as npz or pfllib or share, not as 'safetensors'"),
        ("latents", "pfllib", None, "exported as npz, not as 'pfllib'"),
        ("run", "safetensors", None, "exported as npz, not as 'safetensors'"),
        ("run", "", None, "exported as npz"),
        ("report", "npz", None, "A report can't be exported"),
        ("run", "npz", 0, "its model by `fedktl export`"),
        ("data", "pfllib", 0, "A single client's share is exported from data"),
        ("data", "share", None, "name it with `client`"),
        ("data", None, 9, "has no client 9 to export"),
    ],
)
def test_what_can_not_be_exported_leaves_no_folder(archived, tmp_path, kind, format, client, sentence):
    with pytest.raises(UserError, match=sentence):
        export(archived[kind], format, tmp_path / "out", client)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("kind", "format"), WRITERS)
def test_a_folder_in_use_is_left_alone(archived, tmp_path, kind, format):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    client = 0 if format == "share" else None
    for folder in ("file", "full"):
        with pytest.raises(UserError, match=f"{folder} is not an empty folder"):
            export(archived[kind], format, tmp_path / folder, client)
    with pytest.raises(UserError, match="can't be written"):
        export(archived[kind], format, tmp_path / "file" / "below", client)
    assert (tmp_path / "file").read_text() == (tmp_path / "full" / "file").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert export(archived[kind], format, tmp_path / "empty", client)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "full"]


def test_a_damaged_artifact_leaves_no_folder(copied, tmp_path):
    run = copied.open("fedktl-shapes-s7")
    flip(next(run.path.glob("rounds/joined/c/*/*")), 3)
    with pytest.raises(UserError, match="rounds/joined can't be read"):
        export(run, "npz", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
