"""The store: versions, what may be refused and how, removal, what killed writers leave."""

import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr

from stages.artifacts import folders
from stages.artifacts.partial import Partial, unfinished
from stages.artifacts.refs import Ref
from stages.errors import UserError
from tests.helpers.archive import everything, write, write_all, write_data, write_latents
from tests.helpers.damage import forge


def test_an_artifact_is_a_plain_group_that_lists_its_members_without_a_warning(store):
    for artifact in write_all(store).values():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            group = zarr.open_group(artifact.path)
            members = dict(group.members(max_depth=None))
            for array in members.values():
                if isinstance(array, zarr.Array):
                    array[...]
        assert group.attrs["kind"] == artifact.kind and group.attrs["schema"] == 1
        assert {"settings", "seed", "made_from", "software", "created"} <= set(group.attrs)
        listed = {name.split("/c/")[0].removesuffix("/zarr.json") for name in group.attrs["manifest"]}
        assert listed == set(members)


def test_every_chunk_is_written_even_one_of_zeros_and_carries_a_checksum(store):
    for artifact in (write_data(store), store.open(write(store, value=0))):
        for _, array in artifact.group.members(max_depth=None):
            if isinstance(array, zarr.Array):
                assert array.metadata.codecs[-1].to_dict()["name"] == "crc32c"
                assert array.nchunks_initialized == array.nchunks


def test_large_arrays_are_cut_into_chunks_of_about_four_megabytes(store):
    with store.write("latents", "large", {}, 0, {}) as writer:
        assert writer.empty("images", (5000, 3, 32, 32), "uint8").chunks == (1365, 3, 32, 32)
        assert writer.chunk_rows("images") == 1365
        assert writer.empty("none", (0, 3, 32, 32), "uint8").chunks == (1, 3, 32, 32)
        assert writer.empty("wide", (2, 10**7), "float32").chunks == (1, 10**7)
        assert writer.empty("one", (), "int64").chunks == ()


def test_the_same_name_again_is_the_next_version_and_changes_no_earlier_one(store):
    first = write(store, value=1)
    before = {path: path.read_bytes() for path in store.path(first).rglob("*") if path.is_file()}
    assert write(store, value=2) == Ref("a", 2, "report")
    assert before == {path: path.read_bytes() for path in store.path(first).rglob("*") if path.is_file()}
    assert store.open("a").array("values")[0, 0] == 2 and store.open("a@v1").array("values")[0, 0] == 1


def test_two_writers_of_a_name_at_once_make_two_versions(store):
    with store.write("report", "a", {}, 0, {}) as slow:
        slow.array("values", np.array([1]))
        assert write(store, value=2).version == 1
        slow.array("more", np.array([1]))
    assert slow.ref.version == 2
    assert [store.open(f"a@v{n}", thorough=True).array("values").max() for n in (1, 2)] == [2, 1]


def test_the_newest_is_the_one_published_last(store):
    with store.write("report", "slow", {}, 0, {}):
        write(store, "quick")
    assert store.newest("report").ref == Ref("slow", 1, "report")
    write(store, "quick")
    assert store.newest("report").ref == Ref("quick", 2, "report")


def test_an_exception_leaves_nothing(store):
    write(store)
    before = everything(store)
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), store.write("report", "a", {}, 0, {}) as writer:
            writer.array("values", np.zeros(3))
            raise error
    assert everything(store) == before and writer.ref is None


def test_what_another_artifact_records_tells_kind_reference_and_seal(store):
    made = write_all(store)
    assert made["run"].attributes["made_from"] == {role: made[role].identity for role in ("data", "latents")}
    assert made["data"].identity == {
        "kind": "data", "ref": "shapes@v1", "seal": made["data"].attributes["seal"]
    }  # fmt: skip


def test_reading_creates_nothing(store):
    assert store.leftovers() == list(store.refs("data")) == store.names("run") == unfinished(store) == []
    for ask in (lambda: store.open("a"), lambda: store.newest("data"), lambda: store.resolve("data/a@v2")):
        with pytest.raises(UserError, match=r"There is no (data )?artifact in .*yet"):
            ask()
    assert not store.root.exists()


def test_names_are_resolved_and_near_ones_offered(store):
    write(store, "digits"), write(store, "digits", kind="run")
    assert store.resolve("run/digits") == store.resolve("digits@v1", "run") == Ref("digits", 1, "run")
    for ref, kind, sentence in (
        ("digts", None, "did you mean digits"),
        ("digits", None, "names several artifacts: run/digits, report/digits"),
        ("run/digits", "report", "is a run artifact, but a report artifact is needed"),
        ("digits@v2", "run", "has no version 2; there is v1"),
        ("digits", "data", "There is no data artifact"),
    ):
        with pytest.raises(UserError, match=sentence):
            store.resolve(ref, kind)


def test_what_somebody_else_put_into_the_store_is_left_alone(store):
    write(store)
    reports = store.root / "reports"
    for foreign in ("my folder/v1.zarr", ".hidden/v1.zarr", "a/v0.zarr", "a/vx.zarr", "a/v2.zarr.bak", "a/vx.partial"):
        (reports / foreign).mkdir(parents=True)
    (reports / "file").write_text("")
    assert list(store.refs("report")) == [Ref("a", 1, "report")] and store.leftovers() == unfinished(store) == []
    assert write(store).version == 2


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        ({"schema": 2}, r"a@v1 has report schema 2, but this fedktl reads schemas up to 1; install a newer version\."),
        ({"schema": 10**30}, "install a newer version"),
        *(({"schema": schema}, "has no schema version") for schema in (0, -1, True, 1.0, "1", None, [1])),
        *(({"kind": kind}, "folder of another kind") for kind in ("run", "picture", None, 1, ["report"], {"a": 1})),
        *(
            ({name: 1.5}, f"does not record its {name} properly")
            for name in ("settings", "made_from", "seed", "software", "created")
        ),
    ],
)
def test_a_root_that_says_something_else_is_refused(store, attributes, sentence):
    forge(store.path(write(store)), **attributes)
    with pytest.raises(UserError, match=sentence):
        store.open("a")


def test_an_artifact_in_the_folder_of_another_kind_is_refused(store):
    artifact = write_latents(store)
    shutil.copytree(artifact.path, store.root / "data" / "bank" / "v1.zarr")
    with pytest.raises(UserError, match="says it is 'latents'; it lies in the folder of another kind"):
        store.open("data/bank")


def test_an_array_that_is_absent_or_a_group_is_named(store):
    artifact = write_data(store)
    for name in ("nothing", "train", "train/nothing"):
        with pytest.raises(UserError, match=f"has no array '{name}'"):
            artifact.array(name)
    assert "train/images" in artifact and "nothing" not in artifact
    assert artifact.names("train") == ["images", "labels", "offsets"]
    assert artifact.names("nothing") == artifact.names("counts") == []


def test_removal_takes_one_version_and_what_lies_beside_it(store):
    refs = [write(store) for _ in range(3)]
    for ref in refs:
        store.path(ref).with_suffix(".html").write_text("page")
    store.remove(refs[1])
    assert [path.name for path in sorted(store.path(refs[0]).parent.glob("v*"))] == [
        "v1.html", "v1.zarr", "v3.html", "v3.zarr"
    ]  # fmt: skip
    assert store.leftovers() == [] and write(store).version == 4


def test_a_removed_run_does_not_come_back_as_an_unfinished_one(store):
    partial = Partial.begin(store, "run", "a", {})
    ref = write(store, kind="run", version=partial.ref.version)
    partial.close()  # killed before it removed its folder
    store.remove(ref)
    assert unfinished(store) == store.leftovers() == list(store.refs("run")) == []


def test_a_removal_that_is_cut_short_leaves_nothing_that_looks_finished(store, monkeypatch):
    ref = write(store)
    monkeypatch.setattr(folders.shutil, "rmtree", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store.remove(ref)
    assert list(store.refs("report")) == []
    (left,) = store.leftovers()
    assert left.name.startswith(".removed-")


def test_a_lock_that_nfs_keeps_while_it_is_held_fails_no_finished_work(store, monkeypatch):
    def unlink(path, *, dir_fd=None, real=os.unlink):
        if "lock" in os.fspath(path) and dir_fd is not None:
            os.rename(path, ".nfs00000001", src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        else:
            real(path, dir_fd=dir_fd)

    partial = Partial.begin(store, "run", "a", {})
    monkeypatch.setattr("os.unlink", unlink)
    partial.discard()
    assert unfinished(store) == [] and [path.name[:9] for path in store.leftovers()] == [".removed-"]


def test_left_overs_are_what_killed_writers_left_and_nothing_else(store):
    write(store)
    folder = store.root / "reports" / "a"
    dead = [folder / f".writing-{'0' * 32}", folder / f".removed-{'1' * 32}", store.root / "runs" / "s" / "v1.partial"]
    for path in dead:
        path.mkdir(parents=True)
    (dead[0] / "lock").write_text("")
    resumable = Partial.begin(store, "run", "r", {})
    published = Partial.begin(store, "run", "r", {})
    write(store, "r", kind="run", version=published.ref.version)
    with store.write("report", "a", {}, 0, {}):
        assert store.leftovers() == sorted(dead)  # neither the live writer nor the live runs
    resumable.close(), published.close()
    assert store.leftovers() == sorted([*dead, published.path])


def test_a_version_is_numbered_and_a_hidden_folder_made_under_the_lock_of_the_name(store, monkeypatch):
    """So that no two writers take one number, and `leftovers` never sees a live writer's folder without its own lock."""
    seen = set()

    def watched(real, start):
        def call(path, *args, **kwargs):
            if path.name.startswith(start):
                with pytest.raises(folders.Timeout):
                    folders.name_lock(store.root / "reports" / "a").acquire(timeout=0)
                seen.add(real.__name__)
            return real(path, *args, **kwargs)

        return call

    for name, start in (("mkdir", ".writing-"), ("rename", "group")):
        monkeypatch.setattr(Path, name, watched(getattr(Path, name), start))
    write(store)
    assert seen == {"mkdir", "rename"}
