"""Artifacts for other programs."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file
from torch.nn import functional as F

from stages import algorithms, train
from stages.artifacts import schemas
from stages.artifacts.store import Store
from stages.data import datasets
from stages.errors import UserError
from stages.export import WRITERS, export
from stages.models import split
from stages.settings import Prepare
from tests.helpers.archive import CLASS_NAMES, ramp
from tests.helpers.damage import flip
from tests.helpers.toy_runs import settings
from tests.helpers.toy_store import write_toy_data, write_toy_latents


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


def test_the_models_of_a_run_as_safetensors(archived, tmp_path):
    paths = export(archived["run"], "safetensors", tmp_path / "out")
    assert [path.name for path in paths] == ["client-000.safetensors", "client-001.safetensors"]
    assert load_file(paths[1])["weight"].tolist() == [[1, 1, 1], [1, 1, 1]]
    (one,) = export(archived["run"], "safetensors", tmp_path / "one", client=1)
    assert one.read_bytes() == paths[1].read_bytes()
    with safe_open(one, "numpy") as file:
        facts = json.loads(file.metadata()["fedktl"])
        assert facts["algorithm"] == "fedktl" and "an earlier fedktl made it" in facts["label"]


RULES = {  # labels, from a file's tensors t, its model's base and head, and images x
    "largest of head(base(x))": lambda t, base, head, x: head(base(x)).argmax(1),
    "cosine": lambda t, base, head, x: F.cosine_similarity(head(base(x))[:, None], t["etf"][None], dim=2).argmax(1),
    "nearest": lambda t, base, head, x: t["labels"][torch.cdist(base(x), t["prototypes"]).argmin(1)],
    "projection": lambda t, base, head, x: head(
        torch.cat([auxiliary(t, base, x), base(x)], 1) @ t["projection.weight"].T + t["projection.bias"]
    ).argmax(1),
}


def auxiliary(tensors, base, x):
    model = split.build("tests.helpers.toys:tiny", (3, 16, 16), 5, 16, seed=9)
    model.load_state_dict({k.removeprefix("auxiliary."): v for k, v in tensors.items() if k.startswith("auxiliary.")})
    return model.base(x)


KINDS = ("fedktl", "fedproto", "lg-fedavg", "fedmrl")  # the others label as one of these
NAMES = [pytest.param(name, marks=() if name in KINDS else pytest.mark.slow) for name in algorithms.NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_an_exported_model_labels_images_as_its_run_did_by_the_rule_it_states(tmp_path, name):
    """The labels come from what is in the file alone, and are right as often as the run recorded."""
    store = Store(tmp_path / "store")
    data = schemas.read(write_toy_data(store, clients=1 if name == "ktl" else 4))
    write_toy_latents(store)
    hyper = {
        key: value
        for key, value in {"server_epochs": 2, "auxiliary": "tests.helpers.toys:tiny", "sub_feature_dim": 16}.items()
        if hasattr(algorithms.get(name).Hyper, key)
    }
    (run,) = train(store, "run", settings(algorithm=name, lr=0.1, rounds=1), {name: hyper})
    recorded = run.array("rounds/test_accuracy")[-1]
    for client, path in enumerate(export(run, "safetensors", tmp_path / "out")):
        with safe_open(path, "pt") as file:
            facts, tensors = json.loads(file.metadata()["fedktl"]), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        model = split.build(facts["architecture"], (3, 16, 16), 5, facts["feature_dim"], seed=8).eval()
        model.load_state_dict({key: tensors[key] for key in model.state_dict()})
        (rule,) = (rule for word, rule in RULES.items() if word in facts["label"])
        rows = data.test.rows(client)
        x = torch.from_numpy(data.test.images[rows]) / 127.5 - 1
        with torch.no_grad():
            labels = rule(tensors, model.base, model.head, x)
        assert (labels.numpy() == data.test.labels[rows]).mean() == pytest.approx(recorded[client])


@pytest.mark.parametrize(
    ("kind", "format", "client", "sentence"),
    [
        ("data", "safetensors", None, "exported as npz or pfllib or share, not as 'safetensors'"),
        ("latents", "pfllib", None, "exported as npz, not as 'pfllib'"),
        ("run", "pfllib", None, "exported as npz or safetensors, not as 'pfllib'"),
        ("run", "", None, "exported as npz or safetensors"),
        ("report", "npz", None, "A report can't be exported"),
        ("run", "safetensors", 2, "has no client 2; its clients are 0 to 1"),
        ("run", "safetensors", -1, "has no client -1"),
        ("run", "npz", 0, "A single client can be exported"),
        ("data", "pfllib", 0, "A single client can be exported"),
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
    flip(next(run.path.glob("clients/001/c/*")), 3)
    with pytest.raises(UserError, match="clients/001 can't be read"):
        export(run, "safetensors", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
