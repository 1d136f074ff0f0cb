"""StyleGAN-XL (Sauer et al., "StyleGAN-XL: Scaling StyleGAN to Large Diverse Datasets", SIGGRAPH 2022, arXiv 2202.00273).

The synthesis network is StyleGAN3's. A super-resolution stage (Sec. 3.2) drops the last layers of the network
before it and appends its own, so however many stages there were, the result is one list of layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stages.errors import UserError
from stages.generators.stylegan.networks.mapping import Dense, Mapping, MappingConfig, Network
from stages.generators.stylegan.networks.stylegan3 import Synthesis, SynthesisConfig


@dataclass(frozen=True)
class ClassMappingConfig(MappingConfig):
    classes: int  # rows of the table of pre-trained class features; may be more than c_dim
    features: int  # numbers per row

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.features or self.classes < self.c_dim:
            raise UserError(f"Its table of class features has {self.classes} rows, for {self.c_dim} classes.")


@dataclass(frozen=True)
class Config:
    mapping: ClassMappingConfig
    synthesis: SynthesisConfig


def network(config: Config) -> Network:
    return Network(ClassMapping(config.mapping), Synthesis(config.synthesis, config.mapping.w_dim))


class ClassMapping(Mapping):
    """Classes enter by features of a pre-trained classifier (Sec. 3.1), and truncation leads to the mean of the class.

    c is float [n, c_dim]; its largest weight counts.
    """

    def add_conditioning(self, config: MappingConfig) -> None:
        assert isinstance(config, ClassMappingConfig)
        self.embed = nn.Embedding(config.classes, config.features)  # there, though unused, without classes too
        if config.c_dim:
            self.embed_proj = Dense(config.features, config.embedding, activate=True)
        self.register_buffer("w_avg", torch.empty(*([config.c_dim] if config.c_dim else []), config.w_dim))

    def embedded(self, c: Tensor) -> Tensor:
        embedding: Tensor = self.embed_proj(self.embed(c.argmax(1)))
        return embedding

    def mean(self, c: Tensor | None) -> Tensor:
        return self.w_avg if c is None else self.w_avg[c.argmax(1)]
