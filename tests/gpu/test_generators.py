"""StyleGAN on a real GPU: the numbers of the public implementations, and half precision near them."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from stages.devices import exact_float32
from stages.generators.stylegan import checkpoint
from stages.generators.stylegan.generator import load
from tests.helpers.stylegan import FIXTURES, FOLDERS

pytestmark = pytest.mark.gpu
GPU = torch.device("cuda", 0)


@pytest.mark.parametrize("name", FOLDERS)
@torch.no_grad()
def test_images_are_the_official_ones(name):
    network = checkpoint.read(FIXTURES / name / "network.pkl").network.to(GPU)
    io = np.load(FIXTURES / name / "io.npz")
    with exact_float32():
        image = network.synthesis(torch.from_numpy(io["w"]).to(GPU)).cpu()
        assert_allclose(image, io["image"], rtol=0, atol=5e-5)
        half = network.synthesis(torch.from_numpy(io["w"]).to(GPU), torch.float16).cpu()
    assert float((half - image).square().mean().sqrt()) < 0.02 * float(image.std()) + 1e-3


@pytest.mark.parametrize("name", FOLDERS)
def test_a_gpu_renders_in_half_precision_by_default_what_a_cpu_renders_in_full(name):
    found, full = (load(FIXTURES / name / "network.pkl", device=where, precision="auto") for where in ("cuda", "cpu"))
    assert (found.descriptor["precision"], full.descriptor["precision"]) == ("fp16", "fp32")
    latents = full.sample_latents(3, torch.Generator().manual_seed(0))
    one, other = (generator.render(latents).cpu().float() for generator in (found, full))
    assert float((one - other).abs().mean()) < 2  # grey levels
