"""Weights on disk: official snapshots, and the safetensors files that they are converted to."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stages.errors import UserError, printable, unknown
from stages.foreign import reason
from stages.generators.stylegan import official, snapshots
from stages.generators.stylegan.configs import decoded
from stages.generators.stylegan.networks import stylegan2, stylegan3, styleganxl
from stages.generators.stylegan.networks.mapping import Network

FAMILIES: dict[str, ModuleType] = {"stylegan2": stylegan2, "stylegan3": stylegan3, "stylegan-xl": styleganxl}
FORMAT = 1  # of the header; a later one is refused
KEY = "fedktl"  # under which the header is found in the metadata of a safetensors file
SINGLE_FILE = (
    "model.diffusion_model.",
    "first_stage_model.",
    "cond_stage_model.",
    "conditioner.",
)  # Stable Diffusion's
LICENCE = "non-commercial: networks of this family come under the NVIDIA Source Code License"


@dataclass(frozen=True)
class Header:
    """What a converted file says besides its tensors, as JSON."""

    format: int
    family: str
    config: dict[str, Any]
    source: str  # name of the snapshot it was made from
    sha256: str  # of that snapshot
    licence: str


@dataclass(frozen=True)
class Checkpoint:
    header: Header
    config: Any  # the family's Config
    network: Network  # with its weights, float32, on the CPU


def read(path: Path) -> Checkpoint:
    """A snapshot, or a converted `.safetensors`; UserError if it is neither or does not fit together."""
    if not path.is_file():  # opening a pipe would wait for ever
        raise UserError(f"{path} can't be read as a generator: there is no such file.")
    generator = None if path.suffix == ".safetensors" else snapshots.read(path)
    try:
        header, tensors = _converted(path) if generator is None else _official(path, generator)
        config = decoded(FAMILIES[header.family].Config, header.config)
        return Checkpoint(header, config, _network(header.family, config, tensors))
    except UserError as error:
        raise UserError(f"{path} is not a generator that can be used. {printable(str(error), 300)}") from None


def convert(snapshot: Path, out: Path) -> None:
    """Write a snapshot as safetensors with a JSON header, after which the snapshot is no longer needed."""
    if out.suffix != ".safetensors" or out.exists():
        raise UserError(f"{out} must be the name of a new file that ends in .safetensors.")
    checkpoint = read(snapshot)
    partial = out.with_name(f".{out.name}.partial")
    try:
        header = json.dumps(dataclasses.asdict(checkpoint.header))
        save_file(checkpoint.network.state_dict(), partial, {KEY: header})
        os.replace(partial, out)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{out} can't be written ({error}).") from None
    finally:
        partial.unlink(missing_ok=True)


def describe(path: Path) -> dict[str, Any]:
    """What is in the file, JSON-able."""
    checkpoint = read(path)
    mapping, synthesis = checkpoint.config.mapping, checkpoint.config.synthesis
    return {
        "family": checkpoint.header.family,
        "resolution": synthesis.resolution,
        "latent_dim": mapping.w_dim,
        "classes": mapping.c_dim,
        "parameters": sum(parameter.numel() for parameter in checkpoint.network.parameters()),
        "source": checkpoint.header.source,
        "sha256": checkpoint.header.sha256,
        "licence": checkpoint.header.licence,
        "layers": synthesis.table(),
    }


def _official(path: Path, generator: snapshots.Module) -> tuple[Header, dict[str, Tensor]]:
    family, config = official.recognised(generator)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Header(FORMAT, family, config, path.name, sha256, LICENCE), generator.state_dict()


def _converted(path: Path) -> tuple[Header, dict[str, Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(KEY)
            if text is None:
                raise UserError(_foreign(file))
            return _header(text), {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"It can't be read as safetensors ({reason(error)}).") from None


def _foreign(file: Any) -> str:
    """What a safetensors file that was not converted by fedktl holds, and what to do with it."""
    names = sorted(file.keys())
    if any(name.startswith(SINGLE_FILE) for name in names):
        return (
            "It is a single-file diffusion checkpoint; save it as a folder with diffusers, by the pipeline's "
            "from_single_file and save_pretrained, and give that folder."
        )
    told = ", ".join(f"{name} {file.get_slice(name).get_shape()}" for name in names[:2])
    return (
        f"It holds {len(names)} tensors ({printable(told)}) and no fedktl header; `fedktl generator convert` makes such "
        "files from official .pkl snapshots."
    )


def _header(text: str) -> Header:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise UserError("Its header is not JSON.") from None
    if isinstance(value, dict) and isinstance(value.get("format"), int) and value["format"] > FORMAT:
        raise UserError(f"A newer fedktl wrote it: its header has format {value['format']}, this one reads {FORMAT}.")
    header = decoded(Header, value)
    if header.family not in FAMILIES:
        raise unknown("generator family", header.family, FAMILIES)
    if not all(note.isprintable() and len(note) < 300 for note in (header.source, header.sha256, header.licence)):
        raise UserError("Its header has notes that can't be shown.")
    return header


def _network(family: str, config: Any, tensors: dict[str, Tensor]) -> Network:
    """The network with these weights; UserError names those it lacks, has no use for, or can't use."""
    with torch.device("meta"):  # nothing is allocated for sizes that the tensors may not bear out
        network: Network = FAMILIES[family].network(config)
    wanted = {name: tensor.shape for name, tensor in network.state_dict().items()}
    unfit = {name for name, tensor in tensors.items() if name in wanted and tensor.shape != wanted[name]}
    broken = {name for name, tensor in tensors.items() if not tensor.isfinite().all()}
    for problem, names in (
        ("It lacks", wanted.keys() - tensors.keys()),
        ("It has tensors that its family does not use:", tensors.keys() - wanted.keys()),
        ("It has tensors of the wrong shape:", unfit),
        ("It has numbers that are not finite in", broken),
    ):
        if names:
            raise UserError(f"{problem} {', '.join(sorted(names)[:3])[:200]}{', ...' if len(names) > 3 else ''}.")
    network.load_state_dict(tensors, assign=True)
    return network.eval().requires_grad_(False)
