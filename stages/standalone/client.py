"""One client as a module: images in, scores out, by its algorithm's own `predict`, with only what that uses."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stages import algorithms, torch_private
from stages.algorithms.common.batches import eval_batch
from stages.algorithms.common.records import rebuilt
from stages.algorithms.contract import ClientState, Task
from stages.errors import UserError
from stages.models import split
from stages.pixels import normalised
from stages.randomness import Rng
from stages.settings import LARGEST_SEED, WIDEST, Settings, setting

HOST = torch.device("cpu")
Values = Mapping[str, Tensor]


@dataclass(frozen=True)
class Description(Settings):
    """What a client is, besides its tensors, whose names say what they belong to: `base.`, `head.`, `download.`, ..."""

    architecture: str = setting("FedAvgCNN", "Its model, as in `fedktl models list`.")
    feature_dim: int = setting(512, "Width of its features.", low=1, high=WIDEST)
    precision: str = setting("fp32", "What its base multiplies matrices in.", choices=("fp32", "tf32", "bf16"))
    channels_last: bool = setting(True, "Whether it convolves with the channels last in memory.")
    image_size: int = setting(32, "Side of its square colour images.", low=1, high=1024)
    squeeze: bool = setting(False, "Whether images are squeezed into the square, or cropped at the centre.")
    class_names: tuple[str, ...] = setting((), "What its scores are of, in order.", empty=True)
    algorithm: str = setting("local", "What trained it, and says how it predicts.")
    seed: int = setting(0, "Of the run.", low=0, high=LARGEST_SEED)
    clients: int = setting(1, "Clients of the run.", low=1)
    latent_dim: int = setting(0, "Width of the run's latents; 0 without.", low=0, high=WIDEST)
    arrived: bool = setting(False, "Whether the server had sent something.")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return 3, self.image_size, self.image_size

    @property
    def task(self) -> Task:
        """Predicting has no use for a learning rate or a batch size."""
        return Task(
            self.clients, len(self.class_names), self.feature_dim, self.latent_dim, lr=1.0, batch_size=1, device=HOST,
            image_shape=self.image_shape, channels_last=self.channels_last,
        )  # fmt: skip


class Client(nn.Module):
    """Scores float32 [B, classes] of images float32 [B, 3, size, size] in -1..1; their softmax are probabilities."""

    def __init__(self, description: Description, hyper: Mapping[str, Any], values: Values):
        """`values` are its tensors by name; what `shared` has of them follows from the seed.

        UserError for an unknown algorithm, hyperparameter or architecture, and for tensors of another model.
        """
        super().__init__()
        self.description = description
        algorithm = algorithms.get(description.algorithm)
        self.hyper = algorithm.Hyper.make(hyper)
        model = split.build(
            description.architecture, description.image_shape, len(description.class_names), description.feature_dim, 0
        )
        model.bf16 = description.precision == "bf16"
        self.model = split.laid_out(model, description.channels_last, HOST)
        private = dict(_below(values, "private."))
        _, shared = algorithm.init(self.hyper, description.task, Rng(description.seed).at("init"))
        download = None
        if description.arrived and algorithm.Download is not None:
            download = rebuilt(algorithm.Download, dict(_below(values, "download.")))
        self._known = self.hyper, shared, ClientState(self.model, private), download
        self._predict = algorithm.predict
        self.load(values)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self._predict(*self._known, x)

    @property
    def rule(self) -> str:
        """How it predicts, in the words of its algorithm."""
        predict = algorithms.get(self.description.algorithm).predict
        return " ".join((inspect.getdoc(predict) or "").split()) if inspect.isfunction(predict) else ""

    def tensors(self) -> dict[str, Tensor]:
        """All that it knows, used or not."""
        _, shared, state, download = self._known
        known = {"shared": shared, "private": state.private, "download": download}
        return dict(self.model.state_dict()) | dict(_named(known))

    def load(self, values: Values) -> None:
        """Take the values of its tensors, as far as there are any; UserError for another shape or type."""
        with torch.no_grad():
            for name, own in self.tensors().items():
                value = values.get(name, own)
                if (value.shape, value.dtype) != (own.shape, own.dtype):
                    raise UserError(
                        f"Tensor {name} is {value.dtype} {list(value.shape)}, where {own.dtype} {list(own.shape)} belongs."
                    )
                own.copy_(value)

    def used(self) -> dict[str, Tensor]:
        """The tensors that it predicts with."""
        with torch.no_grad(), torch_private.Watch() as watch:
            self(torch.zeros(1, *self.description.image_shape))
        return {name: tensor for name, tensor in self.tensors().items() if watch.saw(tensor)}


def scores(client: Callable[[Tensor], Tensor], images: Tensor, weights: int = 0) -> Tensor:
    """float32 [n, classes] of images uint8 [n, 3, size, size]; told how many weights there are, in a run's own batches."""
    with torch.no_grad():
        return torch.cat([client(normalised(part)) for part in images.split(eval_batch(images, weights))])


def _below(values: Values, path: str) -> Iterator[tuple[str, Tensor]]:
    return ((name.removeprefix(path), value) for name, value in values.items() if name.startswith(path))


def _named(record: object) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of nested mappings, dataclasses and modules by its dotted name; what else they hold is passed over."""
    if isinstance(record, nn.Module):
        record = record.state_dict()
    if isinstance(record, Tensor):
        yield "", record
    elif isinstance(record, Mapping):
        yield from ((f"{k}.{name}".rstrip("."), t) for k, part in record.items() for name, t in _named(part))
    elif dataclasses.is_dataclass(record) and not isinstance(record, type):
        yield from _named({field.name: getattr(record, field.name) for field in dataclasses.fields(record)})
