"""The modules of a snapshot, as plain facts: from the inert records of a pickle to attributes and tensors.

Everything is checked here: only what official snapshots are made of is understood, and no size is believed that
the file's own bytes don't bear out.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stages.generators.stylegan.snapshots import pickles
from stages.generators.stylegan.snapshots.pickles import Call, Name, Refused, UnhashedDict

MAX_DEPTH = 20  # of modules in modules, and of lists in lists
MAX_VALUES = 1_000_000  # attributes and their parts, a part counted as often as it is referred to
PARTS = ("_parameters", "_buffers", "_modules")
DICTS = {"collections.OrderedDict", "dnnlib.util.EasyDict"}
PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"
EMBEDDING = "torch.nn.modules.sparse.Embedding"
NUMPY_MODULES = ("numpy.core.multiarray", "numpy.core._multiarray_umath", "numpy._core.multiarray")
NUMPY_SCALARS = {f"{module}.scalar" for module in NUMPY_MODULES}
NUMPY_ARRAYS = {f"{module}._reconstruct" for module in NUMPY_MODULES}
NUMPY_TYPES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}
FLOATS = {
    "torch.FloatStorage": torch.float32, "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16, "torch.BFloat16Storage": torch.bfloat16,
}  # fmt: skip


@dataclass(frozen=True)
class Module:
    """One module of a network."""

    class_name: str
    attributes: dict[str, Any]  # plain values; what a module was built with is in `_init_kwargs`
    tensors: dict[str, Tensor]  # its own parameters and buffers, float32
    children: dict[str, Module]

    def state_dict(self, prefix: str = "") -> dict[str, Tensor]:
        """All tensors by their official names, as `synthesis.b4.conv1.weight`."""
        own = {prefix + name: tensor for name, tensor in self.tensors.items()}
        for name, child in self.children.items():
            own |= child.state_dict(f"{prefix}{name}.")
        return own

    def walk(self, path: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it, with their paths; the path of the first is ''."""
        yield path, self
        for name, child in self.children.items():
            yield from child.walk(f"{path}.{name}".lstrip("."))


class Interpreter:
    """Turns records into modules while it keeps count of what the whole file may ask for."""

    def __init__(self, file_size: int):
        self._bytes_left = file_size  # tensors can't hold more than the file
        self._values_left = MAX_VALUES

    def module(self, record: Any, depth: int = 0) -> Module:
        """A persistent object, or torch's Embedding."""
        class_name, state = self._class_and_state(record, depth)
        parts = {part: self._dict(state.pop(part, UnhashedDict()), depth) for part in PARTS}
        tensors = {
            name: self._tensor(value)
            for name, value in (parts["_parameters"] | parts["_buffers"]).items()
            if value is not None
        }
        children = {
            name: self.module(value, depth + 1) for name, value in parts["_modules"].items() if value is not None
        }
        attributes = {name: self._plain(value, depth) for name, value in state.items()}
        return Module(class_name, attributes, tensors, children)

    def _class_and_state(self, record: Any, depth: int) -> tuple[str, dict[str, Any]]:
        match record:
            case Call(Name(path), (UnhashedDict() as facts,), state=None) if path == PERSISTENT:
                named = self._dict(facts, depth)
                return str(self._plain(named.get("class_name"), depth)), self._dict(named.get("state"), depth)
            case Call(Name(path), (), state=UnhashedDict() as state) if path == EMBEDDING:
                return "Embedding", self._dict(state, depth)
        raise Refused(f"where a module of the network should be it has {_described(record)}")

    def _dict(self, value: Any, depth: int) -> dict[str, Any]:
        match value:
            case Call(Name(path), (), pairs=pairs) if path in DICTS:
                pass
            case UnhashedDict() as pairs:
                pass
            case _:
                raise Refused(f"where a dict should be it has {_described(value)}")
        self._count(len(pairs), depth)
        if not all(isinstance(key, str) for key, _ in pairs):
            raise Refused("it has a dict whose keys are not all text")
        return dict(pairs)

    def _count(self, values: int, depth: int) -> None:
        self._values_left -= values
        if self._values_left < 0 or depth > MAX_DEPTH:
            raise Refused("it is nested too deeply or refers to its own parts too often")

    def _plain(self, value: Any, depth: int) -> Any:
        """None, bool, int, float, str, and lists and dicts of these; NumPy values become Python's."""
        self._count(1, depth)
        match value:
            case None | bool() | int() | float() | str():
                return value
            case UnhashedDict() | Call(Name("collections.OrderedDict" | "dnnlib.util.EasyDict")):
                return {key: self._plain(item, depth + 1) for key, item in self._dict(value, depth).items()}
            case list() | tuple():
                return [self._plain(item, depth + 1) for item in value]
            case Call(Name("builtins.set"), (list() as items,)):
                return self._plain(items, depth)
            case Call(Name(path), (dtype, memoryview() as data)) if path in NUMPY_SCALARS:
                self._count(len(data), depth)
                return _numbers(dtype, data, ())
            case Call(Name(path), state=(1, tuple() as shape, dtype, bool(), memoryview() as data)) if (
                path in NUMPY_ARRAYS
            ):
                self._count(len(data), depth)
                return _numbers(dtype, data, shape)
        raise Refused(f"its network refers to {_described(value)}, which no official one does")

    def _tensor(self, record: Any) -> Tensor:
        """A float32 tensor of its own from a parameter or buffer."""
        if isinstance(record, Call) and record.function == Name("torch._utils._rebuild_parameter"):
            record = record.arguments[0] if isinstance(record.arguments, tuple) and record.arguments else None
        match record:
            case Call(
                Name("torch._utils._rebuild_tensor_v2"),
                (
                    Call(Name("torch.storage._load_from_bytes"), (memoryview() as data,)),
                    int(offset), tuple() as shape, tuple() as strides, *_,
                ),
            ):  # fmt: skip
                pass
            case _:
                raise Refused(f"where a tensor should be it has {_described(record)}")
        if not _are_sizes((offset, *shape, *strides), len(data)):
            raise Refused("it has a tensor with sizes that its storage can't bear out")
        self._bytes_left -= len(data)
        if self._bytes_left < 0:
            raise Refused("its tensors hold more than the file, as it refers to the same ones again and again")
        storage = _storage(data)
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=False))
        if len(shape) != len(strides) or max(last + 1, math.prod(shape)) > len(storage):
            raise Refused(f"it has a tensor of shape {list(shape)[:5]} in a storage of {len(storage)} numbers")
        return storage.as_strided(shape, strides, offset).to(torch.float32).clone(memory_format=torch.contiguous_format)


def _are_sizes(numbers: tuple[object, ...], most: int) -> bool:
    """Whether these can describe a few dimensions of at most so many bytes."""
    return len(numbers) < 20 and all(type(number) is int and 0 <= number <= most for number in numbers)


def _numbers(dtype: Any, data: memoryview, shape: tuple[Any, ...]) -> Any:
    match dtype:
        case Call(Name("numpy.dtype"), (str(code), *_), state=(int(), "<" | "|", None, None, None, *_)):
            pass
        case _:
            raise Refused(f"it has a NumPy type that is {_described(dtype)}")
    if code not in NUMPY_TYPES or not _are_sizes(shape, len(data)):
        raise Refused(f"it has NumPy values of type {code[:20]!r} and {len(shape)} dimensions, no plain numbers")
    values = np.frombuffer(data, np.dtype(f"<{code}")) if len(data) % int(code[1]) == 0 else np.empty(0)
    if math.prod(shape) != len(values):
        raise Refused(f"it has a NumPy array of shape {list(shape)[:5]} in {len(data)} bytes")
    return values.reshape(shape).tolist()


def _storage(data: memoryview) -> Tensor:
    """The floats of one storage in torch's legacy format: five pickles, the number of elements, the elements.

    Torch reserves memory for as many elements as are declared, so the declaration is checked first.
    """
    records, rest = [], data
    for _ in range(5):
        record, rest = pickles.read(rest)
        records.append(record)
    match records:
        case [int(), int(), UnhashedDict(), Call(Name("persistent_id"), ("storage", Name(kind), str(), str(), int(count), None)),
              [str()]] if kind in FLOATS:  # fmt: skip
            pass
        case _:
            raise Refused("it has a tensor whose storage is not a plain array of floats")
    if len(rest) != 8 + count * FLOATS[kind].itemsize or int.from_bytes(rest[:8], "little") != count:
        raise Refused(f"it has a storage that declares {count} numbers and holds {len(rest)} bytes")
    try:
        storage = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch finds wrong with these bytes, the file is at fault
        raise Refused(f"torch can't read one of its storages ({str(error)[:100]!r})") from None
    return torch.empty(0, dtype=FLOATS[kind]).set_(storage)


def _described(value: object) -> str:
    match value:
        case Call(Name(path)) | Name(path):
            return f"{path[:80]!r}"
        case Call():
            return "a call of something that has no name"
    return f"a {'bytes' if isinstance(value, memoryview) else type(value).__name__.lower()}"
