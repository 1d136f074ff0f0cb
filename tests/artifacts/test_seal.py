"""A changed, cut, emptied, missing or surplus file is found, by name; a foreign manifest reads nothing outside."""

import hashlib
import json
import os
import shutil

import pytest

from stages.artifacts import schemas, seal
from stages.artifacts.store import Store
from stages.errors import UserError
from tests.helpers.archive import write_data, write_latents
from tests.helpers.damage import flip, forge


@pytest.fixture
def artifact(tmp_path):
    return write_latents(Store(tmp_path / "store"))


def contents(path):
    return [file for file in path.rglob("*") if file.is_file()]


def test_a_flipped_bit_in_any_file_is_found_by_name(tmp_path):
    store = Store(tmp_path)
    artifact = write_data(store)
    read = schemas.read(artifact)
    for path in contents(artifact.path):
        original = path.read_bytes()
        for position in (0, len(original) // 2, len(original) - 1):
            flip(path, position, bit=position % 8)
            with pytest.raises(UserError, match=f"^{path} is damaged"):
                store.open("shapes", thorough=True)
            if path.name == "zarr.json":  # a description is small, and checked whenever the artifact is opened
                with pytest.raises(UserError, match=f"^{path} is damaged"):
                    store.open("shapes")
            else:  # a chunk of no use can't become wrong numbers
                with pytest.raises(UserError, match=str(path.relative_to(artifact.path)).split("/c/")[0]):
                    schemas.read(store.open("shapes"))
            path.write_bytes(original)
    assert (schemas.read(store.open("shapes", thorough=True)).counts == read.counts).all()


@pytest.mark.parametrize("harm", ["truncated", "emptied", "missing", "grown", "a folder", "a link"])
def test_a_file_that_is_not_as_written_is_found_by_name_on_opening(artifact, tmp_path, harm):
    for path in contents(artifact.path):
        original = path.read_bytes()
        path.unlink()
        if harm == "a folder":
            path.mkdir()
        elif harm == "a link":
            (tmp_path / "elsewhere").write_bytes(original)
            path.symlink_to(tmp_path / "elsewhere")
        elif harm != "missing":
            path.write_bytes({"truncated": original[:-1], "emptied": b"", "grown": original + b"\0"}[harm])
        with pytest.raises(UserError, match=f"^{path} (is missing|has|is damaged|is not a plain|can't be read)"):
            seal.opened(artifact.path)
        path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
        path.write_bytes(original)
    seal.opened(artifact.path, thorough=True)


@pytest.mark.parametrize("name", ["zarr.json", "latents/zarr.json", "latents/c/0/0", "latents/c/9/9"])
def test_what_would_wait_or_never_end_is_refused_before_it_is_opened(artifact, name):
    path = artifact.path / name
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    os.mkfifo(path)
    with pytest.raises(UserError, match=f"^{path} is not a plain file"):
        seal.opened(artifact.path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(UserError, match=f"^{path} is not a plain file"):
        seal.opened(artifact.path)


@pytest.mark.parametrize("name", ["zarr.json", "latents/zarr.json"])
def test_an_endless_description_is_not_read(artifact, name):
    os.truncate(artifact.path / name, 20 << 30)  # a hole: it takes no room
    forged = artifact.attributes["manifest"] | {"latents/zarr.json": [20 << 30, ""]}
    if name != "zarr.json":
        forge(artifact.path, manifest=forged)
    with pytest.raises(UserError, match=f"{name} has 21474836480 bytes, too many for metadata"):
        seal.opened(artifact.path)


STRAYS = [".DS_Store", "latents/._zarr.json", "latents/c/0/.nfs0000000000a1b2c300000001", ".smbdeleteAAA4", "Thumbs.db"]


@pytest.mark.parametrize("name", STRAYS)
def test_what_file_systems_and_desktops_leave_behind_is_nobodys(artifact, tmp_path, name):
    (artifact.path / name).write_text("?")
    seal.opened(artifact.path, thorough=True)
    store = Store(tmp_path / "other")
    with store.write("report", "a", {}, 0, {}) as writer:
        (writer.path / ".DS_Store").write_text("?")
    assert ".DS_Store" not in store.open(writer.ref).attributes["manifest"]


@pytest.mark.parametrize("name", ["notes.txt", "latents/c/0/1", ".hidden", "inner/zarr.json"])
def test_a_surplus_file_is_found_when_every_byte_is_checked(artifact, name):
    (artifact.path / name).parent.mkdir(exist_ok=True)
    (artifact.path / name).write_text("?")
    seal.opened(artifact.path)
    with pytest.raises(UserError, match=f"{name} does not belong"):
        seal.opened(artifact.path, thorough=True)


def test_a_link_is_no_file_even_if_it_is_as_long_and_leads_to_the_same_bytes(artifact):
    chunk = artifact.path / "latents" / "c" / "0" / "0"
    elsewhere = chunk.with_name("x" * chunk.stat().st_size)
    chunk.rename(elsewhere)
    chunk.symlink_to(elsewhere.name)
    with pytest.raises(UserError, match=f"^{chunk} is not a plain file"):
        seal.opened(artifact.path)


def test_a_link_to_a_folder_is_surplus_and_never_followed(artifact, tmp_path):
    (artifact.path / "all").symlink_to(tmp_path)
    with pytest.raises(UserError, match="all does not belong"):
        seal.opened(artifact.path, thorough=True)


@pytest.mark.parametrize("name", ["../secret", "{outside}/secret", "latents/../../secret", "link/secret", ""])
def test_a_manifest_reads_nothing_outside_its_artifact(artifact, name, monkeypatch):
    outside = artifact.path.parent
    (outside / "secret").write_text("secret")
    (artifact.path / "link").symlink_to(outside)
    entry = [6, hashlib.sha256(b"secret").hexdigest()]
    forge(artifact.path, manifest=artifact.attributes["manifest"] | {name.format(outside=outside): entry})
    read = []
    monkeypatch.setattr(seal, "sha256", lambda path, real=seal.sha256: read.append(path) or real(path))
    with pytest.raises(UserError, match="is missing"):
        seal.opened(artifact.path, thorough=True)
    assert all(path.resolve().is_relative_to(artifact.path) for path in read)


@pytest.mark.parametrize(
    "manifest",
    [None, 5, "x", [], ["a"], {"a": 1}, {"a": None}, {"a": []}, {"a": [1, 2, 3]}, {"a": ["1", "x"]}, {"a": [1, 2]},
     {"a": [1.5, "x"]}, {"a": {"b": 1}}, {"a": [[0] * 9, "x"]}],
)  # fmt: skip
def test_a_manifest_of_any_other_type_is_damage(artifact, manifest):
    forge(artifact.path, manifest=manifest)
    with pytest.raises(UserError, match=r"zarr\.json is damaged"):
        seal.opened(artifact.path)


@pytest.mark.parametrize("size", [10**4000, -1, 0])
def test_a_manifest_of_an_absurd_size_names_the_file(artifact, size):
    forge(artifact.path, manifest=artifact.attributes["manifest"] | {"latents/c/0/0": [size, ""]})
    with pytest.raises(UserError, match="latents/c/0/0 has 37 bytes instead of"):
        seal.opened(artifact.path)


@pytest.mark.parametrize(
    "root",
    [b"", b"null", b"[]", b"{}", b'{"attributes": []}', b'{"attributes": {"seal": "", "manifest": {}}}', b"\xff\xfe",
     b"[" * 200_000, b'{"attributes": {"seal": {"a": NaN}, "manifest": {}}}', b"9" * 5000],
)  # fmt: skip
def test_a_root_that_is_no_artifact_is_damage(artifact, root):
    (artifact.path / "zarr.json").write_bytes(root)
    with pytest.raises(UserError, match=r"zarr\.json is damaged"):
        seal.opened(artifact.path)


def test_a_root_in_another_order_or_spacing_is_damage(artifact):
    root = artifact.path / "zarr.json"
    root.write_text(json.dumps(json.loads(root.read_text())))
    with pytest.raises(UserError, match=r"zarr\.json is damaged"):
        seal.opened(artifact.path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"shape": [10**12, 10**6]}, "latents has 1 chunks instead of"),
        ({"codecs": [{"name": "python", "configuration": {"code": "print()"}}]}, "latents can't be read|no array"),
        ({"data_type": "object"}, "latents can't be read"),
        ({"node_type": "group"}, "no array 'latents'|latents can't be read"),
        ({"shape": [4, 2]}, "latents has 1 chunks instead of 2"),
        ({"shape": [2, 2]}, r"'images' is uint8 \(3, 3, 4, 4\), which is not"),
        ({"data_type": "float64"}, "latents can't be read"),
        ({"zarr_format": 2}, "latents can't be read|no array 'latents'"),
    ],
)
def test_an_array_described_wrongly_by_someone_who_can_seal(tmp_path, change, sentence):
    store = Store(tmp_path)
    path = write_latents(store).path
    inner = path / "latents" / "zarr.json"
    inner.write_text(json.dumps(json.loads(inner.read_text()) | change))
    manifest = json.loads((path / "zarr.json").read_text())["attributes"]["manifest"]
    forge(path, manifest=manifest | {"latents/zarr.json": [inner.stat().st_size, seal.sha256(inner)]})
    with pytest.raises(UserError, match=sentence):
        schemas.read(store.open("bank"))


def test_a_chunk_that_someone_who_can_seal_left_out_is_missed(tmp_path):
    store = Store(tmp_path)
    artifact = write_latents(store)
    (artifact.path / "latents/c/0/0").unlink()
    manifest = artifact.attributes["manifest"]
    del manifest["latents/c/0/0"]
    forge(artifact.path, manifest=manifest)
    with pytest.raises(UserError, match="latents has 0 chunks instead of 1"):  # Zarr would fill in zeros
        schemas.read(store.open("bank"))


def test_a_number_that_is_not_finite_can_not_be_sealed(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(ValueError, match="JSON"), store.write("data", "a", {"beta": float("nan")}, 0, {}):
        pass
    assert not store.versions("data", "a") and not store.leftovers()


def test_the_seal_can_be_recomputed_as_the_format_says(artifact):
    raw = (artifact.path / "zarr.json").read_text()
    unsealed = raw.replace(f'"seal": "{artifact.attributes["seal"]}"', '"seal": ""')
    assert hashlib.sha256(unsealed.encode()).hexdigest() == artifact.attributes["seal"]
    for name, (size, digest) in artifact.attributes["manifest"].items():
        content = (artifact.path / name).read_bytes()
        assert (size, digest) == (len(content), hashlib.sha256(content).hexdigest())


def test_a_copied_artifact_is_whole_wherever_it_lies(artifact, tmp_path):
    shutil.copytree(artifact.path, tmp_path / "other" / "latents" / "copy" / "v4.zarr")
    assert str(Store(tmp_path / "other").open("copy", thorough=True).ref) == "copy@v4"
