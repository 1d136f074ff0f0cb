"""What an algorithm is: five names over plain records. The engine runs any of them with one loop.

    init(hyper, task, rng) -> (server state, shared)
    client_update(hyper, shared, client, download | None, batches, rng) -> (upload | None, metrics)
    server_update(hyper, shared, state, uploads, pairs, rng) -> (state, download | None, metrics)
    predict(hyper, shared, client, download | None, x) -> scores float32 [B, classes]

and a frozen dataclass of hyperparameters. Rules: no file, no printing, no global seed, no look for a device
(tensors arrive placed). `client_update` changes its own `client` only; `server_update` gets at least one upload. What
crosses the border between client and server is a dataclass of tensors; its cost is counted from the tensors themselves.
`shared` is what everyone derives from the seed alone and is never sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from stages.algorithms.common.records import tensors
from stages.models.split import SplitModel
from stages.settings import Settings

Metrics = Mapping[str, Tensor]  # scalars; read once a round


@dataclass(frozen=True)
class Task:
    """What every algorithm is told of the federation."""

    clients: int
    classes: int
    feature_dim: int
    latent_dim: int  # H, 0 without a latents artifact
    lr: float  # of the clients' SGD
    batch_size: int
    device: torch.device
    image_shape: tuple[int, int, int] = (3, 32, 32)  # channels, height, width


@dataclass
class ClientState:
    """A client's model and whatever else its algorithm keeps between rounds."""

    model: SplitModel
    private: dict[str, Tensor] = field(default_factory=dict)


class PairSource(Protocol):
    """The server's generator as an algorithm sees it."""

    latent_dim: int

    def sample_latents(self, n: int, rng: torch.Generator) -> Tensor:
        """n latents float32 [n, H] of the generator's own distribution."""

    def pairs(self, centroids: Tensor) -> tuple[Tensor, Tensor]:
        """Images [M K, 3, size, size], uint8 or float32 in 0..255, and latents float32 [M K, H].

        K pairs for each centroid float32 [M, H].
        """


@dataclass(frozen=True)
class Predictor:
    """What another program needs to label an image x as `predict` does, beside a client's `base` and `head`."""

    rule: str = "the largest of head(base(x))"
    tensors: Mapping[str, Tensor] = field(
        default_factory=dict
    )  # by the names in the rule; `base.` and `head.` replace the client's


@dataclass(frozen=True)
class Algorithm:
    """An algorithm's name, source and five functions.

    `Download` is its record, so that a checkpoint can rebuild it. `outline(upload)` gives an upload's tensors in shapes
    that depend on the model and the classes only, not on what was learned. `check(hyper, task, models)` raises UserError, with
    the reason, for clients' models that the algorithm can't federate. `unit_rows` are tensors of the outline that have no row
    longer than 1. With `same_start` clients of one architecture start from the same weights, whatever `initial_weights` says.
    `predictor(hyper, shared, client, download)` says for other programs what `predict` does.
    """

    name: str
    source: str
    Hyper: type[Settings]
    Download: type | None
    init: Callable[..., tuple[Any, Any]]
    client_update: Callable[..., tuple[Any, Metrics]]
    server_update: Callable[..., tuple[Any, Any, Metrics]]
    predict: Callable[..., Tensor]
    needs_latents: Callable[[Any], bool] = lambda hyper: False
    outline: Callable[[Any], Mapping[str, Tensor]] = lambda upload: tensors(upload)
    check: Callable[[Any, Task, Sequence[SplitModel]], None] = lambda hyper, task, models: None
    predictor: Callable[[Any, Any, ClientState, Any], Predictor] = lambda hyper, shared, client, download: Predictor()
    unit_rows: tuple[str, ...] = ()
    same_start: bool = False
