"""Diffusers pipelines, against the library's own calls on tiny real ones."""

import gc
import json
import logging
import shutil
import socket
import sys

import pytest
import torch
from safetensors.torch import load_file

from stages.errors import UserError
from stages.generators import diffusion
from stages.generators.diffusion import generator as generators
from stages.generators.diffusion.library import SCHEDULERS
from tests.helpers.damage import edited
from tests.helpers.later import Later, needs
from tests.helpers.tiny_pipelines import drawn, library_call, some_latents

diffusers, transformers = Later("diffusers"), Later("transformers")
pytestmark = [
    needs("diffusers", "transformers"), pytest.mark.filterwarnings("ignore"),  # the library's own, in its own calls
]  # fmt: skip

TEXT = ("sd", "xl", "sd3", "lcm")
SETTINGS = ("prompt", "negative_prompt", "steps", "guidance", "scheduler", "precision", "size")
NOISY = ("ddpm", "euler-a", "lcm")


@pytest.fixture(scope="session")
def cat(pipelines):
    """Stable Diffusion as `drawn` loads it, not to be changed."""
    return drawn(pipelines / "sd")


def same(first, second) -> bool:
    """But for values that fall between two grey levels: other batches add up in another order."""
    return bool((first.int() - second.int()).abs().max() <= 1 and (first != second).float().mean() < 0.01)


@pytest.mark.parametrize("name", TEXT)
def test_pictures_are_those_of_the_library(pipelines, name):
    steps = 1 if name == "lcm" else 4  # the second step of LCM adds noise
    found = drawn(pipelines / name, steps=steps).render(some_latents())
    assert found.shape == (3, 3, 16, 16) and found.dtype == torch.uint8 and found.float().std() > 10
    assert same(found, library_call(pipelines / name, some_latents(), steps=steps))


@pytest.mark.parametrize("name", sorted(SCHEDULERS.keys() - set(NOISY)))
def test_another_scheduler_is_the_librarys_too(pipelines, name):
    generator = drawn(pipelines / "sd", scheduler=name)
    assert generator.descriptor["scheduler"] == SCHEDULERS[name]
    wanted = library_call(pipelines / "sd", some_latents(), SCHEDULERS[name])
    assert same(generator.render(some_latents()), wanted)


@pytest.mark.parametrize("folder, scheduler", [*(("sd", s) for s in SCHEDULERS), ("lcm", None), ("ddpm", "ddpm")])
def test_a_picture_depends_on_its_latent_alone(pipelines, folder, scheduler):
    more = {} if folder == "ddpm" else dict(prompt="a cat")
    generator = diffusion.load(pipelines / folder, scheduler=scheduler, steps=4, **more)
    latents = some_latents(2, generator.latent_dim)
    together = generator.render(latents)
    assert torch.equal(together, generator.render(latents))
    apart = torch.cat([generator.render(latents[[row]]) for row in (1, 0)]).flip(0)
    assert same(together, apart)


def test_noise_differs_between_pictures():
    first, second = (torch.randn(8, generator=noise) for noise in generators._noise(some_latents(2)))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("name", TEXT)
def test_kept_embeddings_replace_the_text_encoders(copied, name):
    folder = copied(name)
    first = drawn(folder)
    for part in [*folder.glob("text_encoder*"), *folder.glob("tokenizer*")]:
        shutil.rmtree(part)
    kept = {name: torch.from_numpy(value.numpy()) for name, value in first.embeddings.items()}
    again = diffusion.load(
        folder, embeddings=kept, **{key: first.descriptor[key] for key in SETTINGS if key in first.descriptor}
    )
    assert torch.equal(first.render(some_latents()), again.render(some_latents()))
    assert again.descriptor == first.descriptor == json.loads(json.dumps(first.descriptor))


def test_text_encoders_are_gone_once_the_prompt_is_encoded(cat):
    gc.collect()
    assert not any(isinstance(thing, transformers.CLIPPreTrainedModel) for thing in gc.get_objects())


def test_embeddings_are_float32_rows_by_the_librarys_names(pipelines):
    assert {name: tuple(value.shape) for name, value in drawn(pipelines / "xl").embeddings.items()} == {
        "prompt_embeds": (1, 77, 64),
        "negative_prompt_embeds": (1, 77, 64),
        "pooled_prompt_embeds": (1, 32),
        "negative_pooled_prompt_embeds": (1, 32),
    }
    (only,) = drawn(pipelines / "sd", guidance=1.0, precision="bf16").embeddings.values()
    assert only.dtype == torch.float32


def test_prompt_guidance_and_negative_prompt_matter(cat, pipelines):
    texts = (dict(prompt="a tree"), dict(negative_prompt=""), dict(guidance=2.0), dict(guidance=1.0))
    every = [cat, *(drawn(pipelines / "sd", **text) for text in texts)]
    pictures = [generator.render(some_latents(1)) for generator in every]
    assert not any(torch.equal(a, b) for i, a in enumerate(pictures) for b in pictures[:i])


def test_another_size(pipelines):  # of which the network of SDXL is told
    generator, latents = drawn(pipelines / "xl", size=32), some_latents(2, 1024)
    assert (generator.latent_dim, generator.resolution) == (4 * 16 * 16, 32)
    assert same(generator.render(latents), library_call(pipelines / "xl", latents, size=32))


def test_latents_are_standard_normal_and_follow_the_generator(cat):
    latents = cat.sample_latents(200, torch.Generator().manual_seed(5))
    assert latents.shape == (200, 256) and latents.dtype == torch.float32
    assert abs(latents.mean()) < 0.02 and abs(latents.std() - 1) < 0.02
    assert torch.equal(latents, cat.sample_latents(200, torch.Generator().manual_seed(5)))


def test_many_pictures_are_drawn_in_batches_of_bounded_size(cat, pipelines, monkeypatch):
    whole = cat.render(some_latents(5))
    monkeypatch.setattr(generators, "PIXELS_AT_ONCE", 2 * 16 * 16)
    generator = drawn(pipelines / "sd")
    sizes, draw = [], generator._draw
    monkeypatch.setattr(generator, "_draw", lambda noise, rest: (sizes.append(len(noise)), draw(noise, rest))[1])
    assert same(whole, generator.render(some_latents(5)))
    assert sizes == [2, 2, 1]


def test_half_precision_is_near(cat, pipelines):
    rough = drawn(pipelines / "sd", precision="bf16").render(some_latents())
    assert 0 < (cat.render(some_latents()).float() - rough.float()).abs().mean() < 4


@pytest.mark.parametrize("name", ["ddpm", "grey"])
def test_unconditional_pictures_are_those_of_ddim(pipelines, name):
    generator = diffusion.load(pipelines / name, steps=4)
    assert generator.descriptor["scheduler"] == "DDIMScheduler" and generator.resolution == 8
    latents = generator.sample_latents(2, torch.Generator().manual_seed(3))
    unet = diffusers.UNet2DModel.from_pretrained(pipelines / name / "unet")
    schedule = diffusers.DDIMScheduler.from_pretrained(pipelines / name / "scheduler")
    pipe = diffusers.DDIMPipeline(unet, schedule)
    wanted = pipe(2, generator=torch.Generator().manual_seed(3), num_inference_steps=4, output_type="np").images
    wanted = torch.from_numpy(wanted).permute(0, 3, 1, 2).mul(255).round().to(torch.uint8)
    assert torch.equal(generator.render(latents), wanted.expand(-1, 3, -1, -1))


def test_a_single_network_may_lie_beside_the_index(copied, pipelines):
    folder = copied("ddpm")
    for part in ("unet", "scheduler"):
        for file in (folder / part).iterdir():
            file.rename(folder / file.name)
        (folder / part).rmdir()
    found, wanted = diffusion.load(folder, steps=2), diffusion.load(pipelines / "ddpm", steps=2)
    assert torch.equal(found.render(some_latents(2, 192)), wanted.render(some_latents(2, 192)))
    assert diffusion.describe(folder) == diffusion.describe(pipelines / "ddpm")


def test_a_folder_with_only_the_fp16_variant(copied, cat):
    folder = copied("sd")
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float16)
    shutil.rmtree(folder)
    pipe.save_pretrained(folder, variant="fp16")
    found = drawn(folder).render(some_latents())
    assert 0 < (cat.render(some_latents()).float() - found.float()).abs().mean() < 1


def test_describe_reads_no_weights_and_needs_no_library(pipelines, monkeypatch):
    unet = diffusers.UNet2DConditionModel.from_pretrained(pipelines / "sd" / "unet")
    monkeypatch.setitem(sys.modules, "diffusers", None)
    told = diffusion.describe(pipelines / "sd")
    assert told.pop("parameters").items() >= {"unet": sum(p.numel() for p in unet.parameters())}.items()
    assert len(told.pop("sha256")) == 64
    assert told == {
        "family": "stable-diffusion",
        "pipeline": "StableDiffusionPipeline",
        "resolution": 16,
        "latent_dim": 256,
        "scheduler": "DDIMScheduler",
        "source": "sd",
        "licence": "openrail++",
    }
    assert diffusion.describe(pipelines / "grey")["latent_dim"] == 64


def test_the_digest_follows_what_draws(copied):
    folder = copied("sd")
    before = diffusion.describe(folder)["sha256"]
    shutil.rmtree(folder / "text_encoder")
    assert diffusion.describe(folder)["sha256"] == before
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert diffusion.describe(folder)["sha256"] != before


def test_loading_is_silent_offline_and_leaves_no_trace(pipelines, monkeypatch, capfd, recwarn):
    def no_network(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(socket.socket, "connect", no_network)
    before = logging.getLogger("diffusers").level, logging.getLogger("transformers").level
    gc.collect()  # what earlier tests left open warns now, and not in the middle of this one
    recwarn.clear()
    drawn(pipelines / "xl").render(some_latents())
    assert capfd.readouterr() == ("", "") and not [str(each.message) for each in recwarn]
    assert before == (logging.getLogger("diffusers").level, logging.getLogger("transformers").level)
    assert diffusers.utils.logging.is_progress_bar_enabled() and transformers.utils.logging.is_progress_bar_enabled()


@pytest.mark.parametrize("name", ["sd", "sd3"])
def test_what_is_cut_off_a_long_prompt_is_told(pipelines, name):
    beginning = "ab " * 40
    with pytest.warns(UserWarning, match="truncated because CLIP can only handle sequences up to 77 tokens.*red bird"):
        one = drawn(pipelines / name, prompt=beginning + "red bird")
    with pytest.warns(UserWarning, match="blue house"):
        other = drawn(pipelines / name, prompt=beginning + "blue house")
    same_text = all(torch.equal(one.embeddings[part], other.embeddings[part]) for part in one.embeddings)
    assert same_text == (name != "sd3")  # whose third encoder reads on


@pytest.mark.parametrize("name", ["sd", "xl"])
@pytest.mark.parametrize("negative", [None, ""])
def test_no_negative_prompt_and_an_empty_one_are_the_librarys_too(pipelines, name, negative):
    found = drawn(pipelines / name, negative_prompt=negative).render(some_latents())
    assert same(found, library_call(pipelines / name, some_latents(), negative=negative))


def test_for_sdxl_no_negative_prompt_is_not_an_empty_one(pipelines, copied):
    told = {n: drawn(pipelines / "xl", negative_prompt=n).embeddings["negative_prompt_embeds"] for n in (None, "")}
    assert not told[None].any() and told[""].any()
    folder = copied("xl")
    edited(folder, "model_index.json", force_zeros_for_empty_prompt=False)
    one, other = (drawn(folder, negative_prompt=n) for n in (None, ""))
    assert torch.equal(one.embeddings["negative_prompt_embeds"], other.embeddings["negative_prompt_embeds"])


@pytest.mark.parametrize(
    ("variant", "pattern"),
    [
        ("bf16", "{stem}.{variant}.safetensors"),
        ("ema", "{stem}.{variant}.safetensors"),
        ("fp16", "{stem}-00001-of-00001.{variant}.safetensors"),
    ],
)
def test_other_variants_of_the_weights(copied, cat, variant, pattern):
    folder = copied("sd")
    for part in ("unet", "vae", "text_encoder"):
        (file,) = (folder / part).glob("*.safetensors")
        named = file.with_name(pattern.format(stem=file.stem, variant=variant))
        file.rename(named)
        if "-of-" in pattern:
            tensors = dict.fromkeys(load_file(named), named.name)
            index = {"metadata": {"total_size": 1}, "weight_map": tensors}
            file.with_name(f"{file.name}.index.{variant}.json").write_text(json.dumps(index))
    assert torch.equal(drawn(folder).render(some_latents()), cat.render(some_latents()))
    assert diffusion.describe(folder)["parameters"]["unet"] > 0


def test_full_precision_is_read_where_it_is_there(copied, cat):
    folder = copied("sd")
    (file,) = (folder / "unet").glob("*.safetensors")
    for variant in ("fp16", "non_ema"):
        shutil.copy(folder / "vae/diffusion_pytorch_model.safetensors", file.with_suffix(f".{variant}.safetensors"))
    assert torch.equal(drawn(folder).render(some_latents()), cat.render(some_latents()))


def test_stable_diffusion_3_without_its_third_text_encoder(copied):
    folder = copied("sd3")
    for part in ("text_encoder_3", "tokenizer_3"):
        shutil.rmtree(folder / part)
    with pytest.raises(UserError, match=r"text_encoder_3/config\.json is missing.*\[null, null\]"):
        drawn(folder)
    edited(folder, "model_index.json", text_encoder_3=[None, None], tokenizer_3=[None, None])
    wanted = library_call(folder, some_latents(), text_encoder_3=None, tokenizer_3=None)
    assert same(drawn(folder).render(some_latents()), wanted)
