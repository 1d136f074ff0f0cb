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

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from stages.models.split import SplitModel
from stages.pixels import normalised
from stages.randomness import Rng
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
class Steps:
    """What each step of training takes: a few small tensors, such as row numbers, and the batch that `take` makes of them.

    The two are apart so that on a GPU `take` is part of the graph, and only the small tensors are copied for a step.
    """

    given: Iterable[tuple[Tensor, ...]]
    take: Callable[..., tuple[Tensor, ...]] = lambda *given: given

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        return (self.take(*given) for given in self.given)


def passes(
    tables: Sequence[Tensor], size: int, count: int, generator: torch.Generator, begin: Callable[[], object]
) -> Steps:
    """`count` passes over the rows of `tables`, equally long, `size` a step and each pass in an order of its own.

    `begin` is called before each pass.
    """
    device = tables[0].device

    def orders() -> Iterator[tuple[Tensor]]:
        for _ in range(count):
            begin()
            order = torch.randperm(len(tables[0]), generator=generator).to(device, non_blocking=True)
            yield from ((rows,) for rows in order.split(size))

    return Steps(orders(), lambda rows: tuple(table[rows] for table in tables))


class Batches:
    """One client's training images, already on the device.

    images uint8 [n, C, H, W], labels int64 [n]. A last batch of a single image joins the batch before it: BatchNorm
    has no variance over one.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, size: int, epochs: int = 1, shuffle: bool = True, drop_last: bool = False
    ):
        trained = len(labels) - len(labels) % size if drop_last else len(labels)
        seen = len(labels) if shuffle else trained  # in a fixed order the tail is never trained on
        self.images, self.labels = images[:seen], labels[:seen]
        self.total = len(labels)  # all of the client's, as they count in averages over clients
        self.size, self.epochs, self.shuffle, self.drop_last = size, epochs, shuffle, drop_last
        cuts = [*range(0, trained, size), trained]
        if len(cuts) > 2 and cuts[-1] - cuts[-2] == 1:
            del cuts[-2]
        self._slices = [slice(a, b) for a, b in pairwise(cuts)]

    def __len__(self) -> int:
        """Steps in all local epochs."""
        return self.epochs * len(self._slices)

    def steps(self, rng: Rng) -> Steps:
        """x float32 [B, C, H, W] in [-1, 1] and y int64 [B], epoch after epoch."""
        return Steps(self._rows(rng), lambda rows: (normalised(self.images[rows]), self.labels[rows]))

    def _rows(self, rng: Rng) -> Iterator[tuple[Tensor]]:
        device = self.labels.device
        stored = torch.arange(len(self.labels), device=device)
        for epoch in range(self.epochs):
            order = stored
            if self.shuffle:
                drawn = torch.randperm(len(self.labels), generator=rng.torch("order", epoch))
                order = drawn.to(device, non_blocking=True)
            yield from ((order[rows],) for rows in self._slices)

    def only(self, rows: Tensor) -> Batches:
        """The same steps over some of the images, int64 [m]; fewer than a batch of them still make one step."""
        drop_last = self.drop_last and len(rows) >= self.size
        return Batches(self.images[rows], self.labels[rows], self.size, self.epochs, self.shuffle, drop_last)

    def once(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image that training sees, once, in large batches and stored order."""
        size = eval_batch(self.images.device)
        for images, labels in zip(self.images.split(size), self.labels.split(size), strict=True):
            yield normalised(images), labels


def eval_batch(device: torch.device) -> int:
    """Images per forward where no gradient is taken: on a CPU few, since their activations set a run's peak memory."""
    return 40 if device.type == "cpu" else 2048


@dataclass(frozen=True)
class Predictor:
    """What another program needs to label an image x as `predict` does, beside a client's `base` and `head`."""

    rule: str = "the largest of head(base(x))"
    tensors: Mapping[str, Tensor] = field(
        default_factory=dict
    )  # by the names in the rule; `head.` replaces the client's


@dataclass(frozen=True)
class Algorithm:
    """An algorithm's name, source and five functions.

    `Download` is its record, so that a checkpoint can rebuild it. `outline(upload)` gives an upload's tensors in shapes
    that depend on the model and the classes only, not on what was learned. `check(hyper, task, models)` raises UserError, with
    the reason, for clients' models that the algorithm can't federate. `unit_rows` are tensors of the outline that have no row
    longer than 1. `predictor(hyper, shared, client, download)` says for other programs what `predict` does.
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


def tensors(record: Any) -> dict[str, Tensor]:
    """All tensors of a record (a dataclass of tensors, modules, or dicts of these), by dotted name."""
    if record is None:
        return {}
    if isinstance(record, Tensor):
        return {"": record}
    if isinstance(record, nn.Module):
        return dict(record.state_dict())
    items = (
        record.items()
        if isinstance(record, Mapping)
        else ((f.name, getattr(record, f.name)) for f in dataclasses.fields(record))
    )
    return {f"{name}.{inner}".rstrip("."): tensor for name, part in items for inner, tensor in tensors(part).items()}


def rebuilt(kind: type, values: Mapping[str, Tensor]) -> Any:
    """The record of class `kind` of which `values` are the `tensors`; its fields are tensors or mappings of tensors."""
    fields: dict[str, Any] = {field.name: {} for field in dataclasses.fields(kind)}
    for name, tensor in values.items():
        field, _, inner = name.partition(".")
        if inner:
            fields[field] |= {inner: tensor}
        else:
            fields[field] = tensor
    return kind(**fields)


def cost(record: Any, wire: str = "fp32") -> tuple[int, int]:
    """(floats, bytes) of a record on the wire.

    Floats are its values as the papers count them: every number that is not an integer index (labels, counts).
    Bytes are all that travels: pictures of bytes one a value, float32 numbers two with the wire fp16.
    """
    parts = tensors(record).values()
    floats = sum(tensor.numel() for tensor in parts if tensor.dtype not in (torch.int64, torch.bool))
    half = wire == "fp16"
    return floats, sum(
        tensor.numel() * (2 if half and tensor.dtype == torch.float32 else tensor.element_size()) for tensor in parts
    )


def sent(record: Any, wire: str) -> Any:
    """A record as it arrives: with the wire fp16, its float32 numbers were rounded to half precision on the way."""
    if record is None or wire == "fp32":
        return record
    arrived = {name: t.half().float() if t.dtype == torch.float32 else t for name, t in tensors(record).items()}
    return rebuilt(type(record), arrived)
