"""Objects full of tensors in memory shared by several processes: one block for any number of tensors."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stages import algorithms
from stages.algorithms.contract import Algorithm

ALIGNMENT = 64  # bytes, as torch aligns its own memory
Place = tuple[int, torch.dtype, torch.Size, tuple[int, ...]]  # first byte, and the tensor there


@dataclass(frozen=True)
class SharedMemory:
    """A pickled object whose tensors lie in `block`, uint8 [bytes] in shared memory.

    Every `load`, in any process, gives a new object over the same memory. The pickle is only ever passed between the
    processes of one run.
    """

    pickled: bytes
    block: Tensor

    @classmethod
    def of(cls, content: Any) -> SharedMemory:
        """Raises what pickle raises for content that can't be sent to another process."""
        buffer = io.BytesIO()
        pickler = _Pickler(buffer)
        pickler.dump(content)
        block = torch.empty(max(1, pickler.size), dtype=torch.uint8).share_memory_()
        for place, tensor in pickler.placed.values():
            view(block, *place).copy_(tensor.detach())
        return cls(buffer.getvalue(), block)

    def load(self) -> Any:
        return _Unpickler(io.BytesIO(self.pickled), self.block).load()


class _Pickler(pickle.Pickler):
    """Sets every tensor aside, at the next free place in the block."""

    def __init__(self, file: io.BytesIO):
        super().__init__(file)
        self.size = 0
        self.placed: dict[int, tuple[Place, Tensor]] = {}

    def persistent_id(self, item: Any) -> Any:
        if isinstance(item, Algorithm):
            return item.name
        if not isinstance(item, Tensor):
            return None
        if id(item) not in self.placed:
            strides = torch.empty_like(item, device="meta").stride()  # the tensor's axis order, without gaps
            self.placed[id(item)] = (self.size, item.dtype, item.shape, strides), item
            self.size += -(-max(1, item.numel() * item.element_size()) // ALIGNMENT) * ALIGNMENT
        return self.placed[id(item)][0], isinstance(item, nn.Parameter) and item.requires_grad, type(item)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, block: Tensor):
        super().__init__(file)
        self._block = block
        self._met: dict[Place, Tensor] = {}  # a tensor that occurs twice stays one tensor

    def persistent_load(self, wanted: Any) -> Any:
        if isinstance(wanted, str):
            return algorithms.get(wanted)
        place, requires_grad, kind = wanted
        if place not in self._met:
            tensor = view(self._block, *place)
            self._met[place] = nn.Parameter(tensor, requires_grad) if kind is nn.Parameter else tensor
        return self._met[place]


def view(block: Tensor, start: int, dtype: torch.dtype, shape: torch.Size, strides: tuple[int, ...]) -> Tensor:
    """The tensor at byte `start`; autograd does not see it as a view of the block."""
    return torch.empty(0, dtype=dtype).set_(block.untyped_storage(), start // dtype.itemsize, shape, strides)
