"""The content of messages: named arrays and facts (JSON), converted to Flower's records and back without loss."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from stages import npy
from stages.errors import UserError, printable

if TYPE_CHECKING:
    from flwr.app import RecordDict

Arrays = Mapping[str, np.ndarray]
Facts = Mapping[str, Any]
TYPES = ("float32", "float16", "float64", "int64", "uint8", "bool")
FACTS_LENGTH = 1 << 20  # characters of JSON
FACTS_DEPTH = 5


def to_records(arrays: Arrays, facts: Facts) -> RecordDict:
    from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

    record = ArrayRecord({name: Array(np.asarray(value, order="C")) for name, value in arrays.items()})
    return RecordDict({"arrays": record, "facts": ConfigRecord({"json": json.dumps(dict(facts))})})


def from_records(content: RecordDict) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Raises UserError for anything that `to_records` could not have produced."""
    try:
        text = content.config_records["facts"]["json"]
        if not isinstance(text, str) or len(text) > FACTS_LENGTH:
            raise ValueError("its facts are too long, or not text")
        facts = json.loads(text)
        if not isinstance(facts, dict) or not shallow(facts, FACTS_DEPTH):
            raise ValueError("its facts are not an object, or nested too deeply")
        return {name: decoded(array) for name, array in content.array_records["arrays"].items()}, facts
    except Exception as error:  # the sender may have written anything
        why = printable(f"{type(error).__name__}: {error}")
        raise UserError(f"The message can't be read ({why}).") from error


def shallow(value: object, depth: int) -> bool:
    """Whether JSON is nested no deeper than `depth`."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth >= 0 and all(shallow(one, depth - 1) for one in inside)


def decoded(array: Any) -> np.ndarray:
    """The array in the bytes, if its type and shape match the label."""
    value = npy.read(io.BytesIO(array.data), len(array.data))
    if value.dtype.name not in TYPES or (value.dtype.name, value.shape) != (array.dtype, tuple(array.shape)):
        raise ValueError(f"an array labelled {array.dtype} {tuple(array.shape)} is {value.dtype} {value.shape}")
    return value


def size(content: RecordDict) -> int:
    """Bytes of the records as handed to Flower: arrays with their headers, and the JSON."""
    arrays = sum(len(array.data) for array in content.array_records["arrays"].values())
    return arrays + len(str(content.config_records["facts"]["json"]).encode())
