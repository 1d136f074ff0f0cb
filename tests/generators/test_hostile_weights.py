"""Weight files that want to run, to fill the memory or to confuse: each ends with a sentence that names it."""

import json
import os
import random
import struct
import time
from pathlib import Path

import pytest
import torch

from fedktl_cli.generator import described
from stages.errors import UserError
from stages.generators import registry
from stages.generators.builtin.generator import WEIGHTS
from stages.settings import Generate
from tests.helpers.damage import edited
from tests.helpers.hostile_snapshots import VARIANTS

CPU = torch.device("cpu")


def headed(header: object, rest: bytes = bytes(64), length: int | None = None) -> bytes:
    """A safetensors file, whose header may be anything."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + rest


def tensor(dtype="F32", shape=(4,), offsets=(0, 16), **more) -> dict:
    return {"w": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}}


def told(header: object) -> dict:
    """A tensor and a header of fedktl's own."""
    return tensor() | {"__metadata__": {"fedktl": header if isinstance(header, str) else json.dumps(header)}}


OWN = {"format": 1, "family": "stylegan2", "config": {}, "source": "x", "sha256": "0" * 64, "licence": "x"}
ODD = (None, True, -1, 0, 2**70, 1.5, "x", "\x1b[2J" * 1000, [], {}, [[[]]], {"a": 1})
SAFETENSORS = {
    "nothing": b"",
    "a length and no more": struct.pack("<Q", 8),
    **{f"a header of {length} bytes": headed({}, length=length) for length in (3, 2**20, 2**40, 2**63, 2**64 - 1)},
    **{f"the header {text[:12]!r}": headed(text) for text in (
        b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b"{" * 100_000, b'{"a":' * 50_000, b"1" * 100_000, b" " * 100)},
    **{f"{shape} numbers": headed(tensor(shape=shape)) for shape in ((5,), (2**40,), (2**63,), (0, 2**62), (-1,), (1.5,))},
    **{f"offsets {offsets}": headed(tensor(offsets=offsets)) for offsets in (
        (0, 2**40), (16, 0), (-16, 0), (2**63, 2**63 + 16), (0,), (0, 16, 32))},
    **{f"type {dtype}": headed(tensor(dtype)) for dtype in ("F3", "O", "", "U8", "BOOL")},
    "two tensors in one place": headed(tensor() | {"v": tensor()["w"]}, bytes(16)),
    "a gap between tensors": headed(tensor() | {"v": tensor(offsets=(32, 48))["w"]}, bytes(48)),
    "no tensor": headed({"w": 1}),
    "metadata of numbers": headed(tensor() | {"__metadata__": {"fedktl": 1}}),
    "metadata that is no object": headed(tensor() | {"__metadata__": []}),
    "the built-in family and no weights": headed(tensor() | {"__metadata__": {"family": "builtin"}}, bytes(16)),
    "the built-in family and nothing": headed({"__metadata__": {"family": "builtin", "steps": "1", "images": "1"}}, b""),
    "a header of ours that is no JSON": headed(told("{"), bytes(16)),
    "a header of ours nested deeply": headed(told("[" * 50_000), bytes(16)),
    **{f"a header of ours, {value!r:.12}": headed(told(value), bytes(16)) for value in ODD},
    **{f"{name} {value!r:.12}": headed(told(OWN | {name: value}), bytes(16)) for name in OWN for value in ODD
       if not (name in ("source", "sha256", "licence") and isinstance(value, str))},
    **{f"its {part} {value!r:.12}": headed(told(OWN | {"config": {"mapping": {}, "synthesis": {}, part: value}}), bytes(16))
       for part in ("mapping", "synthesis", "more") for value in ODD},
}  # fmt: skip


def refused(path: Path, **settings) -> str:
    """What is said of weights, the same sentence to whoever looks and to whoever generates."""
    start = time.perf_counter()
    sentences = []
    for look in (lambda: described(path), lambda: registry.make(Generate(weights=str(path), **settings), CPU)):
        with pytest.raises(UserError) as raised:
            look()
        sentences.append(str(raised.value))
        assert str(path) in sentences[-1] and sentences[-1].isprintable() and len(sentences[-1]) < 700
    assert time.perf_counter() - start < 2
    return sentences[0]


@pytest.mark.parametrize("name", SAFETENSORS)
def test_safetensors_that_can_not_be(tmp_path, name):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(SAFETENSORS[name])
    refused(path)


@pytest.mark.parametrize("name", random.Random(0).sample(sorted(VARIANTS), 25))
def test_a_hostile_snapshot_is_refused_by_whoever_opens_it(tmp_path, name):
    """All of them, and that nothing runs: test_snapshots.py."""
    path = tmp_path / "weights.pkl"
    path.write_bytes(VARIANTS[name](tmp_path / "marker"))
    refused(path)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("cut", range(0, 100, 10))
def test_the_built_in_weights_cut_or_changed_are_refused(tmp_path, cut):
    data = bytearray(WEIGHTS.read_bytes())
    path = tmp_path / "weights.safetensors"
    path.write_bytes(data[: len(data) * cut // 100])
    refused(path)
    data[8 + cut] ^= 0x41  # within the header
    path.write_bytes(data)
    try:
        registry.make(Generate(weights=str(path)), CPU)
    except UserError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pkl", "weights"])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    refused(tmp_path / name)
    (tmp_path / "zero").symlink_to("/dev/zero")
    refused(tmp_path / "zero")


def test_pipes_in_a_pipeline_are_not_waited_for(copied):
    folder = copied("sd")
    for file in ("README.md", "unet/diffusion_pytorch_model.safetensors", "vae/config.json", "tokenizer/more.json"):
        os.mkfifo(folder / "pipe")
        (folder / "pipe").replace(folder / file)
        assert f"holds {file}, which is not a file" in refused(folder, prompt="a cat")
        (folder / file).unlink()
    (folder / "model_index.json").unlink()
    os.mkfifo(folder / "model_index.json")
    refused(folder, prompt="a cat")


NUMBERS = {  # file of a pipeline -> what its configuration says that is not to be believed
    "model_index.json": "_class_name unet vae scheduler text_encoder tokenizer requires_safety_checker",
    "unet/config.json": (
        "sample_size in_channels out_channels block_out_channels layers_per_block cross_attention_dim norm_num_groups "
        "attention_head_dim down_block_types up_block_types act_fn addition_embed_type class_embed_type _class_name"
    ),
    "vae/config.json": "latent_channels block_out_channels scaling_factor sample_size act_fn norm_num_groups",
    "scheduler/scheduler_config.json": (
        "num_train_timesteps beta_start beta_schedule prediction_type steps_offset trained_betas timestep_spacing"
    ),
    "text_encoder/config.json": (
        "hidden_size num_hidden_layers num_attention_heads vocab_size hidden_act intermediate_size auto_map"
    ),
    "tokenizer/tokenizer_config.json": "model_max_length tokenizer_class auto_map pad_token",
}  # fmt: skip
FOLDERS = [(file, key, value) for file, keys in NUMBERS.items() for key in keys.split() for value in ODD]
FEW = random.Random(0).sample(FOLDERS, 24)
REST = [pytest.param(*case, marks=pytest.mark.slow) for case in FOLDERS if case not in FEW]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("file", "key", "value"), [*FEW, *REST])
def test_a_pipeline_draws_or_is_refused_whatever_its_configurations_say(copied, file, key, value):
    folder = copied("sd")
    edited(folder, file, **{key: value})
    start = time.perf_counter()
    try:
        generator = registry.make(Generate(weights=str(folder), prompt="a cat", steps=1), CPU)
        latents = generator.sample_latents(1, torch.Generator().manual_seed(0))
        assert generator.render(latents).shape == (1, 3, generator.resolution, generator.resolution)
    except UserError as error:
        message = str(error)
        assert message.isprintable() and len(message) < 700 and "our fault" not in message
        assert str(folder) in message or "The pipeline in sd" in message or "Scheduler" in message
    assert time.perf_counter() - start < 10  # while other tests run


def test_there_are_500_of_them():
    assert len(SAFETENSORS) + len(VARIANTS) + len(FOLDERS) >= 500
