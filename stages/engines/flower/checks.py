"""The rules for an answer. One that breaks them is refused with a sentence, and its client counts as missing.

The expected upload is found by training one client on a few images of noise: every answer has the same names,
types and shapes, except that a record with `labels` has one row for each class that its client holds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from stages.algorithms.common.records import rebuilt, received, tensors
from stages.algorithms.contract import ClientState
from stages.artifacts import schemas
from stages.artifacts.refs import IDENTITY, Ref
from stages.engines import clients
from stages.engines.clients import Answer
from stages.engines.federation import ClientData, Federation
from stages.engines.flower.link import Reply
from stages.engines.flower.payload import Facts
from stages.errors import UserError

CLIENTS, CLASSES, IMAGES, SIDE = 10_000, 100_000, 10**9, 4096  # the most that a node may claim to have
SEAL = re.compile("[0-9a-f]{64}")
LARGEST = 1e15  # the largest number in an upload: a sum of squares of larger ones would not be finite
BEYOND = 1000.0  # times what any other client sends: more than an honest one reaches, or a mean survives
ROUNDING = 0.01  # allowed for rows rounded to half precision on the wire


class ClientFailed(UserError):
    """The client reports that it failed, or Flower does."""


@dataclass(frozen=True)
class UploadSpec:
    """What an upload must be; `kind` is None for an algorithm that sends nothing."""

    kind: type | None
    shapes: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
    metrics: frozenset[str]
    classes: int


def upload_spec(federation: Federation, state: ClientState, shape: tuple[int, int, int]) -> UploadSpec:
    """The spec of this federation's uploads; `state` is any untrained client's, and is not changed."""
    labels = torch.arange(min(federation.classes, 4)).repeat_interleave(2)
    images = torch.randint(0, 256, (len(labels), *shape), dtype=torch.uint8, generator=federation.rng.torch("noise"))
    settings = replace(federation.settings, drop_last=False, local_epochs=1, batch_size=len(labels))
    brief = replace(federation, settings=settings)
    share = ClientData(images.to(federation.device), labels.to(federation.device))
    answer = clients.train(brief, 0, deepcopy(state), share, 0, None)
    uploaded = federation.algorithm.fixed_shapes(answer.upload)
    shapes = {name: (value.dtype, tuple(value.shape)) for name, value in uploaded.items()}
    kind = None if answer.upload is None else type(answer.upload)
    return UploadSpec(kind, shapes, frozenset(answer.metrics), federation.classes)


def checked(reply: Reply, client: int) -> Reply:
    """The reply, if it is an answer from that client."""
    if reply.error or "error" in reply.facts:
        raise ClientFailed(reply.error or str(reply.facts["error"]))
    if reply.facts.get("client") != client:
        raise UserError(f"it says it is client {reply.facts.get('client')}")
    return reply


def described(reply: Reply, alike: Facts) -> None:
    """Raises UserError unless a node describes itself in this reply, and agrees with `alike`, which all nodes of a run share."""
    if reply.error or "error" in reply.facts:
        raise UserError(reply.error or str(reply.facts["error"]))
    facts = reply.facts
    sizes, shape, data = (facts.get(name) for name in ("sizes", "shape", "data"))
    own = sizes.values() if isinstance(sizes, dict) and set(sizes) == set(schemas.SPLITS) else [None]
    sides = shape if isinstance(shape, list) and len(shape) == 3 else [None]
    numbers = [(facts.get("client"), CLIENTS), (facts.get("clients"), CLIENTS), (facts.get("classes"), CLASSES)]
    numbers += [(size, IMAGES) for size in own] + [(side, SIDE) for side in sides]
    counted = all(type(number) is int and 0 <= number <= most for number, most in numbers)
    named = isinstance(data, dict) and data.keys() == set(IDENTITY) and data["kind"] == "data"
    texts = named and all(isinstance(text, str) for text in facts["data"].values())
    if not (counted and texts and SEAL.fullmatch(facts["data"]["seal"])):
        raise UserError("it does not say which client it is and what data it holds")
    Ref.parse(facts["data"]["ref"])
    if not facts["client"] < facts["clients"]:
        raise UserError(f"it says it is client {facts['client']} of {facts['clients']}")
    for name, value in alike.items():
        if facts[name] != value:
            raise UserError(f"client {facts['client']} says its {name} is {facts[name]}, but in this run it is {value}")


def trained(reply: Reply, wanted: UploadSpec, federation: Federation, images: int) -> Answer:
    """The answer of a client that trained on that many images. The UserError says what is wrong."""
    if "failed" in reply.facts:
        raise ClientFailed(str(reply.facts["failed"]))
    metrics = reply.facts.get("metrics")
    if not isinstance(metrics, dict) or metrics.keys() != wanted.metrics:
        raise UserError(f"its metrics are not {', '.join(sorted(wanted.metrics))}")
    for name, value in metrics.items():
        if not isinstance(value, float) or not math.isfinite(value):
            raise UserError(f"its {name} is {value}")
    if wanted.kind is None or reply.facts.get("sent") is not True:
        if wanted.kind is not None or reply.arrays:
            raise UserError("it sent an upload, but this algorithm has none" if reply.arrays else "it sent no upload")
        return Answer(None, metrics)
    try:
        values = received(reply.arrays)
        upload = rebuilt(wanted.kind, values)
        uploaded = federation.algorithm.fixed_shapes(upload)
        whole = tensors(upload).keys() == values.keys()
    except Exception as error:  # names and shapes may be anything
        raise UserError(
            f"its upload is not a valid {wanted.kind.__name__} ({type(error).__name__}: {error})"
        ) from error
    if not whole:
        raise UserError(f"its upload is not a valid {wanted.kind.__name__}")
    check_shapes(uploaded, wanted)
    check_numbers(uploaded, federation.algorithm.unit_rows, images)
    placed = {name: value.to(federation.device) for name, value in values.items()}
    return Answer(rebuilt(wanted.kind, placed), metrics)


def check_shapes(uploaded: Mapping[str, Tensor], wanted: UploadSpec) -> None:
    if uploaded.keys() != wanted.shapes.keys():
        raise UserError(f"its upload holds {', '.join(sorted(uploaded)) or 'nothing'}, not {', '.join(wanted.shapes)}")
    labels = uploaded.get("labels")
    for name, value in uploaded.items():
        dtype, shape = wanted.shapes[name]
        if labels is not None and shape:
            shape = (len(labels) if labels.ndim else 0, *shape[1:])
        if value.dtype != dtype or tuple(value.shape) != shape:
            raise UserError(
                f"its {name} is {type_and_shape(value.dtype, value.shape)}, not {type_and_shape(dtype, shape)}"
            )
    if labels is not None and not set(labels.tolist()) <= set(range(wanted.classes)):
        raise UserError(f"its labels are not all in 0..{wanted.classes - 1}")
    if labels is not None and len(labels.unique()) != len(labels):
        raise UserError("it sends a class twice")


def check_numbers(uploaded: Mapping[str, Tensor], unit_rows: Collection[str], images: int) -> None:
    """Raises UserError for numbers that the server, or a client after it, could not square and sum."""
    for name, value in uploaded.items():
        if not value.numel():
            continue
        if not value.isfinite().all():
            raise UserError(f"its {name} is not finite")
        if value.is_floating_point() and (largest := float(value.abs().max())) > LARGEST:
            raise UserError(f"its {name} has values up to {largest:.3g}, above the limit of {LARGEST:g}")
        if name in unit_rows and (longest := float(value.norm(dim=-1).max())) > 1 + ROUNDING:
            raise UserError(f"its {name} has a row of length {longest:.3g}, but the method allows at most 1")
        if value.dtype == torch.int64 and value.min() < 0:
            raise UserError(f"its {name} is negative")
        if name in ("count", "counts") and (value.max() > images or value.sum() > images):
            raise UserError(f"its {name} counts more than its {images} training images")


def excessive(uploads: Mapping[int, Any]) -> dict[int, str]:
    """Clients whose upload holds numbers far larger than anybody else's in this round, and what to say of each.

    With only two clients, nobody can tell which is wrong.
    """
    reached: dict[str, dict[int, float]] = {}
    for client, upload in uploads.items():
        for name, value in tensors(upload).items():
            if value.is_floating_point() and value.numel():
                reached.setdefault(name, {})[client] = float(value.abs().max())
    found = {}
    for name, sizes in reached.items():
        second, first = sorted([0.0, 0.0, *sizes.values()])[-2:]
        if len(sizes) > 2 and first > BEYOND * second > 0:
            client = max(sizes, key=sizes.__getitem__)
            found[client] = f"its {name} has values up to {first:.3g}, every other client's only up to {second:.3g}"
    return found


def seconds(reply: Reply, phases: Collection[str], most: float) -> dict[str, float]:
    """How long a client says each phase took; what is impossible within `most` seconds is left out."""
    told, found = reply.facts.get("seconds"), dict[str, float]()
    for phase in phases:
        with suppress(TypeError, ValueError, LookupError):
            number = float(told[phase])  # type: ignore[index]
            found |= {phase: number} if 0 <= number <= most else {}
    return found


def type_and_shape(dtype: torch.dtype, shape: Sequence[int]) -> str:
    return f"{str(dtype).removeprefix('torch.')} {list(shape)}"


def evaluated(reply: Reply, sizes: Mapping[str, int]) -> dict[str, float]:
    """By split, how many images a client classifies correctly, and `test_auc`. Raises UserError for impossible values."""
    measured = reply.facts.get("measured")
    if not isinstance(measured, dict) or measured.keys() != {*sizes, "test_auc"}:
        raise UserError("it does not say how many images of each split it classifies correctly, and its AUC")
    auc = measured["test_auc"]
    for split, size in sizes.items():
        if type(measured[split]) is not int or not 0 <= measured[split] <= size:
            raise UserError(f"it says it classifies {measured[split]} of its {size} {split} images correctly")
    if not (isinstance(auc, float) and 0 <= auc <= 1 if sizes["test"] else auc is None):
        raise UserError(f"it says its AUC is {auc}")
    return measured | {"test_auc": math.nan if auc is None else auc}
