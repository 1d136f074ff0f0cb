"""Where tensors live, and how a device computes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from stages.errors import UserError
from stages.foreign import reason
from stages.settings import Train

WORKSPACES = (":4096:8", ":16:8")  # settings that make cuBLAS deterministic


def device(name: str) -> torch.device:
    """The device called `name`; `auto` is the first GPU, or else the CPU. UserError if it is not available."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(name)
    except RuntimeError:  # whose message lists every device that PyTorch was ever built for
        raise UserError(f"Device '{name}' is not available here (there is no such kind); use cpu or auto.") from None
    try:
        if found.type not in ("cpu", "cuda"):
            raise RuntimeError("only cpu and cuda are supported")
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"Device '{name}' is not available here ({reason(error)}); use cpu or auto.") from None
    return found


def set_up(settings: Train) -> None:
    """Set threads, TF32 and determinism for this process."""
    torch.set_num_threads(settings.threads)
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")  # with the default of 8, parallel clients share queues
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = settings.precision == "tf32"
    if settings.deterministic and os.environ.get("CUBLAS_WORKSPACE_CONFIG") not in WORKSPACES:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = WORKSPACES[0]
    torch.backends.cudnn.deterministic = settings.deterministic
    # A user's model may have no deterministic algorithms. `use_deterministic_algorithms` would take two seconds: it
    # imports PyTorch's compiler.
    torch.set_deterministic_debug_mode("warn" if settings.deterministic else "default")


@contextmanager
def exact_float32() -> Iterator[None]:
    """Within the block, a GPU does not round the inputs of float32 products and convolutions to ten bits (TF32)."""
    before, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, False
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def home(offload: str, models: Iterable[nn.Module], device: torch.device) -> torch.device:
    """Where client models wait between turns: on the device, or in host memory if `offload` says so or they don't fit."""
    if device.type == "cpu" or offload == "off":
        return device
    host = torch.device("cpu")
    return (
        host if offload in ("on", "disk") or size(models) > free(device) / 2 else device
    )  # the other half is for training


def check_room(device: torch.device, data: int, models: Sequence[nn.Module], settings: Train) -> None:
    """UserError, with settings that would fit, if a GPU has too little free memory for `data` bytes, models and training.

    Each client in flight counts as three times the largest model: gradients, activations and workspace.
    """
    if device.type == "cpu":
        return
    sizes = [size([model]) for model in models]
    resident = home(settings.offload, models, device).type != "cpu"

    def needed(in_flight: int, resident: bool) -> int:
        return data + (sum(sizes) if resident else in_flight * max(sizes)) + 3 * in_flight * max(sizes)

    room, in_flight = free(device), min(settings.in_flight, len(sizes))
    if needed(in_flight, resident) <= room:
        return
    fitting = [count for count in range(in_flight, 0, -1) if needed(count, False) <= room]
    advice = f"`offload=on in_flight={fitting[0]}` would fit" if fitting else "use smaller models or `device=cpu`"
    raise UserError(
        f"This run needs about {needed(in_flight, resident) / 2**30:.1f} GiB on {device}, but {room / 2**30:.1f} GiB are "
        f"free; {advice}."
    )


def size(models: Iterable[nn.Module]) -> int:
    """Bytes of all weights and buffers."""
    return sum(tensor.numel() * tensor.element_size() for model in models for tensor in model.state_dict().values())


def free(device: torch.device) -> int:
    """Free bytes on the device."""
    return torch.cuda.mem_get_info(device)[0]
