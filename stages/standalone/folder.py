"""An exported client on disk: `config.json`, and its tensors as `model.safetensors`. It may be anyone's, so it is read as data."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from safetensors.torch import load, save

from stages import foreign, plugins
from stages.errors import UserError, printable
from stages.foreign import understood
from stages.models import split
from stages.settings import key
from stages.standalone.client import Client, Description, Values

CONFIG, TENSORS = "config.json", "model.safetensors"
FORMAT = 1
LARGEST_CONFIG, LARGEST_TENSORS = 4 << 20, 8 << 30  # bytes
MOST_CLASSES = 10_000  # of which class vectors fill a gigabyte
SLACK = 64 << 20  # bytes of a model that its file need not hold: what predicting does not use


def config(client: Client, about: Mapping[str, Any]) -> str:
    """What `read` needs, and `about` for people and other programs."""
    facts = {"fedktl_client": FORMAT, **client.description.as_dict(), "hyper": client.hyper.as_dict()}
    return json.dumps(facts | {"about": dict(about)}, indent=1, allow_nan=False) + "\n"


def write_tensors(client: Client, path: Path, description: str) -> None:
    path.write_bytes(save({name: tensor.detach().clone().contiguous() for name, tensor in client.used().items()}))


def read(folder: Path, code: Sequence[str | Sequence[str] | None] | None = ()) -> Client:
    """The client in an exported folder. UserError says what is wrong with it.

    Of the code that it names (`package.module:name`) only what `code` names as well is loaded; with None, of a folder
    just written, all.
    """
    if not (folder / CONFIG).is_file() or not (folder / TENSORS).is_file():
        raise UserError(f"{folder} is not an exported client, which has {CONFIG} and {TENSORS}.")
    facts = foreign.parsed(folder / CONFIG, "an exported client's description", json.loads, LARGEST_CONFIG)
    with understood(str(folder / CONFIG)):
        if facts["fedktl_client"] != FORMAT:
            raise UserError(f"{folder / CONFIG} has another format than {FORMAT}, which this fedktl reads.")
        known = [key(field) for field in dataclasses.fields(Description)]
        description, hyper = Description.make({name: facts[name] for name in known}), dict(facts["hyper"])
    values = foreign.parsed(folder / TENSORS, "an exported client's tensors", load, LARGEST_TENSORS)
    with nullcontext() if code is None else plugins.only(*code):
        check_size(description, values, folder)
        with understood(str(folder)):  # numbers that are allowed one by one may not fit together
            client = Client(description, hyper, values)
    for name in sorted(client.used().keys() ^ values.keys()):
        found = "has" if name in values else "lacks"
        raise UserError(f"{folder / TENSORS} {found} {printable(name)}, which is not what {folder / CONFIG} describes.")
    return client


def check_size(description: Description, values: Values, folder: Path) -> None:
    """UserError, before memory is taken for it, for a model that is far larger than the file with its tensors."""
    classes = len(description.class_names)
    if not 2 <= classes <= MOST_CLASSES:
        raise UserError(f"{folder / CONFIG} names {classes:,} classes; a client has 2 to {MOST_CLASSES:,}.")
    outline = split.meta_model(description.architecture, description.image_shape, classes, description.feature_dim)
    size = sum(tensor.nbytes for tensor in outline.state_dict().values())
    if size > 2 * sum(tensor.nbytes for tensor in values.values()) + SLACK:
        raise UserError(
            f"{folder / CONFIG} describes a model of {size:,} bytes, and {folder / TENSORS} is far smaller."
        )
