"""Official snapshots (`.pkl`) of StyleGAN2-ADA, StyleGAN3 and StyleGAN-XL, read as data: nothing in them runs."""

from __future__ import annotations

import mmap
from pathlib import Path

from stages.errors import UserError
from stages.foreign import opened
from stages.generators.stylegan.snapshots import pickles
from stages.generators.stylegan.snapshots.modules import Interpreter, Module
from stages.generators.stylegan.snapshots.pickles import Refused, UnhashedDict

__all__ = ["Module", "read"]


def read(path: Path) -> Module:
    """The generator of a snapshot (its `G_ema`, the moving average of the weights); UserError if it is none.

    Only what the generator is made of must be understood. The discriminator and the rest of a snapshot, which may
    refer to any library of networks, are passed over.
    """
    try:
        with opened(path) as file:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        return Interpreter(len(data)).module(_generator(data))
    except (OSError, ValueError) as error:  # an empty file can't be mapped, which is a ValueError
        reason = str(error) if isinstance(error, Refused) else f"it is empty or unreadable ({error})"
        raise UserError(
            f"{path} can't be read as a StyleGAN snapshot: {reason}. Give an official .pkl, or a file made by "
            "`fedktl generator convert`."
        ) from None


def _generator(data: memoryview) -> object:
    if bytes(data[:2]) == b"PK":
        raise Refused("it is a zip file, as checkpoints of PyTorch are")
    if bytes(data[:1]) != b"\x80":
        raise Refused("it is not a pickle")
    content, _ = pickles.read(data)
    entries = [value for key, value in content if key == "G_ema"] if isinstance(content, UnhashedDict) else []
    if not entries:
        raise Refused("it has no 'G_ema', the generator of a training snapshot")
    return entries[-1]
