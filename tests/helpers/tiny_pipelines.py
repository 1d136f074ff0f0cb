"""Real diffusers pipelines with networks so small that they load and draw in a blink. Latents [4, 8, 8], 16 pixels."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from stages.generators import diffusion
from tests.helpers.later import Later

diffusers, tokenizers, transformers = Later("diffusers"), Later("tokenizers"), Later("transformers")

CARD = "---\ntags:\n- tiny\nlicense: openrail++\n---\nlicense: not this one\n"
CHANNELS = (8, 16)


def build(folder: Path) -> None:
    """Save the pipelines `sd`, `xl`, `sd3`, `lcm`, `ddpm` and `grey` below `folder`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for make in (sd, xl, sd3, lcm, ddpm, grey):
            save(make(), folder / make.__name__)


def save(pipeline, folder: Path) -> None:
    pipeline.save_pretrained(folder, safe_serialization=True)
    (folder / "README.md").write_text(CARD)


def some_latents(count: int = 3, width: int = 256) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(0))


def drawn(folder: Path, **more):
    """The pipeline as fedktl loads it, for 'a cat' and against 'a dog' unless told otherwise."""
    return diffusion.load(folder, **dict(prompt="a cat", negative_prompt="a dog", steps=4) | more)


def library_call(
    folder: Path,
    latents: torch.Tensor,
    scheduler: str = "",
    size: int = 16,
    steps: int = 4,
    negative: str | None = "a dog",
    **parts,
) -> torch.Tensor:
    """What diffusers draws from latents [n, H] for 'a cat' and against 'a dog': uint8 [n, 3, size, size]."""
    pipe = diffusers.AutoPipelineForText2Image.from_pretrained(
        folder, local_files_only=True, safety_checker=None, **parts
    )
    if scheduler:
        pipe.scheduler = getattr(diffusers, scheduler).from_config(pipe.scheduler.config)
    count = len(latents)
    against = {} if folder.name == "lcm" or negative is None else dict(negative_prompt=[negative] * count)
    images = pipe(
        ["a cat"] * count, **against, latents=latents.view(count, 4, size // 2, size // 2), height=size, width=size,
        num_inference_steps=steps, guidance_scale=7.5, output_type="pt",
    ).images  # fmt: skip
    return images.mul(255).round().to(torch.uint8)


def sd():
    return diffusers.StableDiffusionPipeline(
        unet=unet(32), scheduler=diffusers.DDIMScheduler(**NOISE), **text(1), vae=vae(), **UNWATCHED
    )


def refiner():
    """Changes pictures: it has one text encoder, and its network is told how beautiful they shall be."""
    added = dict(addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=72)
    own = {
        f"{part}_2": value
        for part, value in zip(("text_encoder", "tokenizer"), list(text(2).values())[2:], strict=True)
    }
    return diffusers.StableDiffusionXLImg2ImgPipeline(
        unet=unet(32, **added), scheduler=diffusers.EulerDiscreteScheduler(), vae=vae(), text_encoder=None,
        tokenizer=None, **own, requires_aesthetics_score=True,
    )  # fmt: skip


def xl():
    added = dict(addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=80)
    scheduler = diffusers.EulerDiscreteScheduler()
    return diffusers.StableDiffusionXLPipeline(unet=unet(64, **added), scheduler=scheduler, **text(2), vae=vae())


def sd3():
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=1, in_channels=4, out_channels=4, num_layers=1, attention_head_dim=8,
        num_attention_heads=4, caption_projection_dim=32, joint_attention_dim=64, pooled_projection_dim=64,
    )  # fmt: skip
    encoders = text(2, pooled=True) | t5()
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer, scheduler=scheduler, **encoders, vae=vae(shift_factor=0.06)
    )


def lcm():
    scheduler = diffusers.LCMScheduler(**NOISE)
    return diffusers.LatentConsistencyModelPipeline(
        unet=unet(32, time_cond_proj_dim=8), scheduler=scheduler, **text(1), vae=vae(), **UNWATCHED
    )


def ddpm(channels: int = 3):
    network = diffusers.UNet2DModel(
        sample_size=8, in_channels=channels, out_channels=channels, layers_per_block=1, block_out_channels=CHANNELS,
        norm_num_groups=4, down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    return diffusers.DDPMPipeline(network, diffusers.DDPMScheduler())


def grey():
    return ddpm(channels=1)


NOISE = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1)
UNWATCHED = dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def unet(width: int, **more):
    return diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=CHANNELS, layers_per_block=1,
        norm_num_groups=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=width, attention_head_dim=4, **more,
    )  # fmt: skip


def vae(**more):
    return diffusers.AutoencoderKL(
        block_out_channels=CHANNELS, latent_channels=4, norm_num_groups=4, sample_size=16,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, **more,
    )  # fmt: skip


def text(encoders: int, pooled: bool = False) -> dict:
    """One CLIP, or two of which the last one pools."""
    config = transformers.CLIPTextConfig(
        vocab_size=514, hidden_size=32, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4,
        projection_dim=32, bos_token_id=512, eos_token_id=513,
    )  # fmt: skip
    found = {}
    for number in range(1, encoders + 1):
        kind = transformers.CLIPTextModelWithProjection if pooled or number == 2 else transformers.CLIPTextModel
        suffix = f"_{number}" if number > 1 else ""
        found |= {f"text_encoder{suffix}": kind(config), f"tokenizer{suffix}": tokenizer()}
    return found


def t5() -> dict:
    letters = [(chr(code), -1.0) for code in range(32, 127)]
    pieces = tokenizers.models.Unigram([("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *letters], unk_id=2)
    encoder = transformers.T5EncoderModel(
        transformers.T5Config(vocab_size=98, d_model=64, d_kv=8, d_ff=37, num_layers=1, num_heads=2)
    )
    words = transformers.T5TokenizerFast(tokenizer_object=tokenizers.Tokenizer(pieces), extra_ids=0)
    return dict(text_encoder_3=encoder, tokenizer_3=words)


def tokenizer():
    """Every byte is a word."""
    letters = [chr(code) for code in range(33, 256) if chr(code).isprintable()]
    letters += [chr(256 + code) for code in range(256 - len(letters))]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    with TemporaryDirectory() as folder:  # its versions agree on files, and on no argument
        Path(folder, "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
        Path(folder, "merges.txt").write_text("#version: 0.2\n")
        return transformers.CLIPTokenizer.from_pretrained(folder, model_max_length=77)
