"""Generators on a real GPU: StyleGAN has the public implementations' numbers, half precision is near them, training is replayed."""

from contextlib import nullcontext
from itertools import islice

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from stages.algorithms.common import cuda_graphs
from stages.algorithms.common.cuda_graphs import replayable
from stages.devices import exact_float32
from stages.generators.builtin import train
from stages.generators.stylegan import checkpoint
from stages.generators.stylegan.generator import load
from stages.settings import TrainGenerator
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


def test_training_the_built_in_generator_is_replayed_and_computes_what_eager_steps_do(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "_refused", set())
    images = np.random.default_rng(0).integers(0, 256, (24, 3, 32, 32), np.uint8)
    settings, found = TrainGenerator(batch_size=8, discriminator_width=16, device="cuda:0"), []
    for replays in (False, True):
        training = train.Training(settings, images)
        with (
            exact_float32(),
            replayable(training.step, GPU, training) if replays else nullcontext(training.step) as step,
        ):
            for given in islice(training.choices(), 4):
                step(*given)
                training.average_in()
                training.steps += 1
        found.append(training)
    assert not cuda_graphs._refused
    eager, replayed = found
    torch.testing.assert_close(replayed.losses, eager.losses, rtol=1e-2, atol=1e-2)
    for (name, ours), (_, theirs) in zip(*(one.average.state_dict().items() for one in found), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.02, atol=2e-3, msg=name)
