"""Artifacts made wrong by someone who can seal: every command says so in a sentence."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from fedktl_cli.main import app
from stages.artifacts import seal
from stages.artifacts.store import Store
from tests.helpers.archive import write_all
from tests.helpers.damage import forge


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("whole") / "store")
    write_all(store)
    return store


@pytest.fixture
def store(whole, tmp_path):
    shutil.copytree(whole.root, tmp_path / "store")
    return Store(tmp_path / "store")


def refused(store, *command):
    result = CliRunner().invoke(app, ["-q", "--store", str(store.root), *command])
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") <= 2 and len(result.stderr) < 600
    return result.stderr


DATA, LATENTS, RUN = "data/shapes", "latents/bank", "run/fedktl-shapes-s7"
RESUME = ("train", "--resume", "fedktl-shapes-s7", "--rounds", "9")


@pytest.mark.parametrize(
    ("ref", "attributes", "commands"),
    [
        (DATA, {"seed": "7"}, [("artifacts", "show", DATA), ("artifacts", "export", DATA, "out", "--client", "0")]),
        (DATA, {"class_names": 5}, [("artifacts", "export", DATA, "out", "--client", "0")]),
        (DATA, {"software": 5}, [("artifacts", "show", DATA)]),
        (DATA, {"class_names": None}, [("artifacts", "export", DATA, "out")]),
        (DATA, {"class_names": ["a", "b"]}, [("artifacts", "export", DATA, "out", "--format", "pfllib")]),
        (LATENTS, {"generator": []}, [("artifacts", "export", LATENTS, "out")]),
        (LATENTS, {"generator": {"family": None}}, [("artifacts", "export", LATENTS, "out")]),
        (RUN, {"created": None}, [("artifacts", "show", RUN), ("report",)]),
        (RUN, {"seed": None}, [("report",), RESUME]),
        (RUN, {"made_from": {"data": 5}}, [("report",)]),
        (RUN, {"made_from": {"data": {"kind": "data", "ref": 10**30, "seal": ""}}}, [("report",)]),
        (RUN, {"facts": None}, [("report",), ("report", RUN), RESUME]),
        (RUN, {"facts": {"algorithm": "fedktl"}}, [("report", RUN), RESUME]),
    ],
)
def test_an_attribute_of_another_type(store, ref, attributes, commands, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    forge(store.path(store.resolve(ref)), **attributes)
    for command in commands:
        assert "make" in refused(store, *command) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["made_from", "settings", "hyper", "seed"])
@pytest.mark.parametrize("value", [None, 1.5, [], "x", {"data": 1}])
def test_facts_that_do_not_say_how_to_go_on(store, name, value):
    run = store.open(RUN)
    facts = {**run.attributes["facts"], "made_from": {}, "settings": {}, "seed": 7}
    forge(run.path, facts=facts | {name: value})
    refused(store, *RESUME)


def test_a_group_of_no_description_is_named(store):
    path = store.path(store.resolve(DATA))
    inner = path / "train" / "labels" / "zarr.json"
    deep = b"[" * 100_000
    inner.write_bytes(deep)
    manifest = json.loads((path / "zarr.json").read_text())["attributes"]["manifest"]
    forge(path, manifest=manifest | {"train/labels/zarr.json": [len(deep), seal.sha256(inner)]})
    for command in (("artifacts", "show", DATA), ("artifacts", "export", DATA, "out")):
        assert "train/labels can't be read (it is nested too deeply)" in refused(store, *command)
