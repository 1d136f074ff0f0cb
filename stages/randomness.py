"""Randomness as a function of (seed, purpose, round, client), never of call order.

So resuming needs no generator state, and clients may run in any order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from operator import index
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch

Part = str | int


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Within this block PyTorch draws from `seed`, on the CPU and on `device`; afterwards its generators are as they were.

    `torch.manual_seed` also seeds every GPU; where there is none, it writes the stack down each time, in milliseconds.
    """
    import torch

    gpus = [device] if device and device.type == "cuda" else []
    with torch.random.fork_rng(gpus):
        torch.default_generator.manual_seed(seed)
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        yield


def _name(part: Part) -> str:
    """A part of a path as text, unique among all parts and sequences of parts."""
    return f"str:{part.replace('/', '//')}" if isinstance(part, str) else f"int:{index(part)}"


class Rng:
    """A node in the tree of random streams; `at` goes deeper, the other methods open a stream there.

    >>> Rng(0).at("round", 3).at("client", 1).seed("batches") == Rng(0).at("round", 3, "client", 1).seed("batches")
    True
    """

    def __init__(self, seed: int, *path: Part, secret: str = ""):
        """Only those who know `secret` can follow the `hidden` streams."""
        self._path: tuple[Part, ...] = (seed, *path)
        self._secret = secret

    def at(self, *path: Part) -> Rng:
        return Rng(*self._path, *path, secret=self._secret)  # type: ignore[arg-type]

    def seed(self, *purpose: Part) -> int:
        """An int in [0, 2^63) that depends on the seed and the whole path."""
        text = "/".join(_name(part) for part in (*self._path, *purpose))
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1

    def hidden(self, *purpose: Part) -> torch.Generator:
        """Like `torch`, for what others must not guess from the seed, such as noise that protects a client."""
        return self.at("secret", self._secret).torch(*purpose)

    def torch(self, *purpose: Part) -> torch.Generator:
        """A CPU generator, so that the stream is the same on every device."""
        import torch

        return torch.Generator().manual_seed(self.seed(*purpose))

    def numpy(self, *purpose: Part) -> np.random.Generator:
        import numpy as np

        return np.random.default_rng(self.seed(*purpose))
