"""A record's tensors by name, its cost, and how it travels: one rule of the wire for every engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

Record = TypeVar("Record")


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


def below(values: Mapping[str, Tensor], path: str) -> dict[str, Tensor]:
    """The tensors under a path, by the rest of their names."""
    return {name.removeprefix(f"{path}/"): value for name, value in values.items() if name.startswith(f"{path}/")}


def concatenated(records: Iterable[Record]) -> Record:
    """One record of the rows of all."""
    parts = [(type(record), tensors(record)) for record in records]
    kind, first = parts[0]
    joined: Record = rebuilt(kind, {name: torch.cat([values[name] for _, values in parts]) for name in first})
    return joined


def wire_type(dtype: torch.dtype, wire: str) -> torch.dtype:
    """The type in which a tensor travels: with the wire fp16, float32 numbers are rounded to half precision."""
    return torch.float16 if wire == "fp16" and dtype == torch.float32 else dtype


def arrived(tensor: Tensor) -> Tensor:
    """No algorithm computes in half precision: a float16 number is a float32 one that travelled so."""
    return tensor.float() if tensor.dtype == torch.float16 else tensor


def cost(record: Any, wire: str = "fp32") -> tuple[int, int]:
    """(floats, bytes) of a record on the wire.

    Floats are its values as the papers count them: every number that is not an integer index (labels, counts).
    Bytes are all that travels: a byte of a picture is one, and with the wire fp16 a float32 number is two.
    """
    parts = tensors(record).values()
    floats = sum(tensor.numel() for tensor in parts if tensor.dtype not in (torch.int64, torch.bool))
    return floats, sum(tensor.numel() * wire_type(tensor.dtype, wire).itemsize for tensor in parts)


def sent(record: Any, wire: str) -> Any:
    """A record as it arrives where nothing leaves the process."""
    if record is None or wire == "fp32":
        return record
    return rebuilt(type(record), {name: arrived(t.to(wire_type(t.dtype, wire))) for name, t in tensors(record).items()})


def packed(record: Any, wire: str) -> dict[str, np.ndarray]:
    """A record's arrays as they travel."""
    values = {name: tensor.detach().cpu() for name, tensor in tensors(record).items()}
    return {name: value.to(wire_type(value.dtype, wire)).numpy() for name, value in values.items()}


def received(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """The tensors of a record that travelled as arrays."""
    return {name: arrived(torch.from_numpy(value.copy())) for name, value in arrays.items()}
