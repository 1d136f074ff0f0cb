"""A run's state as named tensors: one safetensors file, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

from stages.algorithms.common.records import rebuilt, tensors
from stages.algorithms.contract import AnyAlgorithm, ClientState
from stages.engines.federation import State
from stages.engines.history import History
from stages.foreign import understood


def pack(state: State) -> dict[str, Tensor]:
    """Every tensor of the state under a path: rounds, server/, download/, history/, clients/<000>/model/, .../private/."""
    parts: dict[str, Any] = {"server": state.server, "download": state.download, "history": state.history.tensors()}
    for number, client in enumerate(state.clients):
        parts[f"clients/{number:03d}/model"] = client.model
        parts[f"clients/{number:03d}/private"] = client.private
    packed = {f"{path}/{name}": value for path, part in parts.items() for name, value in tensors(part).items()}
    packed["rounds"] = torch.tensor(state.rounds)
    return {name: value.detach().cpu().contiguous() for name, value in packed.items()}


@understood("The checkpoint")
def unpack(state: State, packed: Mapping[str, Tensor], algorithm: AnyAlgorithm, device: torch.device) -> None:
    """Fill a freshly assembled state with what `pack` made of an earlier one."""

    def below(path: str) -> dict[str, Tensor]:
        return {name.removeprefix(f"{path}/"): value for name, value in packed.items() if name.startswith(f"{path}/")}

    state.rounds = int(packed["rounds"])
    state.history = History(below("history"))
    restore(state.server, below("server"))
    if arrived := below("download"):
        assert algorithm.Download is not None
        state.download = rebuilt(algorithm.Download, {name: value.to(device) for name, value in arrived.items()})
    for number, client in enumerate(state.clients):
        client.model.load_state_dict(below(f"clients/{number:03d}/model"))
        client.private = {k: v.to(device) for k, v in below(f"clients/{number:03d}/private").items()}


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


def client_weights(client: ClientState) -> bytes:
    """A client's model as the bytes of a safetensors file."""
    return packed(client.model.state_dict())


def packed(values: Mapping[str, Tensor]) -> bytes:
    """Tensors as the bytes of a safetensors file."""
    return save({name: value.detach().cpu().contiguous() for name, value in values.items()})
