"""StyleGAN families as generators: from a file to pictures."""

import hashlib
import json
import weakref

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from stages.generators.stylegan import checkpoint, convert, describe, load, snapshots
from stages.generators.stylegan.generator import StyleGAN
from tests.helpers.stylegan import FIXTURES, FOLDERS, snapshot

BUFFERS = {
    "w_avg", "noise_const", "resample_filter", "up_filter", "down_filter", "magnitude_ema", "transform", "freqs",
    "phases",
}  # fmt: skip


def drawn(generator: StyleGAN, n: int, seed: int = 0) -> torch.Tensor:
    return generator.sample_latents(n, torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=FOLDERS)
def converted(request, tmp_path_factory):
    """A snapshot, and the safetensors file made of it."""
    out = tmp_path_factory.mktemp("converted") / f"{request.param}.safetensors"
    convert(snapshot(request.param), out)
    return snapshot(request.param), out


def test_a_converted_file_yields_identical_images(converted):
    original, copy = (load(path) for path in converted)
    latents = drawn(original, 3)
    assert torch.equal(drawn(copy, 3), latents)
    assert torch.equal(copy.render(latents), original.render(latents))
    assert copy.descriptor == original.descriptor
    assert not list(converted[1].parent.glob(".*"))


def test_a_generator_says_what_it_is(converted):
    generator, source = load(converted[1]), converted[0]
    latents = drawn(generator, 2)
    images = generator.render(latents)
    assert latents.dtype == torch.float32 and latents.shape == (2, generator.latent_dim)
    assert images.dtype == torch.uint8 and images.shape == (2, 3, generator.resolution, generator.resolution)
    facts = json.loads(json.dumps(generator.descriptor))
    assert facts["source"] == "network.pkl"
    assert facts["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert "non-commercial" in facts["licence"] and "NVIDIA Source Code License" in facts["licence"]


@pytest.mark.parametrize(
    ("folder", "family", "classes", "layer"),
    [
        ("sg2_64_cifar", "stylegan2", 10, {"name": "b64", "channels": 12, "size": 64}),
        ("sg3_t_64_cond", "stylegan3", 5, {"name": "L14_64_3", "channels": 3, "size": 64}),
        ("xl_superres_64", "stylegan-xl", 8, {"name": "L12_64_3", "channels": 3, "size": 64}),
    ],
)
def test_describe(folder, family, classes, layer):
    facts = describe(snapshot(folder))
    assert (facts["family"], facts["resolution"], facts["latent_dim"]) == (family, 64, 32)
    assert facts["classes"] == classes
    assert facts["layers"][-1] == layer
    tensors = snapshots.read(snapshot(folder)).state_dict()
    learned = [tensor.numel() for name, tensor in tensors.items() if name.rpartition(".")[2] not in BUFFERS]
    assert facts["parameters"] == sum(learned)
    json.dumps(facts)


@pytest.mark.parametrize(
    ("folder", "factor", "offset"), [("sg2_32", 127.5, 128), ("sg3_r_32", 127.5, 128), ("xl_stem_16", 127.5, 127.5)]
)
def test_image_ranges(folder, factor, offset):
    """Sound: rounded once. Reference: its own factor and offset, truncated. Values outside are clamped by both."""
    io = np.load(FIXTURES / folder / "io.npz")
    w, image = torch.from_numpy(io["w"][:, 0]), io["image"]
    exact = image * factor + offset
    generator = load(snapshot(folder), image_range="reference")
    reference = generator.render(w).numpy()
    assert np.abs(generator.pixels(w).numpy() - np.clip(exact, 0, 255)).max() < 1e-2
    near_a_step = np.abs(exact - np.round(exact)) < 1e-2
    assert ((reference == np.clip(exact, 0, 255).astype(np.uint8)) | near_a_step).all()
    sound = load(snapshot(folder)).render(w).numpy()
    exact = image * 127.5 + 127.5
    near_a_step = np.abs(exact % 1 - 0.5) < 1e-2
    assert ((sound == np.clip(np.round(exact), 0, 255)) | near_a_step).all()


@pytest.mark.parametrize("folder", ["xl_stem_16", "xl_superres_32"])
def test_the_references_bytes(folder):
    io = np.load(FIXTURES / folder / "io.npz")
    found = load(snapshot(folder), image_range="reference").render(torch.from_numpy(io["w"][:1, 0]))
    expected = io["w_to_img_uint8"].transpose(0, 3, 1, 2).astype(int)
    assert np.abs(found.numpy().astype(int) - expected).max() <= 1


def test_latents_depend_on_the_stream_alone():
    generator = load(snapshot("sg3_t_64_cond"))
    state = torch.get_rng_state()
    assert torch.equal(drawn(generator, 4), drawn(generator, 4))
    assert not torch.equal(drawn(generator, 4), drawn(generator, 4, seed=1))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("folder", ["sg2_64_cifar", "xl_stem_16"])
def test_truncation_leads_to_the_mean(folder):
    network = checkpoint.read(snapshot(folder)).network
    still = load(snapshot(folder), truncation=0.0, class_id=3)
    mean = network.mapping.w_avg if folder.startswith("sg2") else network.mapping.w_avg[3]
    assert torch.equal(drawn(still, 2), mean.expand(2, -1))
    full, half = load(snapshot(folder), class_id=3), load(snapshot(folder), class_id=3, truncation=0.5)
    torch.testing.assert_close(drawn(half, 2), (mean + drawn(full, 2)) / 2)


@pytest.mark.parametrize("folder", ["sg2_64_cifar", "sg3_t_64_cond", "xl_stem_16"])
def test_a_class_can_be_fixed(folder):
    """Random classes vary from latent to latent; a fixed one is one of them, at the same z."""
    varied = drawn(load(snapshot(folder)), 20)
    fixed = torch.stack([drawn(load(snapshot(folder), class_id=label), 20) for label in range(5)])
    assert not torch.allclose(fixed[0], fixed[1])
    distances = (fixed - varied).abs().amax(2)  # [classes, n]
    matches = distances < 1e-5
    assert matches.any(1).sum() >= 2
    assert matches.sum(0).max() <= 1


def test_batches_of_any_size():
    generator = load(snapshot("sg3_t_32"))
    latents = drawn(generator, 5)
    whole = generator.render(latents).int()
    generator._images_at_once = 2
    assert (generator.render(latents).int() - whole).abs().max() <= 1  # sums in another order may round otherwise
    assert generator.render(latents[:1]).shape == (1, 3, 32, 32)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision(precision):
    full, half = (load(snapshot("sg2_resnet_32_cond"), precision=name) for name in ("fp32", precision))
    latents = drawn(full, 2)
    assert torch.equal(drawn(half, 2), latents)
    assert (half.render(latents).float() - full.render(latents).float()).abs().mean() < 2
    assert half.descriptor["precision"] == precision


class MostAlive(TorchDispatchMode):
    """Counts how many tensors of at least `size` numbers are alive at once, by their memory."""

    def __init__(self, size: int):
        super().__init__()
        self.size, self.seen, self.most = size, [], 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.numel() >= self.size:
            self.seen.append(weakref.ref(out))
            alive = [tensor for reference in self.seen if (tensor := reference()) is not None]
            self.most = max(self.most, len({tensor.untyped_storage().data_ptr() for tensor in alive}))
        return out


@pytest.mark.parametrize("folder", ["sg3_t_32", "sg3_r_32"])
@torch.no_grad()
def test_one_upsampled_activation_at_a_time(folder):
    weights = checkpoint.read(snapshot(folder))
    w = torch.zeros(1, weights.config.mapping.w_dim)
    for layer in list(weights.network.synthesis.children())[1:-1]:
        config = layer.config
        x = torch.zeros(1, config.in_channels, config.in_size, config.in_size)
        with MostAlive(config.out_channels * config.upsampled**2) as counted:
            layer(x, w)
        assert counted.most == 1
