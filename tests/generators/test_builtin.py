"""The generator that comes with fedktl: its weights, and the command that trains it."""

import copy
import dataclasses
from itertools import islice

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from stages.errors import Interrupted, UserError
from stages.generators import registry
from stages.generators.builtin import generator, train
from stages.generators.builtin.generator import WEIGHTS, pretrained
from stages.generators.builtin.network import Network
from stages.observer import Observer
from stages.randomness import Rng, seeded
from stages.settings import Generate, TrainGenerator
from tests.helpers.cli import run

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """A network that trains in a moment; what reads weights learns its widths from them."""
    monkeypatch.setattr(train, "Network", lambda: Network((16, 8, 8, 8)))


@pytest.fixture
def source(tmp_path):
    """Twelve training and four test images."""
    draw = np.random.default_rng(0)
    parts = {f"x_{part}": draw.integers(0, 256, (n, 32, 32, 3), np.uint8) for part, n in (("train", 12), ("test", 4))}
    np.savez(tmp_path / "images.npz", **parts, y_train=np.arange(12) % 3, y_test=np.arange(4) % 3)
    return tmp_path / "images.npz"


def trained(source, work, *options, code=0):
    return run(
        work.parent,
        "generator",
        "train",
        str(source),
        str(work),
        "--batch-size",
        "4",
        "--threads",
        "1",
        *options,
        code=code,
    )


def test_standardising_changes_coordinates_and_no_image():
    with seeded(3):
        network = Network((16, 8, 8, 8))
    z = torch.randn(2000, 64, generator=Rng(1).torch("z"))
    with torch.no_grad():
        before = network.synthesis(network.mapping(z[:20]))
        found = torch.cov(network.mapping(z).T)
        after = train.standardised(network, Rng(0))
        latents = after.mapping(z)
        torch.testing.assert_close(after.synthesis(latents[:20]), before, atol=1e-4, rtol=0)
    assert latents.mean(0).abs().max() < 0.1
    torch.testing.assert_close(torch.cov(latents.T), found * (64 / found.trace()), atol=0.05, rtol=0)


def test_training_goes_on_as_if_it_had_never_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "AHEAD", 3)  # so that the checkpoint is not where new random choices are drawn
    images = torch.randint(0, 256, (12, 3, 32, 32), generator=Rng(0).torch(), dtype=torch.uint8).numpy()
    settings = TrainGenerator(batch_size=4, discriminator_width=8, device="cpu")
    whole, half, rest = (train.Training(dataclasses.replace(settings, seed=seed), images) for seed in (0, 0, 1))
    rest.rng = Rng(0)
    for training, steps in ((whole, 4), (half, 2), (rest, 2)):
        if training is rest:
            half.save(tmp_path / "checkpoint")
            rest.load(tmp_path / "checkpoint")
        for given in islice(training.choices(), steps):
            training.step(*given)
            training.average_in()
            training.steps += 1
    assert rest.steps == 4
    for ours, theirs in ((whole.average, rest.average), (whole.networks, rest.networks)):
        for name, value in ours.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name]), name
    for (name, value), (_, other) in zip(whole.moments(), rest.moments(), strict=True):
        assert torch.equal(value, other), name


def test_a_checkpoint_of_another_discriminator_is_refused_and_kept(source, tmp_path):
    work = tmp_path / "work"
    trained(source, work, "--steps", "1", "--discriminator-width", "4")
    before = (work / "checkpoint.safetensors").read_bytes()
    said = trained(source, work, "--steps", "2", "--discriminator-width", "8", code=2).stderr
    assert f"{work / 'checkpoint.safetensors'} is no checkpoint of this network" in said
    assert (work / "checkpoint.safetensors").read_bytes() == before


def test_steps_are_adams_for_the_discriminator_and_then_the_generator():
    images = np.random.default_rng(0).integers(0, 256, (12, 3, 32, 32), np.uint8)
    training = train.Training(TrainGenerator(batch_size=4, discriminator_width=8, device="cpu"), images)
    critic, made = (copy.deepcopy(training.networks[name]) for name in ("discriminator", "generator"))
    critics, makers = (
        torch.optim.Adam(one.parameters(), lr, betas=(0.0, 0.9)) for one, lr in ((critic, 4e-4), (made, 2e-4))
    )
    for rows, flipped, z in islice(training.choices(), 2):
        training.step(rows, flipped, z)
        real = torch.from_numpy(images)[rows].float() / 127.5 - 1
        real[flipped] = real[flipped].flip(3)
        critics.zero_grad()
        scores = critic(torch.cat([real, made.synthesis(made.mapping(z[0])).detach()]))
        judged = (1 - scores[:4]).clamp(min=0).mean() + (1 + scores[4:]).clamp(min=0).mean()
        judged.backward()
        critics.step()
        makers.zero_grad()
        fooled = -critic(made.synthesis(made.mapping(z[1]))).mean()
        fooled.backward(inputs=list(made.parameters()))
        makers.step()
        torch.testing.assert_close(training.losses, torch.stack([judged, fooled]).detach(), rtol=1e-3, atol=1e-4)
    for ours, theirs in ((training.discriminator, critic), (training.generator, made)):
        assert all(parameter.requires_grad for parameter in ours.parameters())
        largest, told = max(float(parameter.grad.abs().max()) for parameter in theirs.parameters()), 0
        for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            clear = other.grad.abs() > 1e-4 * largest  # Adam's first step goes by the sign, which of less is rounding's
            torch.testing.assert_close(one[clear], other[clear], rtol=0, atol=2e-5, msg=name)
            told += int(clear.sum())
        assert told > 0.5 * sum(parameter.numel() for parameter in theirs.parameters())


def test_in_bf16_the_discriminator_learns_to_tell_grey_images():
    settings = TrainGenerator(batch_size=8, discriminator_width=8, precision="bf16", device="cpu")
    training, judged = train.Training(settings, np.full((8, 3, 32, 32), 128, np.uint8)), []
    for given in islice(training.choices(), 21):
        training.step(*given)
        judged.append(float(training.losses[0]))
    assert judged[-1] < judged[0] - 0.5


def test_the_command_leaves_checkpoint_grid_and_weights(source, tmp_path):
    work = tmp_path / "work"
    assert trained(source, work, "--steps", "2").stdout == f"{work / 'weights.safetensors'}\n"
    assert sorted(path.name for path in work.iterdir()) == [
        "checkpoint.safetensors", "grid-000002.png", "weights.safetensors",
    ]  # fmt: skip
    assert all(value.dtype == torch.float16 for value in load_file(work / "weights.safetensors").values())
    mine = registry.make(Generate(weights=str(work / "weights.safetensors")), CPU)
    assert mine.descriptor["training"] == "2 steps on 16 images"
    asked = Generate(weights=str(work / "weights.safetensors")).as_dict()
    assert registry.again(asked, mine.descriptor, {}, None, None, CPU).descriptor == mine.descriptor
    with pytest.raises(UserError, match="not the generator that made this bank"):
        registry.again(asked, mine.descriptor, {}, None, str(WEIGHTS), CPU)


def test_weights_that_only_say_they_are_its_own_are_refused(tmp_path):
    save_file({"start": torch.zeros(1)}, tmp_path / "odd.safetensors", {"family": "builtin"})
    with pytest.raises(UserError, match="holds no weights of the built-in generator"):
        registry.make(Generate(weights=str(tmp_path / "odd.safetensors")), CPU)


@pytest.mark.parametrize("shape", [(), (0, 8, 3, 3), (2**40, 0, 3, 3), (1025, 0, 3, 3)])
def test_weights_of_absurd_widths_are_refused_before_a_network_is_made(tmp_path, monkeypatch, shape):
    tensors = {f"blocks.{block}.conv.weight": torch.zeros(8, 8, 3, 3) for block in range(3)}
    save_file(
        tensors | {"blocks.3.conv.weight": torch.zeros(shape)}, tmp_path / "odd.safetensors", {"family": "builtin"}
    )
    monkeypatch.setattr(generator, "Network", lambda widths: pytest.fail(f"made with {widths}"))
    with pytest.raises(UserError, match="holds no weights of the built-in generator"):
        pretrained(CPU, tmp_path / "odd.safetensors")


def test_bad_sources_end_with_a_sentence(tmp_path):
    assert "nowhere.npz" in trained(tmp_path / "nowhere.npz", tmp_path / "work", code=2).stderr
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("content", [None, b"no archive", {"rows": np.arange(3)}])
def test_a_list_that_says_nothing_of_images_is_refused(source, tmp_path, content):
    used = tmp_path / "used.npz"
    if isinstance(content, bytes):
        used.write_bytes(content)
    elif content:
        np.savez(used, **content)
    assert "used.npz" in trained(source, tmp_path / "work", "--steps", "1", "--leave-out", str(used), code=2).stderr


def test_training_that_is_stopped_goes_on_with_the_same_command(tmp_path):
    class Stopper(Observer):
        def stop_requested(self):
            return True

    images = np.zeros((4, 3, 32, 32), np.uint8)
    settings = TrainGenerator(steps=3, batch_size=2, device="cpu")
    with pytest.raises(Interrupted, match="Stopped after step 1"):
        train.train(images, tmp_path, settings, Stopper())
    assert train.train(images, tmp_path, settings).exists() and (tmp_path / "grid-000003.png").exists()


def test_images_that_evaluation_uses_are_left_out(tmp_path):
    np.savez(tmp_path / "used.npz", source_index=np.array([1, 3, 3]))
    assert train.rows_to_train_on(5, tmp_path / "used.npz").tolist() == [0, 2, 4]
    assert train.rows_to_train_on(3, None).tolist() == [0, 1, 2]


def test_the_weights_in_the_package_are_small_and_standardised():
    assert WEIGHTS.stat().st_size < 5e6
    latents = pretrained(CPU).sample_latents(4000, torch.Generator().manual_seed(0))
    assert latents.mean(0).norm() < 0.2 and abs(latents.var(0).mean() - 1) < 0.05
