"""A client's model between rounds, on the client's own disk: `<folder>/<run>/<client>/<rounds>.safetensors`.

A file is the state after that many rounds and appears by one rename, so a kill at any moment leaves either the old or
the new state. States since the server's last checkpoint are kept, because a server that died resumes there, and its
clients with it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from stages.algorithms.contract import ClientState
from stages.artifacts import seal
from stages.errors import UserError

RUN = re.compile(r"[0-9a-f]{32}")
STATE = re.compile(r"([0-9]{6,})\.safetensors")


class Disk:
    def __init__(self, folder: Path, run: str, client: int):
        if not RUN.fullmatch(run):
            raise UserError("A run's key is 32 hexadecimal digits; this message has another.")
        self.folder = folder / run / f"{client:03d}"

    def path(self, rounds: int) -> Path:
        return self.folder / f"{rounds:06d}.safetensors"

    def states(self) -> dict[int, Path]:
        """Files by number of rounds done, ascending."""
        matches = [(STATE.fullmatch(path.name), path) for path in self.folder.glob("*.safetensors")]
        return dict(sorted((int(match[1]), path) for match, path in matches if match))

    def newest(self, rounds: int) -> int | None:
        """The number of the newest state no later than `rounds`; None if there is none."""
        return max((number for number in self.states() if number <= rounds), default=None)

    def load(self, state: ClientState, rounds: int, device: torch.device) -> None:
        """Fill a fresh state from the newest file no later than `rounds`; without one it stays as it is."""
        newest = self.newest(rounds)
        if newest is None:
            return
        path = self.path(newest)
        try:
            values = load_file(path)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path} can't be read ({error}); delete it to resume from the state before it.") from error
        model = {name.removeprefix("model/"): value for name, value in values.items() if name.startswith("model/")}
        state.model.load_state_dict(model)
        state.private = {
            name.removeprefix("private/"): value.to(device)
            for name, value in values.items() if name.startswith("private/")
        }  # fmt: skip

    def save(self, state: ClientState, rounds: int) -> None:
        parts = {f"model/{name}": value for name, value in state.model.state_dict().items()}
        parts |= {f"private/{name}": value for name, value in state.private.items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.folder / f"{os.getpid()}.draft"
        save_file({name: value.detach().cpu().contiguous().clone() for name, value in parts.items()}, draft)
        seal.sync(draft)
        os.replace(draft, self.path(rounds))
        seal.sync(self.folder)

    def forget(self, rounds: int, kept: int) -> None:
        """Delete what a server at `rounds`, with a checkpoint at `kept`, can no longer ask for."""
        numbers = self.states()
        oldest = max((number for number in numbers if number <= kept), default=0)
        for number, path in numbers.items():
            if number > rounds or number < oldest:
                path.unlink(missing_ok=True)
        for draft in self.folder.glob("*.draft"):
            draft.unlink(missing_ok=True)
