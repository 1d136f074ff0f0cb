"""What an artifact was made from, whatever has become of it."""

import json
import shutil

import pytest

from stages.artifacts.lineage import Node, lineage
from stages.errors import UserError
from tests.helpers.damage import flip, forge


@pytest.fixture
def store(copied):
    return copied


def test_everything_there(store):
    report = lineage(store, "report")
    run = report.sources["run-0"]
    assert [node.state for node in (report, run, *run.sources.values())] == ["whole"] * 4
    assert [str(run.kind), run.ref, list(run.sources)] == ["run", "fedktl-shapes-s7@v1", ["data", "latents"]]
    assert run.sources["data"].seal == store.open("shapes").attributes["seal"]
    assert str(run.sources["data"]).startswith("data/shapes@v1, made 20")
    assert json.loads(json.dumps(report.as_dict()))["sources"]["run-0"]["sources"]["latents"]["ref"] == "bank@v1"


def test_a_source_of_a_name_that_other_kinds_have_too(store):
    shutil.copytree(store.root / "latents" / "bank", store.root / "reports" / "bank")
    assert lineage(store, "fedktl-shapes-s7").sources["latents"].state == "whole"


def test_a_source_that_was_removed(store):
    store.remove(store.resolve("shapes"))
    gone = lineage(store, "fedktl-shapes-s7").sources["data"]
    assert (gone.state, gone.kind, gone.ref, gone.created) == ("missing", "data", "shapes@v1", None)
    assert gone.seal and str(gone).startswith("data/shapes@v1, missing: There is no data artifact")


def test_a_source_whose_reference_is_another_artifacts_now(store):
    store.remove(store.resolve("shapes"))
    with store.write("data", "shapes", {"other": 1}, 0, {}) as writer:
        pass
    assert writer.ref.version == 1
    node = lineage(store, "fedktl-shapes-s7").sources["data"]
    assert node.state == "replaced" and node.sources == {}


def test_a_damaged_source_and_a_damaged_root(store):
    flip(store.open("bank").path / "zarr.json", 40)
    assert lineage(store, "report").sources["run-0"].sources["latents"].state == "damaged"
    node = lineage(store, "bank")
    assert node.state == "damaged" and "zarr.json is damaged" in node.note and node.sources == {}


def test_a_circle_ends(store):
    run, data = store.open("fedktl-shapes-s7"), store.open("shapes")
    forge(data.path, made_from={"run": {"kind": "run", "ref": str(run.ref)}})
    forge(run.path, made_from={"data": {"kind": "data", "ref": "shapes@v1"}})
    node = lineage(store, "shapes").sources["run"].sources["data"]
    assert node.state == "circular" and node.sources == {}


@pytest.mark.parametrize(
    "made",
    [None, 5, "shapes@v1", [], {}, {"ref": 5}, {"ref": "shapes@v1", "kind": "picture"}, {"ref": "a", "kind": ["data"]},
     {"ref": "shapes@v1", "seal": 5}],
)  # fmt: skip
def test_a_record_that_is_no_reference(store, made):
    run = store.open("fedktl-shapes-s7")
    forge(run.path, made_from={"data": made})
    assert lineage(store, run.ref).sources["data"] == Node(
        "?", None, "damaged", "What was recorded about it is not a reference."
    )


@pytest.mark.parametrize("ref", ["../../etc/passwd", "no@such@ref", "nothing@v1", "a/b/c"])
def test_a_record_of_something_else(store, ref):
    run = store.open("fedktl-shapes-s7")
    forge(run.path, made_from={"data": {"ref": ref}})
    assert lineage(store, run.ref).sources["data"].state == "missing"


def test_an_unknown_root_is_the_users_mistake(store):
    with pytest.raises(UserError, match="did you mean report"):
        lineage(store, "reprt")
