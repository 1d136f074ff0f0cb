"""What this machine has for the program, and whether it works: for a person with a problem, or a script before a job."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stages.artifacts.store import Store
from stages.errors import printable
from stages.foreign import reason

EXTRAS = {  # the distribution that tells whether an extra is installed, and what it is for
    "flower": ("flwr", "clients on other machines, or simulated over Ray"),
    "diffusion": ("diffusers", "Stable Diffusion and other diffusion pipelines as generators"),
    "timm": ("timm", "timm's networks as clients' models"),
    "hf": ("datasets", "data sets from the Hugging Face hub, or saved by its library"),
    "parquet": ("pyarrow", "a report's numbers as a Parquet file"),
    "privacy": ("opacus", "the epsilon of noise on uploaded prototypes"),
    "remote": ("obstore", "artifacts pushed to and pulled from S3, Azure, GCS or a web server"),
    "onnx": ("onnx", "clients exported for other runtimes"),
    "tensorboard": ("tensorboard", "curves in TensorBoard"),
    "mlflow": ("mlflow", "curves in MLflow"),
    "wandb": ("wandb", "curves in Weights & Biases"),
}
STEERING = (
    "CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG", "FEDKTL_STORE", "HF_HOME", "HF_HUB_OFFLINE", "MKL_NUM_THREADS",
    "NO_COLOR", "OMP_NUM_THREADS", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "TMPDIR", "TORCH_HOME",
    "WANDB_MODE",
)  # fmt: skip
PROXIES = ("all_proxy", "http_proxy", "https_proxy")  # may hold passwords
ROOM = 2**30  # bytes free in the store below which something may fail


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `fault` where the program will fail on it."""

    what: str
    found: str
    fault: bool = False


def examine(store: Store) -> Iterator[Finding]:
    """All findings, the quick ones first; the last ones compute for a second or two."""
    yield Finding("fedktl", own_version())
    yield Finding("python", f"{platform.python_version()}, {platform.system()} {platform.machine()}")
    yield Finding("processor", f"{_cores()} cores, {_memory()} of memory")
    yield _disk(store.root)
    yield from (Finding(name, printable(os.environ[name])) for name in STEERING if name in os.environ)
    yield from (Finding(name, "set") for name in PROXIES if os.environ.get(name) or os.environ.get(name.upper()))
    yield from (_extra(name, *entry) for name, entry in EXTRAS.items())
    yield from _torch()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> str:
    try:
        return _gibibytes(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return "an unknown amount"


def _gibibytes(count: float) -> str:
    return f"{count / 2**30:.1f} GiB"


def _disk(root: Path) -> Finding:
    """The store, or the folder in which it would be made."""
    shown = printable(str(root))
    there = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        return Finding("store", f"{shown} can't be written; choose another store", fault=True)
    free = shutil.disk_usage(there).free
    return Finding("store", f"{shown}, {_gibibytes(free)} free" + ", which is little" * (free < ROOM), fault=free == 0)


def own_version() -> str:
    """This program's version, or that it runs from its sources without being installed."""
    try:
        return importlib.metadata.version("fedktl")
    except importlib.metadata.PackageNotFoundError:
        return "not installed, runs from its sources"


def _extra(name: str, distribution: str, purpose: str) -> Finding:
    try:
        return Finding(name, f"{distribution} {importlib.metadata.version(distribution)}, for {purpose}")
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, f"not installed; for {purpose}: pip install 'fedktl[{name}]'")


def _torch() -> Iterator[Finding]:
    try:
        import torch
        import torchvision

        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)  # its compiled part fits only one release of torch
    except Exception as error:
        yield Finding("torch", f"{reason(error)}; install torch and torchvision as a pair", fault=True)
        return
    yield Finding("torch", f"{torch.__version__}, torchvision {torchvision.__version__}")
    yield self_test("cpu")
    if not torch.cuda.is_available():
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
        yield Finding("gpu", f"none ({built}): clients train in up to {_cores()} processes")
    for number in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(number)
        numbers = "fp32, tf32, bf16" if card.major >= 8 else "fp32"
        yield Finding(f"cuda:{number}", f"{card.name}, {_gibibytes(card.total_memory)}, {numbers}")
        yield self_test(f"cuda:{number}")


def self_test(device: str) -> Finding:
    """A few steps of a small client on made-up images, on a GPU from a graph: the loss must fall."""
    what = f"steps on {device}"
    try:
        first, last = _losses(device)
    except Exception as error:
        return Finding(what, f"fail: {reason(error)}", fault=True)
    return Finding(what, f"work: the loss falls from {first:.2f} to {last:.2f}", fault=not last < first)


def _losses(name: str, steps: int = 30) -> tuple[float, float]:
    """The mean loss of the first five steps, and of the last five."""
    import torch
    from torch import Tensor
    from torch.nn import functional as F

    from stages.algorithms.common.batches import Steps
    from stages.algorithms.common.sgd import SGD
    from stages.models import split

    device = torch.device(name)
    draw = torch.Generator().manual_seed(0)
    images, labels = torch.randn(10, 3, 32, 32, generator=draw).to(device), torch.arange(10, device=device)
    model = split.build("resnet4", (3, 32, 32), 10, 64, 0).to(device).train()
    history = torch.zeros(steps, device=device)
    given = [(torch.tensor([step], device=device),) for step in range(steps)]

    def objective(step: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        loss = F.cross_entropy(model(images), labels)
        history.index_copy_(0, step, loss.detach()[None])
        return loss, {}

    SGD(0.05, model).minimise(objective, Steps(given))
    return float(history[:5].mean()), float(history[-5:].mean())


def terminal() -> Finding:
    """How results look where they are now printed."""
    size = shutil.get_terminal_size()
    kind = f"{size.columns} columns" if sys.stdout.isatty() else "not a terminal: output is plain"
    return Finding("terminal", f"{kind}, {sys.stdout.encoding or 'no encoding'}")
