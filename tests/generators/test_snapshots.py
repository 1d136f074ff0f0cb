"""Official snapshots are read exactly, and nothing in any file runs."""

import os
import pickle
import struct
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stages.errors import UserError
from stages.generators.stylegan import snapshots
from stages.generators.stylegan.snapshots.pickles import Call, Name, UnhashedDict
from tests.helpers.hostile_snapshots import PLAIN, VARIANTS, as_tensor, called, put, records, storage, tensor
from tests.helpers.snapshot_writer import dumps
from tests.helpers.stylegan import FIXTURES


@pytest.mark.parametrize("folder", ["sg2_64_cifar", "xl_superres_64"])
def test_every_tensor_is_that_of_the_implementation(folder):
    found = snapshots.read(FIXTURES / folder / "network.pkl").state_dict()
    expected = load_file(FIXTURES / folder / "weights.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}


def test_attributes_are_plain_values():
    generator = snapshots.read(FIXTURES / "xl_superres_64" / "network.pkl")  # NumPy values, by way of dill
    layer = dict(generator.walk())["synthesis.L9_84_10"]
    assert generator.class_name == "SuperresGenerator"
    assert layer.attributes["in_size"] == [52, 52]
    assert layer.attributes["padding"] == [-6, -9, -6, -9]
    assert layer.attributes["in_cutoff"] == pytest.approx(9.84915530675933, abs=0)
    assert layer.attributes["is_critically_sampled"] is False


@pytest.mark.parametrize("folder", ["sg2_32", "sg3_t_64_cond", "xl_stem_16"])
def test_the_writer_of_these_tests_writes_what_was_read(folder, tmp_path):
    (tmp_path / "copy.pkl").write_bytes(dumps(records(FIXTURES / folder / "network.pkl")))
    copy = snapshots.read(tmp_path / "copy.pkl").state_dict()
    expected = snapshots.read(FIXTURES / folder / "network.pkl").state_dict()
    assert copy.keys() == expected.keys()
    assert all(torch.equal(copy[name], expected[name]) for name in expected)


def test_a_discriminator_of_foreign_classes_is_passed_over(tmp_path):
    """StyleGAN-XL keeps its discriminator, whose feature networks come from other libraries, with closures as hooks."""
    snapshot = records(PLAIN)
    code = Call(Name("dill._dill._create_code"), (0, b"\x00"))
    closure = Call(Name("dill._dill._create_function"), (code, UnhashedDict()))
    method = Call(Call(Name("dill._dill._load_type"), ("MethodType",)), (closure, None))
    discriminator = Call(Name("timm.models.vision_transformer.VisionTransformer"), (), UnhashedDict([("hook", method)]))
    put(snapshot, "D", discriminator)
    put(snapshot, "progress", UnhashedDict([(3, Call(Name("torch.nn.modules.conv.Conv2d"), ()))]))
    (tmp_path / "with_d.pkl").write_bytes(dumps(snapshot))
    assert snapshots.read(tmp_path / "with_d.pkl").class_name == "Generator"


def test_the_storage_these_tests_write_is_torchs_own(tmp_path):
    snapshot = records(PLAIN)
    as_tensor(snapshot, tensor(storage([1.0, 2.0, 3.0]), 1, (2,), (1,)))
    (tmp_path / "good.pkl").write_bytes(dumps(snapshot))
    assert snapshots.read(tmp_path / "good.pkl").state_dict()["mapping.w_avg"].tolist() == [2.0, 3.0]


def test_weights_in_half_precision_become_float32(tmp_path):
    snapshot = records(PLAIN)
    halves = struct.pack("<q", 2) + np.float16([1.5, -2.0]).tobytes()
    as_tensor(snapshot, tensor(storage(kind="torch.HalfStorage", declared=2, rest=halves)))
    (tmp_path / "half.pkl").write_bytes(dumps(snapshot))
    assert snapshots.read(tmp_path / "half.pkl").state_dict()["mapping.w_avg"].tolist() == [1.5, -2.0]


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """Where a marker would appear, with every way to start something watched."""
    seen = []

    def forbidden(*_arguments, **_keywords):
        seen.append("ran")

    for module, name in ((os, "system"), (os, "mkdir"), (pickle, "loads"), (pickle, "load")):
        monkeypatch.setattr(module, name, forbidden)
    yield tmp_path / "marker", seen


@pytest.mark.parametrize("name", VARIANTS)
def test_hostile_and_broken_files_end_with_a_sentence(name, tmp_path, watched):
    marker, seen = watched
    path = tmp_path / "snapshot.pkl"
    path.write_bytes(VARIANTS[name](marker))
    with pytest.raises(UserError) as raised:
        snapshots.read(path)
    message = str(raised.value)
    assert str(path) in message
    assert message.count(". ") <= 1 and len(message) < 400 + len(str(path)) and message.isprintable()
    assert not marker.exists() and not seen
    assert "antigravity" not in sys.modules


def test_there_are_many_variants():
    assert len(VARIANTS) >= 50


@pytest.mark.parametrize("path", ["os.system", "subprocess.call", "builtins.exec", "builtins.eval", "os.mkdir"])
def test_the_payloads_are_live(path, tmp_path):
    """Python's own unpickler runs them."""
    pickle.loads(dumps(called(path, tmp_path / "marker")))
    assert (tmp_path / "marker").exists()


def test_any_changed_byte_gives_a_generator_or_a_sentence(tmp_path):
    original, rng = PLAIN.read_bytes(), np.random.default_rng(0)
    path = tmp_path / "snapshot.pkl"
    for _ in range(60):
        changed = bytearray(original)
        for position in rng.integers(0, len(original), 30):
            changed[position] = rng.integers(256)
        path.write_bytes(changed)
        try:
            snapshots.read(path)
        except UserError as error:
            assert str(path) in str(error)
