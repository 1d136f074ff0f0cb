"""Train the built-in generator on natural images, as a GAN with the hinge loss (Lim and Ye, 2017; Miyato et al., ICLR 2018).

The work folder gets a checkpoint, from which training continues, a grid of samples now and then, and finally
`weights.safetensors`: the generator's moving average in half precision, its latents standardised.
"""

from __future__ import annotations

import copy
import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from stages import torch_private
from stages.devices import device as placed
from stages.errors import Interrupted
from stages.foreign import understood
from stages.generators.builtin.network import LATENT_DIM, Network, StyledBlock
from stages.observer import SILENT, Observer
from stages.pixels import normalised, to_uint8
from stages.randomness import Rng, seeded
from stages.settings import TrainGenerator

LEARNING_RATES = {"generator": 2e-4, "discriminator": 4e-4}  # two time scales (Heusel et al., NeurIPS 2017)
AVERAGE = 0.999  # decay of the moving average that becomes the generator
EVERY = 250  # steps between checkpoints


class Discriminator(nn.Sequential):
    """Images float32 [n, 3, 32, 32] in [-1, 1] -> scores float32 [n, 1]: a DCGAN with spectral normalisation."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 64), (64, 128), (128, 256)):
            layers += [spectral_norm(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)), nn.LeakyReLU(0.1)]
        layers += [spectral_norm(nn.Conv2d(256, 256, 3, padding=1)), nn.LeakyReLU(0.1), nn.Flatten()]
        super().__init__(*layers, spectral_norm(nn.Linear(256 * 4 * 4, 1)))


class Training:
    """Everything that a checkpoint holds: both networks, their optimisers, the moving average, the steps done."""

    def __init__(self, seed: int, device: torch.device):
        with seeded(Rng(seed).seed("networks")):
            self.generator, self.discriminator = Network().to(device), Discriminator().to(device)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self.networks = nn.ModuleDict({"generator": self.generator, "discriminator": self.discriminator})
        self.optimizers = {
            name: torch.optim.Adam(network.parameters(), LEARNING_RATES[name], betas=(0.0, 0.9))
            for name, network in self.networks.items()
        }
        self.steps, self.seconds, self.device = 0, 0.0, device

    def save(self, path: Path) -> None:
        tensors = {f"networks.{name}": value for name, value in self.networks.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            for index, state in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizers.{name}.{index}.{key}": value for key, value in state.items()}
        tensors["done"] = torch.tensor([self.steps, self.seconds], dtype=torch.float64)
        beside = path.with_suffix(".new")
        save_file({name: value.contiguous() for name, value in tensors.items()}, beside)
        beside.replace(path)

    def load(self, path: Path) -> None:
        tensors = load_file(path, device=str(self.device))

        def below(prefix: str) -> dict[str, Tensor]:
            return {n.removeprefix(prefix): value for n, value in tensors.items() if n.startswith(prefix)}

        self.networks.load_state_dict(below("networks."))
        self.average.load_state_dict(below("average."))
        for name, optimizer in self.optimizers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in below(f"optimizers.{name}.").items():
                index, _, field = key.partition(".")
                state.setdefault(int(index), {})[field] = value
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        self.steps, self.seconds = int(tensors["done"][0]), float(tensors["done"][1])

    def step(self, images: Tensor, batch: int, rng: Rng, bf16: bool) -> tuple[Tensor, Tensor]:
        """One update of the discriminator, one of the generator; images uint8 [n, 3, 32, 32]. Both losses, detached."""
        generator, discriminator = self.generator, self.discriminator
        stream = rng.torch("step", self.steps)
        rows = torch.randint(len(images), (batch,), generator=stream)
        flipped = torch.rand(batch, generator=stream) < 0.5
        z = torch.randn(2, batch, LATENT_DIM, generator=stream).to(self.device)
        real = normalised(images[rows.to(self.device)])
        real = torch.where(flipped.to(self.device)[:, None, None, None], real.flip(3), real)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            with torch.no_grad():
                fake = generator.synthesis(generator.mapping(z[0]))
            scores = discriminator(torch.cat([real, fake])).float()
            judged = F.relu(1 - scores[:batch]).mean() + F.relu(1 + scores[batch:]).mean()
        self.descend("discriminator", judged)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            fooled = -discriminator(generator.synthesis(generator.mapping(z[1]))).float().mean()
        self.descend("generator", fooled)
        decay = min(AVERAGE, (1 + self.steps) / (10 + self.steps))  # the first steps are soon forgotten
        with torch.no_grad():
            torch_private.approach(list(self.average.parameters()), list(generator.parameters()), 1 - decay)
        self.steps += 1
        return judged.detach(), fooled.detach()

    def descend(self, name: str, loss: Tensor) -> None:
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizers[name].step()


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


def save_weights(training: Training, path: Path, rng: Rng, facts: dict[str, Any]) -> None:
    network = standardised(training.average, rng)
    tensors = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    save_file(tensors, path, {name: str(value) for name, value in facts.items()})


def train(images: np.ndarray, work: Path, settings: TrainGenerator, observer: Observer = SILENT) -> Path:
    """Train on images uint8 [n, 3, 32, 32], from the checkpoint in `work` on if it has one; the path of the weights.

    Raises Interrupted, with a checkpoint written, when the observer asks to stop.
    """
    work.mkdir(parents=True, exist_ok=True)
    rng, training = Rng(settings.seed), Training(settings.seed, placed(settings.device))
    checkpoint = work / "checkpoint.safetensors"
    if checkpoint.exists():
        training.load(checkpoint)
    on_device = torch.from_numpy(images).to(training.device)
    since = training.seconds - time.monotonic()
    observer.start("The generator's training", settings.steps, training.steps)
    while training.steps < settings.steps:
        losses = training.step(on_device, settings.batch_size, rng, settings.precision == "bf16")
        ended, stopping = training.steps >= settings.steps, observer.stop_requested()
        if training.steps % EVERY and not ended and not stopping:
            observer.advance()
            continue
        training.seconds = since + time.monotonic()
        training.save(checkpoint)
        grid(training.average, rng).save(work / f"grid-{training.steps:06d}.png")
        observer.advance(discriminator=float(losses[0]), generator=float(losses[1]))
        if stopping and not ended:
            raise Interrupted(f"Stopped after step {training.steps}; the same command continues from {checkpoint}.")
    observer.finish()
    facts = {
        "family": "builtin", "steps": training.steps, "batch": settings.batch_size, "seed": settings.seed,
        "seconds": round(training.seconds), "images": len(images),
        "images_sha256": hashlib.sha256(images.tobytes()).hexdigest(), "torch": torch.__version__,
    }  # fmt: skip
    save_weights(training, work / "weights.safetensors", rng, facts)
    return work / "weights.safetensors"
