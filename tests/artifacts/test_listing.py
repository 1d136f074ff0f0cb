"""What references and patterns pick of a store, unfinished work as well."""

import pytest

from stages.artifacts.listing import find, listed, outdated, picked
from stages.artifacts.partial import Partial
from stages.errors import UserError
from tests.helpers.made_runs import made_data, made_run


@pytest.fixture
def store(toy_store):
    """Runs a@v1, a@v2, b@v1, and the unfinished a@v3 and c@v1."""
    data = made_data(toy_store)
    for name in ("a", "a", "b"):
        made_run(toy_store, name, data)
    for name in ("a", "c"):
        Partial.begin(toy_store, "run", name, {"settings": {}}).close()
    return toy_store


def names(entries):
    return [str(entry) for entry in entries]


def test_everything_that_there_is(store):
    assert names(listed(store)) == [
        "data/digits@v1", "data/toy@v1", "latents/bank@v1", "run/a@v1", "run/a@v2", "run/a@v3", "run/b@v1", "run/c@v1",
    ]  # fmt: skip


def test_references_find_unfinished_work_too(store):
    assert names(find(store, text) for text in ("a", "a@v2", "runs/c", "b")) == [
        "run/a@v3",
        "run/a@v2",
        "run/c@v1",
        "run/b@v1",
    ]
    with pytest.raises(UserError, match="no version 9"):
        find(store, "a@v9")


def test_patterns(store):
    assert names(picked(store, ["a", "a@v*", "run/b"])) == ["run/a@v3", "run/a@v1", "run/a@v2", "run/b@v1"]
    assert names(picked(store, ["data/*"])) == names(picked(store, ["d*", "toy"])) == ["data/digits@v1", "data/toy@v1"]
    with pytest.raises(UserError, match=r"fits 'x\*'"):
        picked(store, ["a", "x*"])


def test_old_versions(store):
    assert names(outdated(store, 1, [])) == ["run/a@v1"]  # unfinished ones are nobody's old versions
    assert outdated(store, 2, []) == [] and outdated(store, 1, ["b"]) == []


def test_removing(store):
    for entry in picked(store, ["a*", "c"]):
        entry.remove(store)
    assert names(picked(store, ["run/*"])) == ["run/b@v1"]
