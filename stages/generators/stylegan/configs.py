"""Configurations from foreign values: the JSON of a file's header, or the attributes of a snapshot."""

from __future__ import annotations

import types
import typing
from typing import Any, TypeVar

from stages.errors import UserError

T = TypeVar("T")
LARGEST = 1 << 20  # number of units, classes, channels or samples
LONGEST = 256  # list


def decoded(kind: type[T], value: Any) -> T:
    """`value` (dicts, lists and plain values) as the dataclass `kind`; UserError names what does not fit.

    Every field must be there, with a value of its type; a dataclass checks the rest when it is made.
    """
    made: T = _decoded(kind, value, kind.__name__)
    return made


def _decoded(kind: Any, value: Any, where: str) -> Any:
    if hasattr(kind, "__dataclass_fields__"):
        hints = typing.get_type_hints(kind)
        if not isinstance(value, dict) or value.keys() != hints.keys():
            raise UserError(f"{where} should say {', '.join(hints)}, and nothing else.")
        return kind(**{name: _decoded(hint, value[name], f"{where}.{name}") for name, hint in hints.items()})
    if typing.get_origin(kind) is dict and isinstance(value, dict):
        return value
    if typing.get_origin(kind) is tuple and isinstance(value, list) and len(value) <= LONGEST:
        return tuple(_decoded(typing.get_args(kind)[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if isinstance(kind, types.UnionType):
        return None if value is None else _decoded(typing.get_args(kind)[0], value, where)
    if kind is float and type(value) in (int, float):
        fits = abs(value) < 1e30  # neither infinite nor NaN
    else:
        fits = type(value) is kind and (kind is not int or 0 <= value <= LARGEST)
    if fits:
        return kind(value)
    raise UserError(f"{where} can't be {str(value)[:50]!r}.")
