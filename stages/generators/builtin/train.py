"""Train the built-in generator on natural images, as a GAN with the hinge loss (Lim and Ye, 2017; Miyato et al., ICLR 2018).

The work folder gets a checkpoint, from which training continues, a grid of samples, and `weights.safetensors`: the
generator's moving average in half precision, its latents standardised.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from stages import torch_private
from stages.algorithms.common.cuda_graphs import replayable
from stages.algorithms.common.sgd import Adam
from stages.devices import device as placed
from stages.errors import Interrupted, UserError
from stages.foreign import understood
from stages.generators.builtin.network import LATENT_DIM, Network, StyledBlock
from stages.observer import SILENT, Observer
from stages.pixels import normalised, to_uint8
from stages.randomness import Rng, seeded
from stages.settings import TrainGenerator

LEARNING_RATES = {"generator": 2e-4, "discriminator": 4e-4}  # two time scales (Heusel et al., NeurIPS 2017)
AVERAGE = 0.9998  # decay of the moving average that becomes the generator
EVERY = 60.0  # seconds between checkpoints
AHEAD = 64  # steps whose random choices go to the device at once

# Of a step: rows int64 [B], which are flipped bool [B], z float32 [2, B, LATENT_DIM].
Given = tuple[Tensor, Tensor, Tensor]


class Discriminator(nn.Sequential):
    """Images float32 [n, 3, 32, 32] in [-1, 1] -> scores float32 [n, 1]: a DCGAN with spectral normalisation."""

    def __init__(self, width: int) -> None:
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, width), (width, 2 * width), (2 * width, 4 * width)):
            layers += [spectral_norm(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)), nn.LeakyReLU(0.1)]
        layers += [spectral_norm(nn.Conv2d(4 * width, 4 * width, 3, padding=1)), nn.LeakyReLU(0.1), nn.Flatten()]
        super().__init__(*layers, spectral_norm(nn.Linear(4 * width * 4 * 4, 1)))


class Training:
    """Everything that a checkpoint holds: both networks, their optimisers, the moving average, the steps done."""

    def __init__(self, settings: TrainGenerator, images: np.ndarray):
        """images uint8 [n, 3, 32, 32]"""
        self.device = placed(settings.device)
        with seeded(Rng(settings.seed).seed("networks")):
            self.generator = Network().to(self.device)
            self.discriminator = Discriminator(settings.discriminator_width).to(self.device)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self.networks = nn.ModuleDict({"generator": self.generator, "discriminator": self.discriminator})
        self.optimizers = {
            name: Adam(LEARNING_RATES[name], network, betas=(0.0, 0.9)) for name, network in self.networks.items()
        }
        self.images, self.rng = torch.from_numpy(images).to(self.device), Rng(settings.seed)
        self.batch, self.bf16 = settings.batch_size, settings.precision == "bf16"
        self.steps, self.seconds, self.losses = 0, 0.0, torch.zeros(2, device=self.device)

    def save(self, path: Path) -> None:
        tensors = {f"networks.{name}": value for name, value in self.networks.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        tensors |= {f"moments.{name}": value for name, value in self.moments()}
        tensors["done"] = torch.tensor([self.steps, self.seconds], dtype=torch.float64)
        beside = path.with_suffix(".new")
        save_file({name: value.contiguous() for name, value in tensors.items()}, beside)
        beside.replace(path)

    def load(self, path: Path) -> None:
        """UserError for a checkpoint of other networks."""
        try:
            tensors = load_file(path, device=str(self.device))
            for name, network in (("networks", self.networks), ("average", self.average)):
                network.load_state_dict({key: tensors[f"{name}.{key}"] for key in network.state_dict()})
            for name, value in self.moments():
                value.copy_(tensors[f"moments.{name}"])
            self.steps, self.seconds = int(tensors["done"][0]), float(tensors["done"][1])
        except (SafetensorError, RuntimeError, KeyError, IndexError) as error:
            raise UserError(
                f"{path} is no checkpoint of this network beside a discriminator of this width. "
                "Repeat the command that made it, or name another folder."
            ) from error

    def moments(self) -> Iterator[tuple[str, Tensor]]:
        for name, network in self.networks.items():
            for parameter_name, parameter in network.named_parameters():
                for index, moment in enumerate(self.optimizers[name].moments[parameter]):
                    yield f"{name}.{parameter_name}.{index}", moment

    def choices(self) -> Iterator[Given]:
        """The random choices of every step from the next one on."""
        for first in itertools.count(self.steps, AHEAD):
            drawn = [self._choice(self.rng.torch("step", step)) for step in range(first, first + AHEAD)]
            yield from zip(*(torch.stack(part).to(self.device) for part in zip(*drawn, strict=True)), strict=True)

    def _choice(self, stream: torch.Generator) -> Given:
        rows = torch.randint(len(self.images), (self.batch,), generator=stream)
        flipped = torch.rand(self.batch, generator=stream) < 0.5
        return rows, flipped, torch.randn(2, self.batch, LATENT_DIM, generator=stream)

    def step(self, rows: Tensor, flipped: Tensor, z: Tensor) -> None:
        """One update of the discriminator, one of the generator; `losses` are then theirs. On a GPU it is replayed."""
        real = normalised(self.images[rows])
        real = torch.where(flipped[:, None, None, None], real.flip(3), real)
        with self._autocast(), torch.no_grad():
            fake = self.generator.synthesis(self.generator.mapping(z[0]))
        scores = self._judge(torch.cat([real, fake]))
        judged = F.relu(1 - scores[: len(real)]).mean() + F.relu(1 + scores[len(real) :]).mean()
        self.optimizers["discriminator"].step(judged)
        with self._autocast():
            fake = self.generator.synthesis(self.generator.mapping(z[1]))
        self.discriminator.requires_grad_(False)
        fooled = -self._judge(fake).mean()
        self.optimizers["generator"].step(fooled)
        self.discriminator.requires_grad_(True)
        self.losses.copy_(torch.stack([judged.detach(), fooled.detach()]))

    def average_in(self) -> None:
        """Move the average towards the generator, at first by more: its first steps are soon forgotten."""
        decay = min(AVERAGE, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            torch_private.approach(list(self.average.parameters()), list(self.generator.parameters()), 1 - decay)

    def _judge(self, images: Tensor) -> Tensor:
        with parametrize.cached():
            for layer in self.discriminator:
                getattr(layer, "weight", None)  # normalised here, in float32
            with self._autocast():
                scores: Tensor = self.discriminator(images)
                return scores.float()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16, cache_enabled=False)


def standardised(network: Network, rng: Rng, samples: int = 50_000) -> Network:
    """The same generator in other coordinates of W: its latents have mean 0, and variance 1 on average.

    All directions are scaled alike: which of them vary most is what training has found.
    """
    w = latents(network, rng.torch("standardising"), samples)
    return in_coordinates(network, w.mean(0), w.var(0).mean().sqrt() * torch.eye(LATENT_DIM, dtype=w.dtype))


@torch.no_grad()
def latents(network: Network, rng: torch.Generator, samples: int) -> Tensor:
    """The latents of standard normal z: float64 [samples, LATENT_DIM]."""
    z = torch.randn(samples, LATENT_DIM, generator=rng)
    return copy.deepcopy(network).cpu().double().mapping(z.double())


@torch.no_grad()
def in_coordinates(network: Network, origin: Tensor, basis: Tensor) -> Network:
    """The same generator with latents v where it had w = basis v + origin.

    origin float64 [LATENT_DIM], basis float64 [LATENT_DIM, LATENT_DIM], lower triangular. w is affine in the mapping's
    last layer and enters every block through an affine map, so these weights absorb the change. `network` is changed.
    """
    network = network.cpu().double()
    last = network.mapping_layers[-1]
    assert isinstance(last, nn.Linear)
    last.bias.copy_(torch.linalg.solve_triangular(basis, (last.bias - origin)[:, None], upper=False)[:, 0])
    last.weight.copy_(torch.linalg.solve_triangular(basis, last.weight, upper=False))
    for block in network.blocks:
        assert isinstance(block, StyledBlock)
        block.style.bias.add_(block.style.weight @ origin)
        block.style.weight.copy_(block.style.weight @ basis)
    return network.float()


@torch.no_grad()
def grid(network: Network, rng: Rng, side: int = 8) -> Image.Image:
    """side x side samples, always of the same latents."""
    device = next(network.parameters()).device
    z = torch.randn(side * side, LATENT_DIM, generator=rng.torch("grid")).to(device)
    images = to_uint8(network.synthesis(network.mapping(z))).cpu().view(side, side, 3, 32, 32)
    return Image.fromarray(images.permute(0, 3, 1, 4, 2).reshape(side * 32, side * 32, 3).numpy())


def rows_to_train_on(count: int, leave_out: Path | None) -> np.ndarray:
    """All of `count` rows except those that the file lists as `source_index`."""
    if leave_out is None:
        return np.arange(count)
    with understood(str(leave_out)), np.load(leave_out, allow_pickle=False) as listed:
        return np.setdiff1d(np.arange(count), listed["source_index"])


def save_weights(average: Network, path: Path, rng: Rng, facts: dict[str, Any]) -> None:
    network = standardised(copy.deepcopy(average), rng)
    tensors = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    save_file(tensors, path, {name: str(value) for name, value in facts.items()})


def train(images: np.ndarray, work: Path, settings: TrainGenerator, observer: Observer = SILENT) -> Path:
    """Train on images uint8 [n, 3, 32, 32], from the checkpoint in `work` on if it has one; the path of the weights.

    These, a checkpoint and a grid of samples are written once a minute. Raises Interrupted, with a checkpoint written, when
    the observer asks to stop.
    """
    work.mkdir(parents=True, exist_ok=True)
    training, checkpoint = Training(settings, images), work / "checkpoint.safetensors"
    if checkpoint.exists():
        training.load(checkpoint)
    facts = {
        "family": "builtin", "batch": settings.batch_size, "seed": settings.seed, "images": len(images),
        "images_sha256": hashlib.sha256(images.tobytes()).hexdigest(), "torch": torch.__version__,
    }  # fmt: skip
    written, since = time.monotonic(), training.seconds - time.monotonic()
    observer.start("The generator's training", settings.steps, training.steps)
    if training.steps >= settings.steps:
        save(training, work, facts)
    with replayable(training.step, training.device, kind=training) as step:
        for given in itertools.islice(training.choices(), max(settings.steps - training.steps, 0)):
            step(*given)
            training.average_in()
            training.steps += 1
            ended, stopping = training.steps >= settings.steps, observer.stop_requested()
            if not ended and not stopping and time.monotonic() < written + EVERY:
                observer.advance()
                continue
            training.seconds = since + (written := time.monotonic())
            save(training, work, facts)
            discriminator, generator = training.losses.tolist()
            observer.advance(discriminator=discriminator, generator=generator)
            if stopping and not ended:
                raise Interrupted(f"Stopped after step {training.steps}; the same command continues from {checkpoint}.")
    observer.finish()
    return work / "weights.safetensors"


def save(training: Training, work: Path, facts: dict[str, Any]) -> None:
    training.save(work / "checkpoint.safetensors")
    grid(training.average, training.rng).save(work / f"grid-{training.steps:06d}.png")
    done = {"steps": training.steps, "seconds": round(training.seconds)}
    save_weights(training.average, work / "weights.safetensors", training.rng, facts | done)
