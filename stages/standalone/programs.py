"""A client as a program for other runtimes: torch.export's archive, and ONNX."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from stages.errors import UserError
from stages.foreign import reason
from stages.standalone.client import Client

Scores = Callable[[Tensor], Tensor]
MOST = 1 << 31  # images at once; without any bound PyTorch 2.6 refuses what it can trace


@contextmanager
def tracing() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the tracer may raise anything on a model's code
        raise UserError(
            f"The client can't be traced into a program ({reason(error)}); export its tensors instead."
        ) from error


def traced(client: Client) -> ExportedProgram:
    """The client's arithmetic for any number of images; UserError for a model that can't be traced."""
    example = torch.zeros(2, *client.description.image_shape)
    with tracing():
        return torch.export.export(client, (example,), dynamic_shapes=({0: Dim("images", max=MOST)},), strict=False)


def write_pt2(client: Client, path: Path, description: str) -> None:
    program = traced(client)
    with warnings.catch_warnings(), tracing():
        warnings.simplefilter("ignore")  # about weights with the channels last in memory, which arrive whole
        torch.export.save(program, path, extra_files={"config.json": description})


def read_pt2(path: Path) -> Scores:
    """Only for a file that this process wrote."""
    return torch.export.load(path).module()


def write_onnx(client: Client, path: Path, description: str) -> None:
    needed("onnxruntime")
    needed("onnxscript")
    program: Any = torch.onnx.export(
        traced(client), input_names=["images"], output_names=["scores"], dynamo=True, verbose=False
    )
    program.save(path)


def read_onnx(path: Path) -> Scores:
    session = needed("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def scores(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])

    return scores


def needed(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError:
        raise UserError(f"ONNX needs the package {package}; install it with: pip install 'fedktl[onnx]'") from None
