"""Clients that stand alone: what is in their folder labels images as their run did."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from fedktl_cli import export as export_command
from stages import algorithms
from stages.artifacts import schemas
from stages.artifacts.store import Store
from stages.errors import UserError
from stages.models import pretrained, split, zoo
from stages.standalone import exporting, folder
from stages.standalone.client import Client, Description, scores
from stages.standalone.exporting import export_clients
from tests.helpers.toy_store import TEST

CODE = ["tests.helpers.toys:tiny", "tests.helpers.toys:narrow"]
TRACED = ("fedktl", "fedproto", "fedmrl", "fedavg", "lg-fedavg")  # the others predict as one of these
SLOW = [pytest.param(name, marks=() if name in TRACED else pytest.mark.slow) for name in algorithms.NAMES]


def recorded(run, client: int, evaluation: int = -1) -> int:
    return round(run.array("rounds/test_accuracy")[evaluation, client] * TEST)


def images_of(store, run, client: int):
    """Test images float32 in -1..1, and their labels."""
    images, labels = schemas.read_share(store.open(run.settings["data"], "data"), client)["test"]
    return torch.from_numpy(images) / 127.5 - 1, torch.from_numpy(labels)


@pytest.mark.parametrize("name", algorithms.NAMES)
def test_a_client_of_every_algorithm_is_read_again_and_labels_as_recorded(runs, tmp_path, name):
    store, run = runs(name)
    number = 0 if name == "ktl" else 1
    (one,) = export_clients(store, run, tmp_path / "out", number)
    x, labels = images_of(store, run, number)
    with torch.no_grad():
        right = int((folder.read(one.folder, CODE)(x).argmax(1) == labels).sum())
    assert right == one.right == one.recorded == recorded(run, number)


def test_all_clients_have_a_folder_each(runs, tmp_path):
    store, run = runs("fedproto")
    done = export_clients(store, run, tmp_path / "out")
    assert [one.folder for one in done] == sorted((tmp_path / "out").iterdir()) and len(done) == 4
    assert [one.right for one in done] == [recorded(run, client) for client in range(4)]


@pytest.mark.parametrize("name", SLOW)
def test_a_program_labels_as_recorded_whatever_the_number_of_images(runs, tmp_path, name):
    store, run = runs(name)
    (one,) = export_clients(store, run, tmp_path / "out", client=0, formats=["pt2"])
    x, labels = images_of(store, run, 0)
    files = {"config.json": ""}
    program = torch.export.load(tmp_path / "out" / "model.pt2", extra_files=files).module()
    found = torch.cat([program(x[:1]), program(x[1:4]), program(x[4:])])
    assert int((found.argmax(1) == labels).sum()) == one.recorded == recorded(run, 0)
    assert files["config.json"] == (tmp_path / "out" / "config.json").read_text()


RULES = {  # labels, from a file's tensors t, its client's model and images x, without the algorithm
    "fedktl": lambda t, model, x: F.cosine_similarity(model(x)[:, None], t["shared.etf"][None], dim=2).argmax(1),
    "fedproto": lambda t, model, x: t["download.labels"][
        torch.cdist(model.base(x), t["download.prototypes"]).argmin(1)
    ],
    "lg-fedavg": lambda t, model, x: F.linear(model.base(x), t["download.head.weight"], t["download.head.bias"]).argmax(
        1
    ),
    "local": lambda t, model, x: model(x).argmax(1),
}


@pytest.mark.parametrize("name", RULES)
def test_the_file_says_all_to_who_does_not_have_the_program(runs, tmp_path, name):
    store, run = runs(name)
    (one,) = export_clients(store, run, tmp_path / "out", client=1)
    values = load_file(tmp_path / "out" / "model.safetensors")
    facts = json.loads((tmp_path / "out" / "config.json").read_text())
    model = split.build(facts["architecture"], (3, 16, 16), len(facts["class_names"]), facts["feature_dim"], 0).eval()
    model.load_state_dict({k: v for k, v in values.items() if k in model.state_dict()}, strict=False)
    x, labels = images_of(store, run, 1)
    with torch.no_grad():
        assert int((RULES[name](values, model, x) == labels).sum()) == recorded(run, 1) == one.right
    about = facts["about"]
    assert about["accuracy"] == recorded(run, 1) / TEST and about["test_images"] == TEST and about["client"] == 1
    assert about["run"] == run.identity and about["data"] == "toy@v1" and about["round"] == 2
    assert (
        set(about["tensors"])
        == {
            "fedktl": {"base", "head", "shared.etf"},
            "fedproto": {"base", "download.labels", "download.prototypes"},
            "lg-fedavg": {"base", "download.head"},
            "local": {"base", "head"},
        }[name]
    )


def test_the_weights_of_the_selected_round(tmp_path, toy_store):
    from stages import train
    from tests.helpers.toy_runs import settings

    (run,) = train(toy_store, "run", settings(algorithm="fedproto", lr=0.1, rounds=4), {})
    assert "selected/checkpoint" in run
    best = int(json_of(toy_store, run, tmp_path / "selected", "selected")["about"]["round"])
    assert 0 < best < 4
    assert json_of(toy_store, run, tmp_path / "last", None)["about"]["round"] == 4
    one, other = (load_file(tmp_path / part / "model.safetensors") for part in ("selected", "last"))
    assert not one["download.prototypes"].equal(other["download.prototypes"])


def json_of(store, run, out, weights):
    (one,) = export_clients(store, run, out, client=0, weights=weights)
    facts = json.loads((out / "config.json").read_text())
    at = run.array("rounds/evaluated").tolist().index(facts["about"]["round"])
    assert one.right == recorded(run, 0, at)
    return facts


def test_a_client_that_does_not_label_as_recorded_is_not_exported(runs, tmp_path, monkeypatch):
    store, run = runs("local")
    right = exporting.FORMATS["safetensors"]

    def spoilt(client, path, description):
        right.write(client, path, description)
        values = load_file(path)
        save_file({name: -value for name, value in values.items()}, path)

    monkeypatch.setitem(exporting.FORMATS, "safetensors", exporting.Format(right.file, spoilt, right.read))
    with pytest.raises(UserError, match=r"model.safetensors gets \d of its 10 test images right, and local@v1"):
        export_clients(store, run, tmp_path / "out", client=0)
    assert not list(tmp_path.iterdir())


def test_the_command_completes_every_format():
    assert tuple(exporting.FORMATS) == export_command.FORMATS


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"client": 4}, "has no client 4; its clients are 0 to 3"),
        ({"client": -1}, "has no client -1"),
        ({"weights": "best"}, "kept no weights of its best round"),
        ({"formats": ["pickle"]}, "no format of a client named 'pickle'"),
        ({"formats": ["onnx"]}, "pip install 'fedktl"),
    ],
)
def test_what_can_not_be_exported_leaves_no_folder(runs, tmp_path, monkeypatch, changes, sentence):
    store, run = runs("local")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=sentence):
        export_clients(store, run, tmp_path / "out", **{"client": 0, **changes})
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_and_data_that_are_gone(runs, tmp_path):
    store, run = runs("local")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(UserError, match="full is not an empty folder"):
        export_clients(store, run, tmp_path / "full", client=0)
    shutil.copytree(store.root / "runs", tmp_path / "elsewhere" / "runs")
    elsewhere = Store(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="no data artifact"):
        export_clients(elsewhere, elsewhere.open("local"), tmp_path / "out", client=0)


def test_an_exported_base_starts_other_models(runs, tmp_path):
    for name in ("fedktl", "fedavg", "lg-fedavg"):
        export_clients(*runs(name), tmp_path / name, client=1)
        weights = pretrained.opened(tmp_path / name / "model.safetensors")
        model = split.build("tests.helpers.toys:narrow", (3, 16, 16), 5, 16, 0, {"tests.helpers.toys:narrow": weights})
        (values,) = [v for k, v in weights.tensors.items() if k.endswith("base.0.weight")]
        assert model.base[0].weight.equal(values)


def test_onnx(runs, tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    store, run = runs("fedktl")
    (one,) = export_clients(store, run, tmp_path / "out", client=1, formats=["onnx"])
    x, labels = images_of(store, run, 1)
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    (found,) = session.run(["scores"], {"images": x.numpy()})
    assert int((torch.from_numpy(found).argmax(1) == labels).sum()) == one.recorded == recorded(run, 1)


@pytest.mark.slow
def test_a_program_needs_nothing_but_pytorch(runs, tmp_path):
    store, run = runs("fedktl")
    export_clients(store, run, tmp_path / "out", client=0, formats=["pt2"])
    x, _ = images_of(store, run, 0)
    torch.save(x, tmp_path / "x.pt")
    code = (
        "import sys, torch; program = torch.export.load('out/model.pt2').module(); "
        "print(program(torch.load('x.pt')).argmax(1).tolist(), [m for m in sys.modules if m.startswith('stages')])"
    )
    done = subprocess.run([sys.executable, "-Ic", code], cwd=tmp_path, capture_output=True, text=True)
    client = folder.read(export_clients(store, run, tmp_path / "own", client=0)[0].folder, CODE)
    assert done.stdout.split("] [")[0] + "]" == str(client(x).argmax(1).tolist()), done.stderr


ARCHITECTURES = sorted({part for parts in zoo.GROUPS.values() for part in parts})
QUICK = ("FedAvgCNN", "resnet4")


@pytest.mark.parametrize(
    "architecture", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ARCHITECTURES]
)
def test_every_architecture_stands_alone(tmp_path, architecture):
    """Its scores, after it was written and read, are the same to the last bit; those of its program nearly so."""
    description = Description(architecture=architecture, class_names=tuple("abcde"))
    model = split.build(architecture, (3, 32, 32), 5, 512, 1)
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.train()(images / 127.5 - 1)  # so that BatchNorm has statistics
    client = Client(description, {}, model.state_dict())
    wanted = scores(client, images)
    for name in ("safetensors", "pt2"):
        form = exporting.FORMATS[name]
        text = folder.config(client, {})
        (tmp_path / "config.json").write_text(text)
        form.write(client, tmp_path / form.file, text)
        found = scores(form.read(tmp_path / form.file), images)
        torch.testing.assert_close(found, wanted, rtol=0, atol=0 if name == "safetensors" else 1e-5)
