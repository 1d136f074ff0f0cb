"""Image files -> classes, from the command line."""

import csv
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from stages import plugins, train
from stages.artifacts import schemas
from stages.artifacts.store import Store
from stages.data.images import decoded
from stages.standalone.trained import clients
from tests.helpers.cli import run
from tests.helpers.toy_runs import settings
from tests.helpers.toy_store import write_toy_data

CODE = ["--models", "tests.helpers.toys:tiny", "--models", "tests.helpers.toys:narrow"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A store with a run, an exported client, and its test images as files."""
    folder = tmp_path_factory.mktemp("predict")
    store = Store(folder / "store")
    data = write_toy_data(store)
    train(store, "run", settings(algorithm="fedproto", lr=0.1, rounds=2), {})
    run(store.root, "export", "run", str(folder / "client"), "--client", "1", *CODE)
    images, labels = schemas.read_share(data, 1)["test"]
    (folder / "photos").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / "photos" / f"{number}.png")
    return folder, sorted(map(str, (folder / "photos").iterdir())), labels


def test_the_test_images_as_files_get_the_labels_that_the_run_recorded(place):
    folder, photos, labels = place
    found = json.loads(run(folder / "store", "predict", "run", *photos, "--client", "1", "--json", *CODE).stdout)
    told = [int(one["class"].removeprefix("class ")) for one in found["predictions"]]
    right = sum(a == labels[int(p.split("/")[-1].removesuffix(".png"))] for a, p in zip(told, photos, strict=True))
    recorded = Store(folder / "store").open("run").array("rounds/test_accuracy")[-1, 1]
    assert right / len(labels) == recorded and [one["image"] for one in found["predictions"]] == photos
    again = json.loads(run(folder / "store", "predict", str(folder / "client"), *photos, "--json", *CODE).stdout)
    assert again == found


def test_images_of_any_size_and_mode_are_read_as_prepare_reads_them(place, tmp_path):
    folder, photos, _ = place
    picture = Image.open(photos[0])
    files = {
        "large.jpg": picture.resize((90, 60)), "grey.png": picture.convert("L").resize((20, 33)), "p.gif": picture.convert("P"),
        "cmyk.jpg": picture.convert("CMYK"), "clear.webp": picture.convert("RGBA"),
    }  # fmt: skip
    for name, image in files.items():
        image.save(tmp_path / name)
    paths = [str(tmp_path / name) for name in files]
    lines = run(folder / "store", "predict", "run", *paths, "--client", "0", "--csv", "--top", "5", *CODE).stdout
    rows = list(csv.DictReader(io.StringIO(lines)))
    with plugins.only(CODE):
        client = clients(Store(folder / "store"), Store(folder / "store").open("run"))[0].client
    pixels = np.stack([decoded(tmp_path / name, 16).transpose(2, 0, 1) for name in files])
    wanted = client(torch.from_numpy(pixels) / 127.5 - 1).softmax(1)
    assert [row["image"] for row in rows] == [path for path in paths for _ in range(5)]
    for row in rows:
        value = wanted[paths.index(row["image"]), int(row["class"].removeprefix("class "))]
        assert float(row["probability"]) == pytest.approx(float(value), abs=1e-6)
    assert [row["rank"] for row in rows[:5]] == list("12345")


def test_a_table(place):
    folder, photos, _ = place
    shown = run(folder / "store", "predict", str(folder / "client"), photos[0], "--top", "2", *CODE).stdout
    assert "image" in shown and "2." in shown and shown.count("%") == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "{0}"], "run@v1 has 4 clients; choose one with --client"),
        (["run", "{0}", "--client", "4"], "has no client 4"),
        (["run", "none.png", "--client", "0"], "none.png can't be read as an image"),
        (["run", "{0}", "{config}", "--client", "0"], "config.json can't be read as an image (it is not an image)"),
        (["run", "{0}", "--client", "0", "--weights", "x"], "kept no weights of its x round"),
        (["{client}", "{0}", "--client", "0"], "leave out --client and --weights"),
        (["{photos}", "{0}"], "is not an exported client"),
        (["nope", "{0}"], "no run artifact named 'nope'"),
        (["run", "{0}", "--client", "0", "--json", "--csv"], "Choose one of --json and --csv"),
    ],
)
def test_bad_input_is_answered_in_a_sentence(place, arguments, sentence):
    folder, photos, _ = place
    words = {"client": folder / "client", "photos": folder / "photos", "config": folder / "client" / "config.json"}
    line = [argument.format(*photos, **words) for argument in arguments]
    done = run(folder / "store", "predict", *line, *CODE, code=2)
    assert sentence in " ".join(done.stderr.split()) and not done.stdout


def test_code_that_the_user_did_not_name_is_not_run(place):
    folder, photos, _ = place
    done = run(folder / "store", "predict", str(folder / "client"), photos[0], code=2)
    assert "to run it, add --models tests.helpers.toys:narrow" in " ".join(done.stderr.split())
