"""Real generator families through the program: banks, live pairs, converting, looking."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from stages.artifacts.schemas import read
from stages.artifacts.store import Store
from tests.helpers.cli import TINY, run

SNAPSHOTS = Path(__file__).parents[1] / "fixtures" / "stylegan"
FAMILIES = {"sg2_64_cifar": "stylegan2", "sg3_t_32": "stylegan3", "xl_superres_32": "stylegan-xl"}


def snapshot(name: str) -> str:
    return str(SNAPSHOTS / name / "network.pkl")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_snapshot_makes_a_bank_and_live_pairs(toy_store, name):
    arguments = ["generate", "--weights", snapshot(name), "--samples", "12", "--image-size", "16", "--name", "real"]
    made = json.loads(run(toy_store.root, *arguments, "--json").stdout)
    assert made["generator"]["family"] == FAMILIES[name] and made["image_shape"] == [3, 16, 16]
    assert "non-commercial" in made["generator"]["licence"]
    for pairs in ("bank", "live"):
        trained = run(toy_store.root, "train", "--latents", "real", "--pairs", pairs, "--rounds", "2", *TINY, "--json")
        assert len(json.loads(trained.stdout)["runs"][0]["accuracy"]) == 3


def test_a_converted_file_stands_in_for_its_snapshot(toy_store, tmp_path):
    converted = tmp_path / "x.safetensors"
    assert "non-commercial" in run(toy_store.root, "generator", "convert", snapshot("sg3_t_32"), str(converted)).stderr
    for name, weights in (("one", snapshot("sg3_t_32")), ("other", str(converted))):
        run(toy_store.root, "generate", "--weights", weights, "--samples", "3", "--name", name)
    one, other = (read(toy_store.open(name)) for name in ("one", "other"))
    assert np.array_equal(one.images, other.images) and one.generator["sha256"] == other.generator["sha256"]


def test_generator_show(toy_store):
    facts = json.loads(run(toy_store.root, "generator", "show", snapshot("xl_superres_64"), "--json").stdout)
    assert facts["family"] == "stylegan-xl" and facts["resolution"] == 64 and facts["layers"]
    assert "stylegan-xl" in run(toy_store.root, "generator", "show", snapshot("xl_superres_64")).stdout


def test_weights_that_moved_are_found_again_and_others_refused(toy_store, tmp_path):
    here, there, other = tmp_path / "a.pkl", tmp_path / "b.pkl", tmp_path / "c.pkl"
    shutil.copy(snapshot("sg3_t_32"), here)
    run(toy_store.root, "generate", "--weights", str(here), "--samples", "8", "--name", "real")
    here.rename(there)
    shutil.copy(snapshot("sg3_r_32"), other)
    live = ["train", "--latents", "real", "--pairs", "live", "--rounds", "1", *TINY]
    assert "no weights at" in run(toy_store.root, *live, code=2).stderr
    assert "not the generator that made this bank" in run(toy_store.root, *live, "--weights", str(other), code=2).stderr
    run(toy_store.root, *live, "--weights", str(there))


def test_w_vectors_are_rendered_in_the_generators_own_size(toy_store, tmp_path):
    np.save(tmp_path / "w.npy", np.zeros((2, 32), np.float32))
    arguments = ["generate", "--weights", snapshot("sg3_t_64_cond"), "--from-latents", str(tmp_path / "w.npy")]
    made = json.loads(run(toy_store.root, *arguments, "--image-size", "native", "--json").stdout)
    assert made["image_shape"] == [3, 64, 64] and made["samples"] == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--generator", "stylegan2", "--weights", snapshot("sg3_t_32")], "holds a stylegan3 generator"),
        (["--weights", snapshot("sg3_t_32"), "--class-id", "3"], "no classes"),
        (["--weights", snapshot("sg3_t_64_cond"), "--class-id", "9"], "class ids from 0 to 4"),
        (["--weights", snapshot("sg3_t_32"), "--prompt", "a cat"], "without a prompt"),
        (["--weights", str(SNAPSHOTS / "README.md")], "README.md"),
        (["--weights", str(SNAPSHOTS)], "model_index.json"),
        (["--weights", snapshot("sg3_t_32"), "--truncation", "3"], "at most 2"),
        (["--weights", snapshot("sg3_t_32"), "--image-size", "huge"], "whole number"),
        (["--resume", "nothing"], "no unfinished bank"),
    ],
)
def test_weights_that_do_not_fit(toy_store, arguments, sentence):
    result = run(toy_store.root, "generate", *arguments, code=2)
    assert sentence in result.stderr.replace("\n", " ") and not result.stdout
    assert Store(toy_store.root).names("latents") == ["bank"]


CHECKPOINT = {
    "model.diffusion_model.input_blocks.0.0.weight": [4, 4],
    "first_stage_model.decoder.conv_in.weight": [4, 4],
    "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight": [77, 4],
}


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        (CHECKPOINT, "single-file diffusion checkpoint; save it as a folder with diffusers"),
        (
            {"conv_in.bias": [3], "conv_in.weight": [3, 3]},
            "It holds 2 tensors (conv_in.bias [3], conv_in.weight [3, 3])",
        ),
        ({"\x1b[2J" * 900: [3]}, r"It holds 1 tensors (\x1b[2J\x1b[2J"),
    ],
)
def test_safetensors_of_others_are_told_for_what_they_are_whatever_is_asked_of_them(tmp_path, tensors, sentence):
    file = str(tmp_path / "v1-5.safetensors")
    save_file({name: torch.zeros(shape) for name, shape in tensors.items()}, file)
    for asked in (
        ["generate", "--weights", file, "--prompt", "a cat"],
        ["generate", "--weights", file],
        ["generator", "show", file],
        ["generator", "convert", file, str(tmp_path / "out.safetensors")],
    ):
        told = run(tmp_path, *asked, code=2).stderr
        assert sentence in told and "\x1b" not in told
    assert not (tmp_path / "out.safetensors").exists()


def test_a_prompt_makes_a_bank_and_is_not_needed_again(toy_store, tmp_path):
    pytest.importorskip("diffusers")
    from tests.helpers import tiny_pipelines

    tiny_pipelines.save(tiny_pipelines.sd(), tmp_path / "sd")
    folder = str(tmp_path / "sd")
    arguments = [
        "generate",
        "--weights",
        folder,
        "--prompt",
        "a cat",
        "--steps",
        "2",
        "--samples",
        "6",
        "--name",
        "cat",
    ]
    made = json.loads(run(toy_store.root, *arguments, "--json").stdout)
    assert made["generator"]["prompt"] == "a cat" and made["latent_dim"] == 256
    assert made["generator"]["negative_prompt"] is None
    long = [*arguments, "--prompt", "ab " * 40 + "red bird", "--negative-prompt", "", "--name", "long", "--json"]
    told = run(toy_store.root, *long)
    assert "truncated" in told.stderr and "red bird" in told.stderr
    assert json.loads(told.stdout)["generator"]["negative_prompt"] == ""
    for encoder in ("text_encoder", "tokenizer"):
        shutil.rmtree(tmp_path / "sd" / encoder)
    run(toy_store.root, "train", "--latents", "cat", "--pairs", "live", "--rounds", "1", *TINY)
