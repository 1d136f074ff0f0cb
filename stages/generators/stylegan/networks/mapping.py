"""The mapping network, which all StyleGAN families have, and the dense layer it is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stages.errors import UserError
from stages.generators.stylegan.networks.convolution import EPSILON, leaky_relu_


class Dense(nn.Module):
    """x float [n, inputs] -> [n, outputs], with the learning rate equalised (Karras et al., ICLR 2018, Sec. 4.1).

    Weights are stored with unit variance and scaled in use; `lr_multiplier` scales the bias too.
    """

    def __init__(self, inputs: int, outputs: int, lr_multiplier: float = 1.0, activate: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.lr_multiplier, self.activate = lr_multiplier, activate

    def forward(self, x: Tensor) -> Tensor:
        gain = self.lr_multiplier / math.sqrt(self.weight.shape[1])
        y = F.linear(x, self.weight * gain, self.bias * self.lr_multiplier)
        return leaky_relu_(y) if self.activate else y


@dataclass(frozen=True)
class MappingConfig:
    z_dim: int
    c_dim: int  # classes; 0 if unconditional
    embedding: int  # numbers by which a class enters the mapping; 0 if unconditional
    widths: tuple[int, ...]  # outputs of each layer; the last is w_dim
    lr_multiplier: float

    def __post_init__(self) -> None:
        if not (self.z_dim and self.widths and all(self.widths)) or (self.c_dim > 0) != (self.embedding > 0):
            raise UserError("The mapping network has a layer without units.")

    @property
    def w_dim(self) -> int:
        return self.widths[-1]


class Mapping(nn.Module):
    """z, and the class if there is one, to the intermediate latent space W (StyleGAN, Sec. 2).

    z is float [n, z_dim], c a weight for each class, float [n, c_dim]; w is float [n, w_dim].
    """

    embed: nn.Module
    w_avg: Tensor

    def __init__(self, config: MappingConfig):
        super().__init__()
        self.c_dim, self.layers = config.c_dim, len(config.widths)
        for i, (inputs, outputs) in enumerate(pairwise((config.z_dim + config.embedding, *config.widths))):
            self.add_module(f"fc{i}", Dense(inputs, outputs, config.lr_multiplier, activate=True))
        self.add_conditioning(config)

    def add_conditioning(self, config: MappingConfig) -> None:
        if config.c_dim:
            self.embed = Dense(config.c_dim, config.embedding)
        self.register_buffer("w_avg", torch.empty(config.w_dim))

    def embedded(self, c: Tensor) -> Tensor:
        """Classes as [n, embedding]."""
        embedding: Tensor = self.embed(c)
        return embedding

    def mean(self, c: Tensor | None) -> Tensor:
        """Where truncation leads to: the mean w, [w_dim] or [n, w_dim]."""
        return self.w_avg

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        x = normalised(z)
        if self.c_dim:
            assert c is not None
            x = torch.cat([x, normalised(self.embedded(c))], dim=1)
        for i in range(self.layers):
            x = self.get_submodule(f"fc{i}")(x)
        return x

    def truncated(self, w: Tensor, c: Tensor | None, psi: float) -> Tensor:
        """w moved towards the mean: psi 1 leaves it, 0 is the mean itself (StyleGAN, App. B)."""
        return self.mean(c).lerp(w, psi)


class Network(nn.Module):
    """A generator: `mapping` from z to w, `synthesis` from ws float [n, num_ws, w_dim] to images [n, 3, size, size]."""

    synthesis: Any  # the family's own

    def __init__(self, mapping: Mapping, synthesis: nn.Module):
        super().__init__()
        self.mapping, self.synthesis = mapping, synthesis


def normalised(x: Tensor) -> Tensor:
    """Rows with unit second moment."""
    return x * (x.square().mean(1, keepdim=True) + EPSILON).rsqrt()
