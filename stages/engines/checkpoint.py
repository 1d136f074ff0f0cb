"""A run's state as named tensors in one safetensors file, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stages.algorithms.common.records import below, rebuilt, tensors
from stages.algorithms.contract import AnyAlgorithm
from stages.artifacts.schemas import client_path
from stages.engines.federation import State
from stages.engines.history import History
from stages.engines.shelf import NAMED, expanded, shelved
from stages.foreign import understood


def pack(state: State) -> dict[str, Tensor]:
    """Every tensor of the state by path: what clients predict with, server/, history/, and selected/ for the selected round."""
    parts: dict[str, Any] = {"server": state.server, "history": state.history.tensors(), "selected": state.selected}
    packed = predicting(state) | below_paths(parts)
    return {name: value.detach().cpu().contiguous() for name, value in packed.items()}


def predicting(state: State) -> dict[str, Tensor]:
    """What the clients predict with: rounds, download/, clients/<000>/model/ and clients/<000>/private/.

    Of clients on a shelf only the names of their files.
    """
    parts: dict[str, Any] = {"download": state.download}
    rest = {"rounds": torch.tensor(state.rounds)}
    if state.shelf:
        return below_paths(parts) | rest | {NAMED: state.shelf.snapshot()}
    for number, client in enumerate(state.clients):
        parts |= {f"{client_path(number)}/model": client.model, f"{client_path(number)}/private": client.private}
    return below_paths(parts) | rest


def below_paths(parts: Mapping[str, Any]) -> dict[str, Tensor]:
    return {f"{path}/{name}": value for path, part in parts.items() for name, value in tensors(part).items()}


@understood("The checkpoint")
def unpack(
    state: State,
    packed: Mapping[str, Tensor],
    algorithm: AnyAlgorithm,
    device: torch.device,
    folder: Path | None = None,
) -> None:
    """Fill a freshly assembled state from the output of `pack`; in `folder` are the files that it may name."""
    state.history = History(below(packed, "history"))
    restore(state.server, below(packed, "server"))
    own = {
        path: value for path, value in packed.items() if path.partition("/")[0] not in ("history", "server", "selected")
    }
    states = [below(packed, "selected"), own]
    if state.shelf:
        states = [each if NAMED in each or not each else shelved(each, state.shelf) for each in states]
        for each in filter(None, states):
            state.shelf.hold(each[NAMED])
    elif folder:
        states = [expanded(each, folder) for each in states]
    state.selected, own = states
    unpack_predicting(state, own, algorithm, device)


@understood("The checkpoint")
def unpack_predicting(
    state: State, packed: Mapping[str, Tensor], algorithm: AnyAlgorithm, device: torch.device
) -> None:
    """Fill a freshly assembled state from the output of `predicting`."""
    state.rounds = int(packed["rounds"])
    if arrived := below(packed, "download"):
        assert algorithm.Download is not None
        state.download = rebuilt(algorithm.Download, {name: value.to(device) for name, value in arrived.items()})
    if state.shelf:
        state.shelf.files = packed[NAMED].clone()
    joined = state.history["rounds/joined"].any(0) if "rounds/joined" in state.history else None
    for number, client in enumerate(state.clients):
        weights = below(packed, f"{client_path(number)}/model")
        if not weights and joined is not None and not joined[number]:
            continue  # of a client on a shelf, which stays as it began
        client.model.load_state_dict(weights)
        client.private = {k: v.to(device) for k, v in below(packed, f"{client_path(number)}/private").items()}


def restore(record: Any, values: Mapping[str, Tensor]) -> None:
    """Put tensors back into the fields (tensors or modules) of a mutable record."""
    if record is None:
        return
    for field in dataclasses.fields(record):
        part = getattr(record, field.name)
        if isinstance(part, nn.Module):
            prefix = f"{field.name}."
            part.load_state_dict({k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)})
        else:
            setattr(record, field.name, values[field.name].to(part.device))


def write(state: State, path: Path) -> None:
    save_file(pack(state), path)


@understood("The checkpoint")
def read(path: Path) -> dict[str, Tensor]:
    return load_file(path)
