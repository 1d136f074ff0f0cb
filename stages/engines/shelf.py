"""Clients' states on disk, for more clients than fit into memory: a file for each that has trained.

`<client>-<rounds>.safetensors` is a client's state after so many rounds, and never changes. A client without a file is as it
began, which is built anew for each of its turns. So a round costs what its clients cost, and a checkpoint only names
the files that it needs: they stay until the next one is saved.
"""

from __future__ import annotations

import copy
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from stages.algorithms.common.records import below
from stages.algorithms.contract import ClientState
from stages.artifacts import seal
from stages.artifacts.schemas import client_path
from stages.foreign import understood
from stages.models.split import SplitModel

FOLDER = "clients"  # of an unfinished run
NAMED = "shelf"  # in a checkpoint: int64 [clients, 2], of each client's file the rounds (0: it has none) and the digest


class Shelf:
    """The states of all clients; `folder` is set before the first turn."""

    folder: Path

    def __init__(self, alike: Sequence[SplitModel], fresh: Callable[[int], SplitModel], device: torch.device):
        """`alike` has a model of each client's architecture, `fresh` builds a client's own, as it began."""
        self._alike, self._fresh, self._device = alike, fresh, device
        self.files = torch.zeros(len(alike), 2, dtype=torch.int64)
        self._held: set[Path] = set()  # that a checkpoint, or the selected round, needs
        self._unsynced: set[Path] = set()

    def __len__(self) -> int:
        return len(self._alike)

    def model(self, client: int) -> SplitModel:
        """A model of the client's architecture, whose weights mean nothing."""
        return self._alike[client]

    @contextmanager
    def taken(self, client: int, rounds: int | None) -> Iterator[ClientState]:
        """The client's state on the device for one turn, and back as that after so many rounds, or unchanged with None."""
        state = self._state(client)
        yield state
        if rounds is not None:
            parts = {f"model/{name}": value for name, value in state.model.state_dict().items()}
            self.put(client, parts | {f"private/{name}": value for name, value in state.private.items()}, rounds)

    def _state(self, client: int) -> ClientState:
        rounds, digest = self.files[client].tolist()
        if not rounds:
            return ClientState(self._fresh(client).to(self._device))
        values = read(self.folder, client, rounds, digest)
        model = copy.deepcopy(self._alike[client])
        model.load_state_dict(below(values, "model"))
        private = {name: value.to(self._device) for name, value in below(values, "private").items()}
        return ClientState(model.to(self._device), private)

    def put(self, client: int, values: Mapping[str, Tensor], rounds: int) -> None:
        path, before = place(self.folder, client, rounds), place(self.folder, client, int(self.files[client, 0]))
        self.folder.mkdir(exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}.draft")
        save_file({name: value.detach().cpu().contiguous().clone() for name, value in values.items()}, draft)
        self.files[client] = torch.tensor([rounds, digest_of(draft)])
        os.replace(draft, path)
        self._unsynced.add(path)
        if before != path and before not in self._held:
            before.unlink(missing_ok=True)
            self._unsynced.discard(before)

    def snapshot(self) -> Tensor:
        """The files as they are now; they stay until `release`."""
        self.hold(self.files)
        return self.files.clone()

    def hold(self, files: Tensor) -> None:
        self._held |= self._paths(files)

    def settle(self) -> None:
        """Make the files outlast a power cut: before a checkpoint that names them."""
        for path in self._unsynced:
            seal.sync(path)
        if self._unsynced:
            seal.sync(self.folder)
        self._unsynced.clear()

    def release(self, *snapshots: Tensor) -> None:
        """Delete the files that neither the present nor one of these needs."""
        self._held = set().union(*(self._paths(files) for files in snapshots))
        needed = self._held | self._paths(self.files)
        for path in self.folder.iterdir() if self.folder.exists() else ():
            if path not in needed:
                path.unlink()

    def _paths(self, files: Tensor) -> set[Path]:
        return {place(self.folder, client, rounds) for client, rounds, _ in named(files)}


def place(folder: Path, client: int, rounds: int) -> Path:
    return folder / f"{client:03d}-{rounds}.safetensors"


def digest_of(path: Path) -> int:
    return int(seal.sha256(path)[:15], 16)


@understood("A client's file")
def read(folder: Path, client: int, rounds: int, digest: int) -> dict[str, Tensor]:
    path = place(folder, client, rounds)
    if digest_of(path) != digest:
        raise seal.damaged(path, "is damaged")
    return load_file(path)


def named(files: Tensor) -> Iterator[tuple[int, int, int]]:
    """The clients that have a file, after how many rounds it was written, and its digest."""
    yield from ((client, rounds, digest) for client, (rounds, digest) in enumerate(files.tolist()) if rounds)


def expanded(packed: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """A packed state with what the files hold in place of their names; clients without a file are left out."""
    rest = {path: value for path, value in packed.items() if path != NAMED}
    for file in named(packed[NAMED]) if NAMED in packed else ():
        rest |= {f"{client_path(file[0])}/{path}": value for path, value in read(folder, *file).items()}
    return rest


def shelved(packed: Mapping[str, Tensor], shelf: Shelf) -> dict[str, Tensor]:
    """A packed state with its clients put on the shelf, and the names of their files in their place."""
    rounds, clients, rest = int(packed["rounds"]), defaultdict[int, dict[str, Any]](dict), {}
    for path, value in packed.items():
        kind, _, inner = path.partition("/")
        number, _, name = inner.partition("/")
        if kind == "clients":
            clients[int(number)][name] = value
        else:
            rest[path] = value
    shelf.files = torch.zeros_like(shelf.files)
    for client, values in clients.items() if rounds else ():
        shelf.put(client, values, rounds)
    return rest | {NAMED: shelf.snapshot()}
