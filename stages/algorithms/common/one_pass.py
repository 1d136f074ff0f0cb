"""Two batches through a network in one pass, each normalised by its own statistics as if it had come alone.

One pass over twenty images launches half as many kernels as two over ten each, and convolves faster.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from stages import torch_private
from stages.devices import exact_float32
from stages.models.split import SplitModel
from stages.randomness import seeded

DROPOUTS = (F.dropout, F.alpha_dropout, F.feature_alpha_dropout, F.dropout1d, F.dropout2d, F.dropout3d)
TOLERANCE = 0.02  # of the largest feature: rounding is far below it, statistics of the wrong images far above

_known: dict[str, bool] = {}  # whether an architecture computes in one pass what it computes in two, by its description


class OnePass:
    """`model.features` of two batches, one after the other: in one pass, or in two for models that mix their images.

    BatchNorm's running statistics move with the first batch, and with the second only if `track_both`.
    """

    def __init__(self, model: SplitModel, track_both: bool):
        self._model, self._track_both = model, track_both
        self._norms = tracking(model)
        self._joins: bool | None = None
        self._joint_norm: Callable[..., Tensor] | None = None  # the trial whether networks join does without

    def __call__(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Features float32 [n, feature_dim] and [m, feature_dim] of images float32 [n, C, H, W] and [m, C, H, W]."""
        if first.shape[1:] != second.shape[1:]:
            return self._two_passes(first, second)
        if self._joins is None:
            self._joins = joins(self._model, first.shape[1:], self._track_both)
            self._joint_norm = joint_norm_on(first.device)
        return self._one_pass(first, second) if self._joins else self._two_passes(first, second)

    def _one_pass(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        counters = [norm.num_batches_tracked for norm in self._norms if getattr(norm, "momentum", None) is not None]
        with Parted(len(first), self._track_both, counters, self._joint_norm):
            features = self._model.features(torch.cat([first, second]))
        return features[: len(first)], features[len(first) :]

    def _two_passes(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        features = self._model.features(first)
        with nullcontext() if self._track_both else keeping_statistics(self._norms):
            return features, self._model.features(second)


class Parted(TorchFunctionMode):
    """Within the block, BatchNorm and dropout treat the first `size` rows and the others as two batches, one after the other.

    What layers add to their `counters` of batches is added when the block ends, for all at once and once more for a second
    batch that is tracked. A layer that averages by its counter, having no momentum, needs its own at once.
    """

    def __init__(
        self, size: int, track_both: bool, counters: Iterable[Tensor], joint_norm: Callable[..., Tensor] | None = None
    ):
        super().__init__()
        self._size, self._track_both, self._joint_norm = size, track_both, joint_norm
        self._counted = dict.fromkeys(counters, 0)

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)  # type: ignore[no-untyped-call]
        counted = {counter: count for counter, count in self._counted.items() if count}
        if counted:
            torch_private.count(list(counted), list(counted.values()))

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if function is F.batch_norm:
            return self._batch_norm(*args, **(kwargs or {}))
        if function is Tensor.add_ and args[0] in self._counted:
            self._counted[args[0]] += args[1] * (1 + self._track_both)
            return args[0]
        if function in DROPOUTS:
            return torch.cat([function(part, *args[1:], **(kwargs or {})) for part in self._parts(args[0])])
        return function(*args, **(kwargs or {}))

    def _batch_norm(
        self, x: Tensor, mean: Tensor | None, variance: Tensor | None, weight: Tensor | None = None,
        bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
    ) -> Tensor:  # fmt: skip
        if self._joint_norm and training and weight is not None and bias is not None:
            tracked = 0 if mean is None else 1 + self._track_both
            return self._joint_norm(x, weight, bias, mean, variance, self._size, tracked, momentum, eps)
        kept = (mean, variance) if self._track_both else (None, None)
        parts = zip(self._parts(x), ((mean, variance), kept), strict=True)
        return torch.cat([F.batch_norm(part, *moved, weight, bias, training, momentum, eps) for part, moved in parts])

    def _parts(self, x: Tensor) -> tuple[Tensor, ...]:
        parts: tuple[Tensor, ...] = torch.split(x, [self._size, len(x) - self._size])
        return parts


@functools.cache
def joint_norm_on(device: torch.device) -> Callable[..., Tensor] | None:
    """What normalises both batches in one launch, where there is a GPU with Triton and a C compiler, found by trying."""
    if device.type != "cuda":
        return None
    try:
        from stages.algorithms.common.joint_norm import joint_norm

        x, one = torch.eye(4, 2, device=device).requires_grad_(), torch.ones(2, device=device)
        with torch.enable_grad():
            joint_norm(x, one, one, None, None, 2, 0, 0.1, 1e-5).sum().backward()
    except Exception:  # whatever Triton misses on this machine
        return None
    return joint_norm


def joins(model: SplitModel, shape: torch.Size, track_both: bool) -> bool:
    """Whether one pass over two batches of images [C, H, W] computes what two passes do, found by trying.

    It does not if images also mix outside BatchNorm, if several layers draw random numbers, whose order would change, or if
    a running statistic that both batches move is an average over all batches so far.
    """
    description = f"{tuple(shape)} {track_both} {model}"
    if description not in _known:
        same, drew = tried(model, shape, track_both, seed=0)
        _known[description] = same and (not drew or tried(model, shape, track_both, seed=1)[0])
    return _known[description]


@torch.no_grad()
def tried(model: SplitModel, shape: torch.Size, track_both: bool, seed: int) -> tuple[bool, bool]:
    """Whether both ways compute the same with random numbers from `seed`, and whether the model draws any."""
    device = next(model.parameters()).device
    draw = torch.Generator().manual_seed(seed)
    first, second = torch.randn(4, *shape, generator=draw), 3 + 2 * torch.randn(4, *shape, generator=draw)
    with seeded(seed, device):
        undisturbed = torch.rand((), device=device)

    def outcome(passes: Callable[[OnePass], Callable[..., tuple[Tensor, Tensor]]]) -> tuple[list[Tensor], Tensor]:
        shared = {id(weights): weights for weights in model.parameters()}  # these don't change
        own = copy.deepcopy(model, shared).train()
        own.bf16 = False
        with seeded(seed, device), exact_float32():  # coarser rounding grows from layer to layer
            features = passes(OnePass(own, track_both))(first.to(device), second.to(device))
            moved = [buffer for norm in tracking(own) for buffer in norm.buffers(recurse=False)]
            return [*features, *moved], torch.rand((), device=device)

    try:
        (joint, _), (apart, next_drawn) = outcome(lambda both: both._one_pass), outcome(lambda both: both._two_passes)
    except (RuntimeError, ValueError, TypeError):
        return False, False
    same = all(
        float((a - b).abs().max()) <= TOLERANCE * float(b.abs().max()) for a, b in zip(joint, apart, strict=True)
    )
    return same, not torch.equal(next_drawn, undisturbed)


def tracking(model: nn.Module) -> list[Any]:
    """The layers that keep running statistics of what they normalise."""
    return [module for module in model.modules() if getattr(module, "track_running_stats", False)]


@contextmanager
def keeping_statistics(norms: Iterable[Any]) -> Iterator[None]:
    """Within the block these layers normalise by the batch, as always in training, but their running statistics do not move.

    A client is evaluated on images of its own kind. Pairs may be of another kind, and an average of both would fit neither.
    """
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
