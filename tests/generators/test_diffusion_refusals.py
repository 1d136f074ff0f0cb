"""Diffusers pipelines that can't be drawn with, and what is said of them."""

import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from stages.errors import UserError
from stages.generators import diffusion
from tests.helpers import tiny_pipelines
from tests.helpers.damage import edited
from tests.helpers.later import Later, needs
from tests.helpers.tiny_pipelines import drawn, some_latents

errors = pytest.importorskip("huggingface_hub.errors")
diffusers = Later("diffusers")
pytestmark = [needs("diffusers"), pytest.mark.filterwarnings("ignore")]  # the library's own


def test_a_refiner_is_refused_before_anything_is_drawn(tmp_path):
    tiny_pipelines.refiner().save_pretrained(tmp_path / "refiner")
    for look in (drawn, diffusion.describe):
        with pytest.raises(UserError, match="holds a refiner"):
            look(tmp_path / "refiner")
    edited(tmp_path / "refiner", "model_index.json", requires_aesthetics_score=False)
    for look in (drawn, diffusion.describe):
        with pytest.raises(UserError, match="names no text_encoder"):
            look(tmp_path / "refiner")


def test_what_the_library_raises_while_it_draws_is_a_sentence(copied):
    folder = copied("xl")
    edited(folder, "unet/config.json", addition_time_embed_dim=4)  # no weight depends on it
    generator = drawn(folder)
    with pytest.raises(UserError, match=r"^The pipeline in xl can't draw \(.*added time embedding.*\)\.$"):
        generator.render(some_latents(1))


def pickled(folder):
    (folder / "unet" / "diffusion_pytorch_model.safetensors").rename(folder / "unet" / "diffusion_pytorch_model.bin")


def without_a_tensor(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    del tensors["conv_in.bias"]
    save_file(tensors, path)


def half_and_an_adapter(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    save_file(
        {"lora": torch.zeros(sum(value.numel() for value in tensors.values()))}, path.with_name("lora.safetensors")
    )
    save_file(dict(list(tensors.items())[: len(tensors) // 2]), path)


def an_adapter_alone(folder):
    (folder / "unet/diffusion_pytorch_model.safetensors").rename(folder / "unet/pytorch_lora_weights.safetensors")


SPOILED = {  # what is done to a Stable Diffusion folder, and what the sentence must say
    "no index": (lambda f: (f / "model_index.json").unlink(), "has no model_index.json"),
    "no JSON": (lambda f: (f / "model_index.json").write_text("{"), "can't be read as JSON"),
    "no class": (lambda f: edited(f, "model_index.json", _class_name=None), "is not a pipeline of diffusers"),
    "custom pipeline": (lambda f: edited(f, "model_index.json", _class_name=["mine", "Mine"]), "code from a folder"),
    "other pipeline": (
        lambda f: edited(f, "model_index.json", _class_name="WanPipeline", x=["a", "B"]),
        "no pipeline for fedktl",
    ),
    "custom part": (lambda f: edited(f, "model_index.json", unet=["mine", "Mine"]), 'its unet from ["mine", "Mine"]'),
    "a part of its own": (lambda f: edited(f, "model_index.json", extra=["diffusers", "VQModel"]), "its extra from"),
    "a pipeline as part": (
        lambda f: edited(f, "model_index.json", unet=["diffusers", "DiffusionPipeline"]),
        "its unet from",
    ),
    "code": (lambda f: (f / "None.py").write_text(""), "holds None.py: code"),
    "code of a part": (lambda f: (f / "unet/unet.PY").write_text(""), "holds unet/unet.PY: code"),
    "a pipeline in it": (lambda f: (f / "unet/model_index.json").write_text("{}"), "holds unet/model_index.json"),
    "endless layers": (lambda f: edited(f, "unet/config.json", layers_per_block=10**6), "layers_per_block 1000000"),
    "endless width": (lambda f: edited(f, "unet/config.json", block_out_channels=[8, 2**70]), "block_out_channels"),
    "huge": (lambda f: edited(f, "unet/config.json", sample_size=10**6), "a multiple of 8 pixels up to 4096"),
    "long index": (lambda f: (f / "model_index.json").write_text(" " * 2**21 + "{}"), "longer than"),
    "an escape": (lambda f: edited(f, "model_index.json", unet=["\x1b[2J", "x" * 10**5]), "its unet from"),
    "unnamed part": (lambda f: edited(f, "model_index.json", vae=[None, None]), "names no vae"),
    "no such class": (lambda f: edited(f, "model_index.json", unet=["diffusers", "Nothing"]), "its unet from"),
    "no unet": (lambda f: shutil.rmtree(f / "unet"), "unet/config.json is missing"),
    "no scheduler": (lambda f: shutil.rmtree(f / "scheduler"), "scheduler/scheduler_config.json is missing"),
    "no tokenizer": (lambda f: shutil.rmtree(f / "tokenizer"), "tokenizer/tokenizer_config.json is missing"),
    "pickle": (pickled, "as pickle (diffusion_pytorch_model.bin)"),
    "no weights": (lambda f: (f / "text_encoder/model.safetensors").unlink(), "text_encoder has no .safetensors"),
    "a tensor less": (without_a_tensor, "unet lacks 1 of its tensors, first conv_in.bias"),
    "half and an adapter": (half_and_an_adapter, "unet lacks "),
    "an adapter alone": (an_adapter_alone, "unet has no .safetensors weights but pytorch_lora_weights.safetensors"),
    "cut weights": (lambda f: (f / "vae/diffusion_pytorch_model.safetensors").write_bytes(b"x"), "can't be read as a"),
    "wrong shape": (lambda f: edited(f, "unet/config.json", block_out_channels=[8, 8]), "can't be read as a"),
    "no size": (lambda f: edited(f, "unet/config.json", sample_size="8"), "sample_size '8'"),
    "no blocks": (lambda f: edited(f, "vae/config.json", block_out_channels=8), "block_out_channels 8"),
    "inpainting": (lambda f: edited(f, "unet/config.json", in_channels=9), "only text can be given here"),
}


@pytest.mark.parametrize("spoil, sentence", SPOILED.values(), ids=SPOILED)
def test_a_spoiled_folder_gets_a_sentence(copied, spoil, sentence):
    folder = copied("sd")
    spoil(folder)
    with pytest.raises(UserError) as raised:
        drawn(folder)
    message = str(raised.value)
    assert sentence in message and message.isprintable() and str(folder) in message and len(message) < 600


@pytest.mark.parametrize(
    "name, more, sentence",
    [
        ("sd", dict(prompt=None), "draws what a prompt says"),
        ("sd", dict(scheduler="eulr"), "did you mean euler"),
        ("sd3", dict(scheduler="ddim"), "no scheduler for this pipeline named 'ddim'"),
        ("sd", dict(steps=0), "at least 1"),
        ("sd", dict(steps=2000), "can't take 2000 steps"),
        ("sd", dict(guidance=float("nan")), "guidance at least 0"),
        ("sd", dict(size=20), "a multiple of 8 pixels"),
        ("sd", dict(size=0), "a multiple of 8 pixels"),
        ("sd", dict(precision="fp8"), "did you mean fp"),
        ("sd", dict(embeddings={"prompt_embeds": torch.zeros(1, 77, 32)}), "takes prompt_embeds, negative_prompt"),
        ("ddpm", dict(), "draws without a prompt"),
    ],
)
def test_a_bad_argument_gets_a_sentence(pipelines, name, more, sentence):
    with pytest.raises(UserError, match=sentence):
        drawn(pipelines / name, **more)


def test_latents_of_another_generator(pipelines):
    generator = diffusion.load(pipelines / "ddpm", steps=1)
    for latents in (some_latents(2, 191), some_latents(2, 192).view(2, 3, 8, 8)):
        with pytest.raises(UserError, match=r"takes \[n, 192\]"):
            generator.render(latents)
    with pytest.raises(UserError, match="not finite numbers"):
        generator.render(torch.full((1, 192), torch.nan))


def test_a_precision_that_the_device_lacks(pipelines, monkeypatch):
    def refused(*_):
        raise RuntimeError("not implemented for 'Half'")

    monkeypatch.setattr(torch.nn.functional, "conv2d", refused)
    with pytest.raises(UserError, match="has no fp16 convolution"):
        drawn(pipelines / "sd", precision="fp16")


def test_without_the_library_the_sentence_says_what_to_install(pipelines, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UserError, match=r"pip install 'fedktl\[diffusion\]'"):
        drawn(pipelines / "sd")


def test_neither_folder_nor_hub_name(tmp_path):
    (tmp_path / "file").write_text("")
    for name in (tmp_path / "nothing", tmp_path / "file", "stable-diffusion"):
        with pytest.raises(UserError, match="is not a folder"):
            drawn(name)


@pytest.mark.parametrize(
    "error, advice",
    [
        (OSError("no network"), r"none on the hub \(no network\); check the name and the network"),
        (errors.GatedRepoError("restricted", response=SimpleNamespace(headers={}, request=None)), "accept its licence"),
    ],
)
def test_a_hub_pipeline_that_does_not_come(monkeypatch, error, advice):
    def download(*_, **__):
        raise error

    monkeypatch.setattr(diffusers.DiffusionPipeline, "download", download)
    with pytest.raises(UserError, match=advice):
        drawn("owner/name")


def test_a_hub_pipeline_is_read_from_the_cache_under_its_name(pipelines, monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: None)
    monkeypatch.setattr(diffusers.DiffusionPipeline, "download", lambda name, **_: str(pipelines / "sd"))
    assert drawn("owner/name").descriptor["source"] == "owner/name"
