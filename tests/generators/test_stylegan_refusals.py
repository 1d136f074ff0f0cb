"""What is said about arguments, headers, weights and networks that will not do."""

import copy
import dataclasses
import functools
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stages.errors import UserError
from stages.generators.stylegan import checkpoint, convert, load, snapshots
from stages.generators.stylegan.snapshots import pickles
from stages.generators.stylegan.snapshots.pickles import Call, Name
from tests.helpers.snapshot_writer import dumps
from tests.helpers.stylegan import FIXTURES, snapshot


def refusal(call) -> str:
    with pytest.raises(UserError) as raised:
        call()
    message = str(raised.value)
    assert len(message) < 700 and message.isprintable()
    return message


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"truncation": float("nan")}, "between 0 and 2"),
        ({"truncation": -0.1}, "between 0 and 2"),
        ({"class_id": 10}, "class ids from 0 to 9"),
        ({"class_id": -1}, "class ids from 0 to 9"),
        ({"precision": "fp8"}, "did you mean fp32"),
        ({"image_range": "sounds"}, "did you mean sound"),
    ],
)
def test_arguments(arguments, part):
    assert part in refusal(lambda: load(snapshot("sg2_64_cifar"), **arguments))


def test_a_class_of_an_unconditional_network():
    assert "has no classes" in refusal(lambda: load(snapshot("sg2_32"), class_id=0))


def test_files_that_are_not_there(tmp_path):
    for name in ("absent.pkl", "absent.safetensors"):
        assert str(tmp_path / name) in refusal(lambda name=name: load(tmp_path / name))
    assert "can't be read" in refusal(lambda: load(tmp_path))


def test_convert_writes_no_file_it_should_not(tmp_path):
    there = tmp_path / "there.safetensors"
    there.write_bytes(b"kept")
    for out in (there, tmp_path / "out.pt", tmp_path / "no folder" / "out.safetensors"):
        assert str(out) in refusal(lambda out=out: convert(snapshot("sg2_32"), out))
    assert there.read_bytes() == b"kept"
    shutil.copy(FIXTURES / "sg2_32" / "io.npz", tmp_path / "io.pkl")
    refusal(lambda: convert(tmp_path / "io.pkl", tmp_path / "out.safetensors"))
    assert not (tmp_path / "out.safetensors").exists()


def test_a_device_that_lacks_the_precision(monkeypatch):
    def lacking(*_arguments):
        raise RuntimeError("not implemented for 'Half'")

    monkeypatch.setattr("stages.generators.stylegan.generator.F.conv2d", lacking)
    assert "has no fp16 convolution" in refusal(lambda: load(snapshot("sg2_32"), precision="fp16"))


TENSORS = {
    "a missing tensor": (lambda t: t.pop("synthesis.b8.conv1.bias"), "lacks synthesis.b8.conv1.bias"),
    "a surplus tensor": (
        lambda t: t.update({"synthesis.b8.extra": torch.zeros(1)}),
        "does not use: synthesis.b8.extra",
    ),
    "many surplus tensors": (lambda t: t.update({f"x{i}": torch.zeros(1) for i in range(9)}), "x0, x1, x2, ..."),
    "an unfit shape": (lambda t: t.update({"mapping.w_avg": torch.zeros(31)}), "wrong shape: mapping.w_avg"),
    "NaN": (lambda t: t["mapping.fc0.bias"].fill_(float("nan")), "not finite in mapping.fc0.bias"),
    "a name to trick the terminal": (lambda t: t.update({"\x1b[31mred": torch.zeros(1)}), r"\x1b[31mred"),
}


def changed_header(**changes):
    return lambda header: header | changes


def changed_config(part: str, **changes):
    return lambda header: header | {"config": header["config"] | {part: header["config"][part] | changes}}


HEADERS = {
    "not an object": lambda header: [],
    "a field too many": changed_header(code="import os"),
    "a field too few": lambda header: {name: value for name, value in header.items() if name != "family"},
    "a format from the future": changed_header(format=99),
    "a format that is text": changed_header(format="1"),
    "an unknown family": changed_header(family="stylegan4"),
    "another family": changed_header(family="stylegan3"),
    "a class for a family": changed_header(family="os.system"),
    "a configuration that is a list": changed_header(config=[]),
    "a source to trick the terminal": changed_header(source="\x1b]0;title\x07"),
    "a source without end": changed_header(source="x" * 1000),
    "a hash that is a number": changed_header(sha256=1),
    "no resolution": lambda header: header | {"config": {"mapping": header["config"]["mapping"], "synthesis": {}}},
    "a resolution of text": changed_config("synthesis", resolution="32"),
    "a resolution that is no power of two": changed_config("synthesis", resolution=33),
    "a resolution of 2^40": changed_config("synthesis", resolution=1 << 40, channels=[24] * 39),
    "channels of 2^62": changed_config("synthesis", channels=[1 << 62] * 4),
    "a million channels": changed_config("synthesis", channels=[1 << 20] * 4),
    "negative channels": changed_config("synthesis", channels=[-1, 24, 24, 16]),
    "no channels": changed_config("synthesis", channels=[]),
    "channels of zero": changed_config("synthesis", channels=[0, 0, 0, 0]),
    "channels without end": changed_config("synthesis", channels=[1] * 100_000),
    "a clamp of infinity": changed_config("synthesis", clamp=float("inf")),
    "a clamp of text": changed_config("synthesis", clamp="none"),
    "an unknown architecture": changed_config("synthesis", architecture="skip2"),
    "no mapping layers": changed_config("mapping", widths=[]),
    "an embedding without classes": changed_config("mapping", embedding=3),
    "a truth for a number": changed_config("mapping", z_dim=True),
    "a multiplier of 10^400": changed_config("mapping", lr_multiplier=10**400),
}  # fmt: skip


@functools.cache
def good(folder: str):
    """The tensors and the header of a converted file."""
    read = checkpoint.read(snapshot(folder))
    return dict(read.network.state_dict()), dataclasses.asdict(read.header)


def rewritten(tmp_path: Path, folder: str, change_tensors=lambda tensors: None, change_header=lambda header: header):
    """A converted file with other tensors, or another header."""
    tensors, header = copy.deepcopy(good(folder))
    change_tensors(tensors)
    save_file(tensors, tmp_path / "bad.safetensors", {"fedktl": json.dumps(change_header(header))})
    return tmp_path / "bad.safetensors"


@pytest.mark.parametrize("name", TENSORS)
def test_unfit_tensors_are_named(name, tmp_path):
    change, part = TENSORS[name]
    path = rewritten(tmp_path, "sg2_32", change_tensors=change)
    message = refusal(lambda: load(path))
    assert part in message and str(path) in message


@pytest.mark.parametrize("name", HEADERS)
def test_unfit_headers_are_refused(name, tmp_path):
    path = rewritten(tmp_path, "sg2_32", change_header=HEADERS[name])
    assert str(path) in refusal(lambda: load(path))


def changed_layer(index: int, **changes):
    def change(header):
        layers = [dict(layer) for layer in header["config"]["synthesis"]["layers"]]
        layers[index] |= changes
        return changed_config("synthesis", layers=layers)(header)

    return change


LAYERS = {
    "none": changed_config("synthesis", layers=[]),
    "no factor": changed_layer(3, up=0),
    "no taps": changed_layer(3, up_taps=0),
    "a negative factor": changed_layer(3, up=-1),
    "more samples than there are": changed_layer(3, out_size=500),
    "a gap": changed_layer(3, in_size=20),
    "channels from nowhere": changed_layer(3, in_channels=5),
    "a name of a method": changed_layer(3, name="forward"),
    "a name of a path": changed_layer(3, name="a.b"),
    "another image": changed_layer(3, to_rgb=True),
    "no image": changed_layer(-1, to_rgb=False),
    "an image of one channel": changed_layer(-1, out_channels=1),
    "no channels": changed_layer(3, out_channels=0),
    "frequencies beyond the samples": changed_config("synthesis", input=dict(channels=32, size=36, sampling_rate=0.0, bandwidth=2.0)),
    "a resolution of its own": changed_config("synthesis", resolution=64),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_layers_that_do_not_fit_together(name, tmp_path):
    path = rewritten(tmp_path, "sg3_t_32", change_header=LAYERS[name])
    assert str(path) in refusal(lambda: load(path))


def test_fewer_class_features_than_classes(tmp_path):
    path = rewritten(tmp_path, "xl_stem_16", change_header=changed_config("mapping", classes=9))
    assert "9 rows, for 10 classes" in refusal(lambda: load(path))


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff" * 100, (1 << 40).to_bytes(8, "little") + b"{", (2).to_bytes(8, "little") + b"{}", b"\x80\x04N."],
    ids=["empty", "noise", "a header of 2^40", "no header of ours", "a pickle"],
)
def test_files_that_are_no_safetensors(data, tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(data)
    assert str(tmp_path / "bad.safetensors") in refusal(lambda: load(tmp_path / "bad.safetensors"))


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"format": ' + "9" * 5000 + "}"])
def test_headers_that_are_no_json(text, tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "bad.safetensors", {"fedktl": text})
    assert "not JSON" in refusal(lambda: load(tmp_path / "bad.safetensors"))


def state(record: Call) -> list:
    return dict(record.arguments[0])["state"]


def set_attribute(record: Call, name: str, value) -> None:
    pairs = state(record)
    pairs[:] = [(key, kept) for key, kept in pairs if key != name] + [(name, value)]


def child(record: Call, *names: str) -> Call:
    for name in names:
        record = dict(dict(state(record))["_modules"].pairs)[name]
    return record


def without_mapping(generator):
    modules = dict(state(generator))["_modules"]
    modules.pairs[:] = [pair for pair in modules.pairs if pair[0] != "mapping"]


SNAPSHOTS = {
    "an unknown class": ("sg3_t_32", lambda g: g.arguments[0].append(("class_name", "MyGenerator")), "MyGenerator"),
    "an unknown layer": (
        "sg3_t_32", lambda g: child(g, "synthesis", "L3_36_32").arguments[0].append(("class_name", "Attention")),
        "'synthesis.L3_36_32' is a 'Attention'",
    ),
    "another activation": (
        "sg2_32", lambda g: set_attribute(child(g, "synthesis", "b8", "conv0"), "activation", "swish"), "b8.conv0",
    ),
    "no mapping": ("sg2_32", without_mapping, "do not say everything ('mapping')"),
    "no layer names": (
        "sg3_t_32", lambda g: set_attribute(child(g, "synthesis"), "layer_names", None), "do not say everything",
    ),
    "a layer that is not there": (
        "sg3_t_32", lambda g: set_attribute(child(g, "synthesis"), "layer_names", ["L99_1_1"]), "L99_1_1",
    ),
    "pictures that are not square": (
        "sg3_t_32", lambda g: set_attribute(child(g, "synthesis", "input"), "size", [36, 20]), "36 x 20",
    ),
    "clamps that differ": (
        "sg2_32", lambda g: set_attribute(child(g, "synthesis", "b8", "conv0"), "conv_clamp", 1), "different bounds",
    ),
    "no StyleGAN": ("sg2_32", lambda g: g.arguments[0].append(("state", state(child(g, "mapping")))), "is not StyleGAN2"),
    "blocks without end": (
        "sg2_32", lambda g: set_attribute(child(g, "synthesis"), "block_resolutions", [4] * 10_000), "can't be",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_snapshots_of_other_networks(name, tmp_path):
    folder, change, part = SNAPSHOTS[name]
    content, _ = pickles.read(memoryview(snapshot(folder).read_bytes()))
    generator = dict(content)["G_ema"]
    assert generator.function == Name("torch_utils.persistence._reconstruct_persistent_obj")
    change(generator)
    path = tmp_path / "network.pkl"
    path.write_bytes(dumps(content))
    snapshots.read(path)  # is in order; what it describes is not
    message = refusal(lambda: load(path))
    assert part in message and str(path) in message
