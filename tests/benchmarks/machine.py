"""What a number was measured on, and how fast that is at best."""

from __future__ import annotations

import os
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch


def facts(device: torch.device) -> dict:
    """Machine, versions, load and date, JSON-able."""
    return {
        "cpu": cpu_model(), "cores": os.cpu_count(), "load": [round(load, 2) for load in os.getloadavg()],
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(), "python": platform.python_version(), "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def flops_rate(device: torch.device, repeats: int = 8) -> float:
    """FLOP/s of a float32 matrix product that fills the device, the best of several."""
    size = 1024 if device.type == "cpu" else 8192
    a, best = torch.rand(size, size, device=device), float("inf")
    for _ in range(repeats):
        begun = time.perf_counter()
        (a @ a)[0, 0].item()
        best = min(best, time.perf_counter() - begun)
    return 2 * size**3 / best


def disk_rate(size: int = 64 << 20) -> float:
    """Bytes/s of writing and syncing a file where temporary files go."""
    block = os.urandom(size)
    with tempfile.TemporaryFile() as file:
        begun = time.perf_counter()
        file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return size / (time.perf_counter() - begun)


def peak_memory() -> int:
    """Bytes: the most this process has held since it began; ru_maxrss would count what its parent held, too."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
