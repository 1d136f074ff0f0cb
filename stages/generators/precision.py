"""The number formats that a generator can compute in."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from stages.errors import UserError, unknown

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def resolved(name: str, device: torch.device, on_gpu: str) -> str:
    """`auto` is fp32 on a CPU, which has no faster format, and `on_gpu` on a GPU; other names stay as they are."""
    if name != "auto":
        return name
    return on_gpu if device.type == "cuda" else "fp32"


def dtype(name: str, device: torch.device) -> torch.dtype:
    """The format called `name`; UserError if there is none, or if `device` has no convolution in it."""
    if name not in PRECISIONS:
        raise unknown("precision", name, PRECISIONS)
    try:
        x = torch.ones(1, 1, 4, 4, dtype=PRECISIONS[name], device=device)
        F.conv_transpose2d(F.conv2d(x, x[..., :2, :2]), x[..., :2, :2])
    except RuntimeError:
        raise UserError(f"Device '{device}' has no {name} convolution; use fp32.") from None
    return PRECISIONS[name]
