"""A saved pipeline read as data: its index, its configurations, the headers and the bytes of its weights."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from stages.errors import UserError, printable, unknown

INDEX = "model_index.json"
CARD = "README.md"
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")  # parts that are never read
SCHEDULERS = (
    "DDIM", "DDPM", "PNDM", "LCM", "TCD", "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "LMSDiscrete",
    "KDPM2Discrete", "KDPM2AncestralDiscrete", "DPMSolverMultistep", "DPMSolverSinglestep", "DEISMultistep",
    "UniPCMultistep", "FlowMatchEulerDiscrete", "FlowMatchHeunDiscrete", "EDMEuler", "EDMDPMSolverMultistep",
)  # fmt: skip
PARTS = {  # part -> its library, and the classes that it may be of: no other is ever looked up
    "unet": ("diffusers", ("UNet2DConditionModel", "UNet2DModel")),
    "transformer": ("diffusers", ("SD3Transformer2DModel",)),
    "vae": ("diffusers", ("AutoencoderKL",)),
    "scheduler": ("diffusers", tuple(f"{name}Scheduler" for name in SCHEDULERS)),
    "text_encoder": ("transformers", ("CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel")),
    "tokenizer": ("transformers", ("CLIPTokenizer", "CLIPTokenizerFast", "T5Tokenizer", "T5TokenizerFast")),
}
OPTIONAL = ("text_encoder_3", "tokenizer_3")  # parts that a pipeline draws without
CONFIGS = {"Scheduler": "scheduler_config.json", "Tokenizer": "tokenizer_config.json"}  # by a word of the class
PICKLES = {".bin", ".ckpt", ".pt", ".pth"}
WEIGHTS = re.compile(r"(?:diffusion_pytorch_)?model(?:\.(\w+))?(?:-\d{5}-of-\d{5})?(?:\.(\w+))?\.safetensors")
PRECISE = ("", "fp32", "fp16", "bf16")  # variants of weights, the best first; any other comes after them
JSON_BYTES = 1 << 20
CARD_BYTES = 1 << 16
LARGEST = 10_000_000  # number in a configuration
DEEPEST = 200  # layers of a kind


@dataclass(frozen=True)
class Geometry:
    """Latents are [channels, side, side], pictures [3, resolution, resolution]."""

    channels: int
    side: int
    resolution: int

    @property
    def latent_dim(self) -> int:
        return self.channels * self.side**2


@dataclass(frozen=True)
class Folder:
    """A folder that diffusers saved. Nothing in it is taken for more than numbers and names."""

    path: Path
    source: str  # name of the folder, or of the pipeline on the hub
    pipeline: str  # class, as StableDiffusionPipeline
    components: dict[str, str]  # part -> class, as unet -> UNet2DConditionModel
    flags: dict[str, bool]  # what else the index says of the pipeline, as force_zeros_for_empty_prompt

    def check(self, parts: Iterable[str]) -> None:
        """UserError names a part that is missing or has its weights in an unsafe format."""
        for part in parts:
            if part not in self.components:
                raise UserError(f"{self.path} can't be used: its {INDEX} names no {part}.")
            config = _config_name(self.components[part])
            if not (self.place(part) / config).is_file():
                hint = f" To draw without it, write [null, null] for it in {INDEX}." if part in OPTIONAL else ""
                raise UserError(f"{self.path} is incomplete: {part}/{config} is missing.{hint}")
            if config == "config.json" and not self.weights(part):
                raise self._without_weights(part)

    def _without_weights(self, part: str) -> UserError:
        files = sorted(file.name for file in self.place(part).iterdir())
        others = [name for name in files if name.endswith(".safetensors")]
        pickles = [name for name in files if Path(name).suffix in PICKLES]
        if pickles and not others:
            return UserError(
                f"{self.place(part)} holds its weights as pickle ({printable(pickles[0])}), which can run code when it is "
                "read; save the pipeline with safe_serialization=True."
            )
        but = f" but {printable(', '.join(others))}, which diffusers does not read as such" if others else ""
        return UserError(f"{self.path} is incomplete: {part} has no .safetensors weights{but}.")

    def variant(self, part: str) -> str:
        """Of a part's weights the one that is read: '' (full precision) if it is there, else 'fp16' or the like."""
        return min(self._variants(part), key=lambda name: (*PRECISE, name).index(name))

    def weights(self, part: str) -> list[Path]:
        """The .safetensors files that are read of a part."""
        found = self._variants(part)
        return found[self.variant(part)] if found else []

    def _variants(self, part: str) -> dict[str, list[Path]]:
        """A part's weights by variant. An adapter or another network beside them is not theirs."""
        found: dict[str, list[Path]] = {}
        for file in sorted(self.place(part).glob("*.safetensors")):
            named = WEIGHTS.fullmatch(file.name)
            if named and file.is_file() and _config_name(self.components[part]) == "config.json":
                found.setdefault(named[1] or named[2] or "", []).append(file)
        return found

    def number(self, part: str, key: str) -> int:
        """A positive whole number in a part's configuration."""
        value = self._config(part).get(key)
        if type(value) is not int or value < 1:
            raise UserError(
                f"{part}/config.json in {self.path} has {key} {printable(repr(value))}, not a positive whole number."
            )
        return value

    def vae_scale(self) -> int:
        """Pixels per latent: each block of the autoencoder except the last halves the picture."""
        blocks = self._config("vae").get("block_out_channels")
        if not isinstance(blocks, list) or not 0 < len(blocks) < 10:
            raise UserError(
                f"vae/config.json in {self.path} has block_out_channels {printable(repr(blocks))}, not a list of blocks."
            )
        return 1 << (len(blocks) - 1)

    def parameters(self, part: str) -> int:
        """How many numbers the weights of a part hold, from their headers."""
        count = 0
        for file in self.weights(part):
            try:
                with safe_open(file, "np") as tensors:
                    count += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
            except (OSError, SafetensorError) as error:
                raise UserError(f"{file} can't be read as safetensors ({printable(str(error))}).") from None
        return count

    def sha256(self, parts: Iterable[str]) -> str:
        """Of the names, sizes and SHA-256 of the parts' configurations and weights."""
        digest = hashlib.sha256()
        for part in sorted(parts):
            for file in (self.place(part) / _config_name(self.components[part]), *self.weights(part)):
                with file.open("rb") as stream:
                    content = hashlib.file_digest(stream, "sha256").hexdigest()
                digest.update(f"{part}/{file.name} {file.stat().st_size} {content}\n".encode())
        return digest.hexdigest()

    def licence(self) -> str | None:
        """What the model card says, as `creativeml-openrail-m`."""
        card = self.path / CARD
        if not card.is_file():
            return None
        with card.open("rb") as file:
            text = file.read(CARD_BYTES).decode(errors="replace")
        found = re.match(r"---\n(?:(?!---).*\n)*?license:[ \t]*(\S+)", text)
        return printable(found[1]) if found else None

    def place(self, part: str) -> Path:
        """A folder of its own; old pipelines with a single network keep everything beside the index."""
        own = self.path / part
        return own if own.is_dir() else self.path

    def _config(self, part: str) -> dict[str, Any]:
        return _json(self.place(part) / "config.json")


def read(path: Path, pipelines: Collection[str], source: str | None = None) -> Folder:
    """The folder at `path`, or UserError if it holds none of these pipelines as diffusers saves them, or if it holds code."""
    if not (path / INDEX).is_file():
        raise UserError(f"{path} is not a diffusers folder: it has no {INDEX}.")
    for file in (*path.glob("*"), *path.glob("*/*")):
        if not (file.is_file() or file.is_dir()):  # a pipe, a device, a link to nowhere
            raise UserError(f"{path} holds {printable(str(file.relative_to(path)))}, which is not a file; remove it.")
        if file.suffix.lower() == ".py" or (file.name == INDEX and file.parent != path):
            raise UserError(
                f"{path} holds {printable(str(file.relative_to(path)))}: code, or a pipeline in a pipeline. Neither is "
                "run or read; remove it if the pipeline draws without it."
            )
    index = _json(path / INDEX)
    pipeline = index.get("_class_name")
    if not isinstance(pipeline, str):
        raise UserError(
            f"{path / INDEX} names {printable(repr(pipeline))}, which is not a pipeline of diffusers; code from a folder is not run."
        )
    pipeline = re.sub("(Img2Img|Inpaint)Pipeline$", "Pipeline", pipeline)  # other uses of what draws from text, too
    if pipeline not in pipelines:
        raise unknown(f"pipeline for fedktl in {path}", pipeline, pipelines)
    components = {part: _class(path, part, value) for part, value in index.items() if _is_part(part, value)}
    flags = {name: value for name, value in index.items() if isinstance(value, bool)}
    found = Folder(path, source or path.resolve().name, pipeline, components, flags)
    for part, kind in components.items():
        if (found.place(part) / _config_name(kind)).is_file() and not kind.endswith(("Tokenizer", "TokenizerFast")):
            _check_numbers(found.place(part) / _config_name(kind))
    return found


def _is_part(part: str, value: object) -> bool:
    """Whether an entry of the index is a part that draws; one that is switched off is [null, null]."""
    return isinstance(value, list) and part not in UNUSED and value != [None, None]


def _class(path: Path, part: str, value: list[Any]) -> str:
    """The class of a part as the index has it, which must be one of PARTS."""
    library, kinds = PARTS.get(re.sub("_[23]$", "", part), ("", ()))
    if len(value) != 2 or value[0] != library or value[1] not in kinds:
        known = f"known of {library}: {', '.join(kinds)}" if kinds else "it is part of no pipeline that fedktl knows"
        raise UserError(
            f"{path / INDEX} takes its {printable(part)} from {printable(json.dumps(value))}; {known}. Code from a "
            "folder is not run."
        )
    return str(value[1])


def _check_numbers(path: Path) -> None:
    """UserError for a configuration whose numbers would take unbounded memory or time to build."""
    stack = list(_json(path).items())
    while stack:
        key, value = stack.pop()
        if isinstance(value, (list, dict)):
            stack += value.items() if isinstance(value, dict) else ((key, each) for each in value)
        elif isinstance(value, (int, float)) and abs(value) > (DEEPEST if "layers" in key else LARGEST):
            raise UserError(f"{path} has {printable(key)} {printable(repr(value))}, which no pipeline has.")


def _config_name(kind: str) -> str:
    return next((name for word, name in CONFIGS.items() if word in kind), "config.json")


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > JSON_BYTES:
            raise ValueError(f"it is longer than {JSON_BYTES} bytes")
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} can't be read as JSON ({printable(str(error))}).") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object.")
    return value
