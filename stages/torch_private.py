"""What of PyTorch is not public: it may change with any release, so each use is tested against the public way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def descend(parameters: list[Tensor], gradients: list[Tensor], lr: float) -> None:
    """A step of `torch.optim.SGD`, in few launches; importing `torch.optim` takes two seconds."""
    torch._foreach_add_(parameters, gradients, alpha=-lr)


def descend_by_adam(
    parameters: list[Tensor], gradients: list[Tensor], means: list[Tensor], squares: list[Tensor], steps: list[Tensor],
    lr: float, betas: tuple[float, float],
) -> None:  # fmt: skip
    """A step of `torch.optim.Adam`; the moments, and the steps that were done, change in place."""
    torch._foreach_add_(steps, 1)
    torch._fused_adam_(
        parameters, gradients, means, squares, [], steps, lr=lr, beta1=betas[0], beta2=betas[1], weight_decay=0.0,
        eps=1e-8, amsgrad=False, maximize=False,
    )  # fmt: skip


def clip(gradients: list[Tensor], max_norm: float) -> None:
    """`nn.utils.clip_grad_norm_` to the last bit, in half its time: it sorts the tensors by device first."""
    norm = torch.stack(torch._foreach_norm(gradients)).norm()
    torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))


def count(counters: list[Tensor], numbers: list[int]) -> None:
    """`Tensor.add_` of its number to every counter, in few launches."""
    torch._foreach_add_(counters, numbers)


def approach(tensors: list[Tensor], goals: list[Tensor], part: float) -> None:
    """`Tensor.lerp_` for every pair, in few launches."""
    torch._foreach_lerp_(tensors, goals, part)


@contextmanager
def capturing(graph: torch.cuda.CUDAGraph, pool: Any) -> Iterator[None]:
    """`torch.cuda.graph` on the current stream, which does not wait for the whole device, collect garbage or empty caches."""
    graph.capture_begin(pool, capture_error_mode="thread_local")
    try:
        yield
    finally:
        graph.capture_end()


def abandon(pool: Any, device: int) -> None:
    """Close the memory pool of a capture that broke, which PyTorch before 2.12 leaves open."""
    with suppress(RuntimeError, AttributeError):  # closed already
        torch._C._cuda_endAllocateToPool(device, pool)


class Watch(TorchDispatchMode):
    """Within its block, notes the memory of every tensor that something is computed from."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._seen.update(_memory(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
        return func(*args, **(kwargs or {}))

    def saw(self, tensor: Tensor) -> bool:
        return _memory(tensor) in self._seen


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
