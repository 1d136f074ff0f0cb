"""What an algorithm is: a few functions over plain records, put together as an `Algorithm`. One loop runs all of them.

    init(hyper, task, rng) -> (server state, shared)
    client_update(hyper, shared, client, download | None, batches, rng) -> (upload | None, metrics)
    server_update(hyper, shared, state, uploads, rng) -> (state, download | None, metrics)
    predict(hyper, shared, client, download | None, x) -> scores float32 [B, classes]

Rules: no files, no printing, no global seed, no search for a device (tensors arrive placed). `client_update` changes its own
`client` only. Whatever crosses the border between client and server is a dataclass of tensors, or of mappings of tensors;
what it costs is counted from the tensors themselves. `shared` is what everyone derives from the seed alone; it is never sent.

A complete algorithm, in which clients share the bias of their heads:

>>> import torch
>>> from stages import check_algorithm
>>> from stages.algorithms.common.sgd import SGD, LossAndMetrics
>>> from stages.settings import setting
>>> @dataclass(frozen=True)
... class Hyper(Hyperparameters):
...     pull: float = setting(0.5, "How far a client's bias moves to the mean.", low=0, high=1, source="made up")
>>> @dataclass(frozen=True)
... class Message:
...     bias: Tensor  # float32 [classes]
>>> def client_update(
...     hyper: Hyper, shared: Task, client: ClientState, download: Message | None, batches: Batches, rng: Rng
... ) -> tuple[Message, Metrics]:
...     model = client.model.train()
...     bias = model.head.get_parameter("bias").detach()
...     if download is not None:
...         bias.lerp_(download.bias, hyper.pull)
...     def objective(x: Tensor, y: Tensor) -> LossAndMetrics:
...         loss = torch.nn.functional.cross_entropy(model(x), y)
...         return loss, {"loss": loss}
...     metrics = SGD(shared.lr, model).minimise(objective, batches.steps(rng))
...     return Message(bias.clone()), metrics
>>> def server_update(
...     hyper: Hyper, shared: Task, state: None, uploads: Mapping[int, Message], rng: Rng
... ) -> tuple[None, Message, Metrics]:
...     return None, Message(torch.stack([upload.bias for upload in uploads.values()]).mean(0)), {}
>>> ALGORITHM = Stateless(
...     "bias", "a toy", Hyper=Hyper, Download=Message, client_update=client_update, server_update=server_update
... )
>>> check_algorithm(ALGORITHM, {"pull": 0.9})
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

from stages.algorithms.common.batches import Batches
from stages.algorithms.common.records import tensors
from stages.models.split import SplitModel
from stages.randomness import Rng
from stages.settings import Settings

Metrics = Mapping[str, Tensor]  # scalars; read once a round


@dataclass(frozen=True)
class Hyperparameters(Settings):
    """The base of every algorithm's hyperparameters; for algorithms without any, all there is."""

    def needs_latents(self) -> bool:
        """Whether the server works with image-latent pairs."""
        return False

    def released(self, upload: Any, unit_rows: Collection[str], rng: Rng) -> Any:
        """What of an upload leaves the client; the engine asks, with the algorithm's `unit_rows`."""
        return upload

    def privacy(self, releases: int) -> dict[str, Any] | None:
        """What so many uploads of a client, `released` like that, promise it, JSON-able; None if they promise nothing."""
        return None


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
    channels_last: bool = False  # how models lie in memory


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


H = TypeVar("H", bound=Hyperparameters)
Shared = TypeVar("Shared")
State = TypeVar("State")  # of the server
U = TypeVar("U")  # Upload
D = TypeVar("D")  # Download
HyperIn = TypeVar("HyperIn", bound=Hyperparameters, contravariant=True)
SharedIn = TypeVar("SharedIn", contravariant=True)
SharedOut = TypeVar("SharedOut", covariant=True)
StateIn = TypeVar("StateIn", contravariant=True)
StateOut = TypeVar("StateOut", covariant=True)
UploadIn = TypeVar("UploadIn", contravariant=True)
UploadOut = TypeVar("UploadOut", covariant=True)
DownloadIn = TypeVar("DownloadIn", contravariant=True)
DownloadOut = TypeVar("DownloadOut", covariant=True)


class Init(Protocol[HyperIn, SharedOut, StateOut]):
    def __call__(self, hyper: HyperIn, task: Task, rng: Rng, /) -> tuple[StateOut, SharedOut]:
        """The server's state before the first round, and what everyone shares."""


class ClientUpdate(Protocol[HyperIn, SharedIn, UploadOut, DownloadIn]):
    def __call__(
        self, hyper: HyperIn, shared: SharedIn, client: ClientState, download: DownloadIn | None, batches: Batches,
        rng: Rng, /,
    ) -> tuple[UploadOut | None, Metrics]:  # fmt: skip
        """Local training. `download` is what the server sent last, None before it sent anything; metrics hold `loss`."""


class ServerUpdate(Protocol[HyperIn, SharedIn, State, UploadIn, DownloadOut]):
    def __call__(
        self, hyper: HyperIn, shared: SharedIn, state: State, uploads: Mapping[int, UploadIn], rng: Rng, /
    ) -> tuple[State, DownloadOut | None, Metrics]:
        """Learn from the uploads that arrived, by client in ascending order; never called without one."""


class PairedServerUpdate(Protocol[HyperIn, SharedIn, State, UploadIn, DownloadOut]):
    def __call__(
        self, hyper: HyperIn, shared: SharedIn, state: State, uploads: Mapping[int, UploadIn], pairs: PairSource,
        rng: Rng, /,
    ) -> tuple[State, DownloadOut | None, Metrics]:  # fmt: skip
        """The same with a generator's latents and image-latent pairs."""


class Predict(Protocol[HyperIn, SharedIn, DownloadIn]):
    def __call__(
        self, hyper: HyperIn, shared: SharedIn, client: ClientState, download: DownloadIn | None, x: Tensor, /
    ) -> Tensor:
        """Scores float32 [B, classes] of images float32 [B, C, H, W]: the largest is the label's, their softmax are
        probabilities. Whatever tensors they are computed from go with a client that is exported.
        """


class Check(Protocol[HyperIn]):
    def __call__(self, hyper: HyperIn, task: Task, models: Sequence[SplitModel], /) -> None:
        """Raises UserError, with the reason, for clients' models that the algorithm can't federate."""


class FixedShapes(Protocol[UploadIn]):
    def __call__(self, upload: UploadIn, /) -> Mapping[str, Tensor]:
        """An upload's tensors in shapes that depend on the model and the classes only, not on what was learned."""


class Pictures(Protocol[DownloadIn]):
    def __call__(self, download: DownloadIn, /) -> tuple[Tensor, Tensor]:
        """Labels int64 [M], those of a class one after the other, and images [M, 3, size, size] in 0..255."""


class Centroids(Protocol[StateIn]):
    def __call__(self, state: StateIn, /) -> Tensor:
        """A latent for each class, float32 [classes, H]."""


def only_the_task(hyper: Any, task: Task, rng: Rng) -> tuple[None, Task]:
    return None, task


def nothing_learned(hyper: Any, shared: Any, state: Any, uploads: Any, rng: Rng) -> tuple[Any, Any, Metrics]:
    return state, None, {}


def logits(hyper: Any, shared: Any, client: ClientState, download: Any, x: Tensor) -> Tensor:
    """Logits of the client's own model."""
    return client.model(x)


def any_models(hyper: Any, task: Task, models: Sequence[SplitModel]) -> None: ...


NO_HYPERPARAMETERS: Any = Hyperparameters


@dataclass(frozen=True)
class Algorithm(Generic[H, Shared, State, U, D]):
    """An algorithm's name, source and functions; what most algorithms have in common is the default."""

    name: str
    source: str
    client_update: ClientUpdate[H, Shared, U, D]
    server_update: ServerUpdate[H, Shared, State, U, D] = nothing_learned
    paired_server_update: PairedServerUpdate[H, Shared, State, U, D] | None = (
        None  # if the hyperparameters need latents
    )
    init: Init[H, Shared, State] = field(kw_only=True)
    predict: Predict[H, Shared, D] = logits
    check: Check[H] = any_models
    Hyper: type[H] = NO_HYPERPARAMETERS
    Download: type[D] | None = None  # so that a checkpoint can rebuild it
    fixed_shapes: FixedShapes[U] = tensors
    unit_rows: tuple[str, ...] = ()  # tensors of `fixed_shapes` that have no row longer than 1
    same_start: bool = False  # clients of one architecture start from the same weights, whatever `initial_weights` says
    phases: tuple[str, ...] = ()  # of a round, which its functions mark with `stages.clock.phase`
    server_metrics: Mapping[str, str] = field(
        default_factory=dict
    )  # those worth showing, with the title of their figure
    pictures: Pictures[D] | None = None  # in a download; the first of each class is kept for a few rounds
    centroids: Centroids[State] | None = None  # in the server's state, from which images can be rendered after the run


@dataclass(frozen=True)
class Stateless(Algorithm[H, Task, None, U, D]):
    """An algorithm whose server keeps nothing from round to round, and whose clients share only the task."""

    init: Init[H, Task, None] = field(default=only_the_task, kw_only=True)


AnyAlgorithm: TypeAlias = Algorithm[Any, Any, Any, Any, Any]  # as the engine sees it
