"""What travels: named arrays and facts (JSON). To Flower's ArrayRecord and ConfigRecord and back, exactly."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.errors import UserError

if TYPE_CHECKING:
    from flwr.app import RecordDict

Arrays = Mapping[str, np.ndarray]
Facts = Mapping[str, Any]
TYPES = ("float32", "float16", "float64", "int64", "uint8", "bool")


def to_records(arrays: Arrays, facts: Facts) -> RecordDict:
    from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

    record = ArrayRecord({name: Array(np.asarray(value, order="C")) for name, value in arrays.items()})
    return RecordDict({"arrays": record, "facts": ConfigRecord({"json": json.dumps(dict(facts))})})


def from_records(content: RecordDict) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Raises UserError for anything that `to_records` could not have made."""
    try:
        facts = json.loads(content.config_records["facts"]["json"])  # type: ignore[arg-type]
        if not isinstance(facts, dict):
            raise ValueError("facts are no object")
        return {name: decoded(array) for name, array in content.array_records["arrays"].items()}, facts
    except (KeyError, ValueError, TypeError, EOFError, RecursionError) as error:
        raise UserError(f"The message can't be read ({error}).") from error


def decoded(array: Any) -> np.ndarray:
    """An array as its own bytes say, if that is what its label says."""
    value = np.load(io.BytesIO(array.data), allow_pickle=False)
    if value.dtype.name not in TYPES or (value.dtype.name, value.shape) != (array.dtype, tuple(array.shape)):
        raise ValueError(f"an array labelled {array.dtype} {tuple(array.shape)} is {value.dtype} {value.shape}")
    return value


def size(content: RecordDict) -> int:
    """Bytes of the records as Flower gets them: arrays with their headers, and the JSON."""
    arrays = sum(len(array.data) for array in content.array_records["arrays"].values())
    return arrays + len(str(content.config_records["facts"]["json"]).encode())
