"""Artifacts of every schema version so far open for ever and read back the numbers they were written with."""

import re
from pathlib import Path

import numpy as np
import pytest
import zarr
from safetensors.numpy import load

from stages.artifacts import schemas, seal
from stages.artifacts.lineage import lineage
from stages.artifacts.store import SCHEMAS, Store
from tests.helpers.archive import CLASS_NAMES, PAGE, ROWS, ramp

ARCHIVES = sorted((Path(__file__).parent / "archive").glob("schema-*"))


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name)
def store(request):
    return Store(request.param)


def test_there_is_an_archive_of_the_newest_schema():
    assert f"schema-{max(SCHEMAS.values())}" in [path.name for path in ARCHIVES]


def test_data(store):
    data = schemas.read(store.open("shapes@v1", "data", thorough=True))
    assert (data.clients, data.classes, data.class_names) == (2, 3, CLASS_NAMES)
    assert data.counts.tolist() == [[3, 1, 0], [0, 1, 2]] and data.artifact.attributes["seed"] == 7
    assert (data.train.images == ramp(4, 3, 4, 4)).all() and data.train.labels.tolist() == [0, 0, 2, 2]
    assert data.test.images[1, 0, 0].tolist() == [48, 49, 50, 51] and data.test.labels.tolist() == [0, 1]
    assert data.train.rows(1) == slice(2, 4) and data.validation.rows(1) == slice(1, 1)


def test_latents(store):
    bank = schemas.read(store.open("bank@v1", "latents", thorough=True))
    assert bank.latents.dtype == np.float32 and bank.latents.tolist() == [[0, 0.25], [0.5, 0.75], [1, 1.25]]
    assert (bank.images == ramp(3, 3, 4, 4)).all() and bank.generator["family"] == "builtin"


def test_run(store):
    run = schemas.read(store.open("fedktl-shapes-s7@v1", "run", thorough=True))
    assert run.clients == 2 and run.evaluated.tolist() == [0, 1, 2]
    assert run.test_accuracy.tolist() == [[1, 0], [1, 1], [0.25, 1]] and run.test_samples.tolist() == [1, 1]
    assert np.isnan(run.validation_accuracy[:, 1]).all() and run.validation_samples.tolist() == [1, 0]
    assert run.uploaded.tolist() == [[True, True], [True, False]] and run.joined.all()
    assert run.upload_floats.tolist() == [[6, 6], [6, 0]] and run.download_bytes.tolist() == [[0, 0], [624, 624]]
    assert run.peak_memory.tolist() == [2**30, 2**31] and run.seconds["local training"].tolist() == [1.5, 2]
    assert run.client_metrics["loss"][1, 0] == 3 and np.isnan(run.client_metrics["loss"][1, 1])
    assert {name: values.tolist() for name, values in run.server_metrics.items()} == {"mmd": [2, 1], "mse": [0.5, 0.25]}
    assert run.pair_rounds.tolist() == [1, 2] and run.pair_labels.tolist() == [[0, 1, 2], [0, 2, -1]]
    assert run.pair_images.shape == (2, 3, 3, 4, 4) and run.pair_images[0, 1, 0, 0, 0] == 48
    assert run.centroids.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert run.facts["hyper"] == {"mu": 50.0, "lambda": 1.0} and run.artifact.settings["lr"] == 0.01
    weights = load(run.artifact.array("clients/001").tobytes())
    assert weights["weight"].tolist() == [[1, 1, 1], [1, 1, 1]]
    assert load(run.artifact.array("checkpoint").tobytes())["rounds"] == 2


def test_report(store):
    report = schemas.read(store.open("report@v1", "report", thorough=True))
    assert report.rows == ROWS and report.page == PAGE
    assert report.artifact.array("figures/accuracy").tobytes() == b"<svg/>"


def test_the_format_page_lists_every_array_with_its_type(store):
    sections = re.split(r"^## ", (Path(seal.__file__).parent / "FORMAT.md").read_text(), flags=re.M)
    pages = {section.split("\n")[0]: section for section in sections}
    for kind in SCHEMAS:
        rows = re.findall(r"^\| (`.*`) \| (\w+) \| ", pages[kind], flags=re.M)
        forms = [
            (re.sub(r"<.*?>", "[^/]+", name), dtype) for names, dtype in rows for name in names[1:-1].split("`, `")
        ]
        (ref,) = store.refs(kind)
        for name, array in store.open(ref).group.members(max_depth=None):
            if isinstance(array, zarr.Array):
                assert [dtype for form, dtype in forms if re.fullmatch(form, name)] == [str(array.dtype)], name


def test_lineage(store):
    run = lineage(store, "report/report").sources["run-0"]
    assert (run.state, run.sources["data"].state, run.sources["latents"].state) == ("whole", "whole", "whole")
