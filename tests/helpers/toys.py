"""Small generators and models that tests name as `tests.helpers.toys:...`."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from stages.algorithms import fedproto
from stages.data.images import Dataset, Pixels
from stages.pixels import to_uint8
from stages.settings import setting


class LinearGenerator:
    """Images are a fixed linear map of latents: what it renders can be computed by hand."""

    latent_dim = 8
    resolution = 16

    def __init__(self, device):
        self.weight = torch.linspace(-1, 1, 8 * 3 * 16 * 16).view(8, -1).to(device)
        self.descriptor = {"version": 1}

    def sample_latents(self, n, rng):
        return torch.randn(n, self.latent_dim, generator=rng).to(self.weight.device)

    def render(self, latents):
        return to_uint8(torch.tanh(latents @ self.weight).view(-1, 3, 16, 16))


linear = LinearGenerator


def tiny(channels, size, classes):
    """A classifier of a few hundred parameters, quick enough for tests of the loop."""
    return nn.Sequential(
        nn.AvgPool2d(4), nn.Flatten(), nn.Linear(channels * (size // 4) ** 2, 16), nn.ReLU(), nn.Linear(16, classes)
    )


def narrow(channels, size, classes):
    """Another architecture, with BatchNorm and dropout."""
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Dropout(0.2), nn.Linear(16, classes),
    )  # fmt: skip


def noted(channels, size, classes):
    """`tiny`, built by a process of Ray that leaves a note of its node in the folder $FEDKTL_NOTES."""
    if folder := os.environ.get("FEDKTL_NOTES"):
        import ray

        if ray.is_initialized() and (here := ray.get_runtime_context()).get_actor_id():
            (Path(folder) / here.get_node_id()).touch()
    return tiny(channels, size, classes)


def headless(channels, size, classes):
    return nn.Flatten()


def evil(device):
    raise AssertionError("code named by an artifact was run")


class Loud(nn.Module):
    def forward(self, x):
        return x * torch.inf


def wild(channels, size, classes):
    """A classifier whose logits are infinite: its loss is no number from the first step on."""
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size**2, 16), Loud(), nn.Linear(16, classes))


def halves(settings):
    """A data set of black images of class `dark` and white ones of class `light`."""
    labels = np.arange(400) % 2
    pixels = np.broadcast_to((labels * 255).astype(np.uint8)[:, None, None], (400, 8, 8))
    return Dataset(Pixels(pixels, settings.image_size), labels, 400, ["dark", "light"], "halves")


def wide(settings):
    """The same, twice as large as asked for."""
    return replace(halves(settings), images=Pixels(np.zeros((400, 8, 8), np.uint8), 2 * settings.image_size))


@dataclass(frozen=True)
class Hyper(fedproto.Hyper):
    pace: float = setting(1.0, "What prototypes are divided by.", low=0)


def divided(hyper, *known):
    state, download, metrics = fedproto.server_update(hyper, *known)
    return state, replace(download, prototypes=download.prototypes * (1 / hyper.pace)), metrics


OWN = replace(fedproto.ALGORITHM, name="divided", Hyper=Hyper, server_update=divided)
