"""The diffusers library: imported when first needed, kept off the terminal, and never given code to run."""

from __future__ import annotations

import importlib
import inspect
import logging
import re
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from stages.errors import UserError, printable, unknown
from stages.generators.diffusion.folder import CARD, UNUSED, Folder, read

SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "pndm": "PNDMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-a": "EulerAncestralDiscreteScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "lcm": "LCMScheduler",
}
NOISE = (  # warnings of the libraries that do not concern drawing
    "Token indices sequence length is longer than",  # the next warning says what is left out
    "LOAD REPORT",  # of weights: what is missing is an error of ours
    "Some weights of",
)
OF_DEVELOPERS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ResourceWarning)
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def diffusers() -> ModuleType:
    """The library itself, or UserError that says how to install it."""
    return _imported("diffusers")


def transformers() -> ModuleType:
    """The library of the text encoders, likewise."""
    return _imported("transformers")


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"This generator needs the {name} library ({error}); pip install 'fedktl[diffusion]'."
        ) from None


def opened(weights: str | Path, pipelines: Collection[str]) -> Folder:
    """A folder, or the hub's pipeline of that name once it is in the local cache; UserError if there is neither."""
    path, name = Path(weights), str(weights)
    if path.is_dir():
        return read(path, pipelines)
    if path.exists() or not HUB_NAME.fullmatch(name):
        raise UserError(
            f"{name} is not a folder; give one that diffusers saved, or a pipeline on the hub as owner/name."
        )
    library = diffusers()
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import GatedRepoError

    try:
        with _Said().listening():
            found = library.DiffusionPipeline.download(name, use_safetensors=True, **dict.fromkeys(UNUSED))
            with suppress(Exception):  # a pipeline without a model card will do
                hf_hub_download(name, CARD)
    except Exception as error:  # the hub, its client and the network fail in many ways
        cause = error.__cause__ or error
        gated = isinstance(cause, GatedRepoError)
        advice = "accept its licence there and run `hf auth login`" if gated else "check the name and the network"
        raise UserError(f"There is no folder {name}, and none on the hub ({_reason(cause)}); {advice}.") from error
    return read(Path(found), pipelines, name)


def pipeline(folder: Folder, parts: Sequence[str], dtype: torch.dtype, device: torch.device) -> Any:
    """diffusers' pipeline with these parts of the folder only.

    Each part is read by its own class, so that the library never sees an index or what else is in the folder.
    """
    folder.check(parts)
    kind = getattr(diffusers(), folder.pipeline)
    taken = inspect.signature(kind.__init__).parameters
    options = {**folder.flags, "requires_safety_checker": False, "add_watermarker": False}
    made: dict[str, Any] = {name: options[name] for name in taken if name in options}
    made |= {
        name: None for name, value in taken.items() if value.default is value.empty and name not in ("self", *made)
    }
    with calling(f"{folder.path} can't be read as a {folder.pipeline}"):
        built = kind(**made | {part: _read(folder, part, dtype) for part in parts})
        built.set_progress_bar_config(disable=True)
        return built.to(device)


def _read(folder: Folder, part: str, dtype: torch.dtype) -> Any:
    """A part, read by the class that the index names, which is one of folder.PARTS."""
    kind = getattr(
        transformers() if part.startswith(("text_encoder", "tokenizer")) else diffusers(), folder.components[part]
    )
    if not folder.weights(part):
        return kind.from_pretrained(folder.place(part), local_files_only=True)
    found, told = kind.from_pretrained(
        folder.place(part),
        local_files_only=True,
        use_safetensors=True,
        variant=folder.variant(part) or None,
        torch_dtype=dtype,  # later versions say dtype, and take this too
        output_loading_info=True,
    )
    if missing := sorted(told["missing_keys"]):  # the library would fill the gaps with random numbers
        raise UserError(
            f"{folder.path} is incomplete: {part} lacks {len(missing)} of its tensors, first {printable(missing[0])}."
        )
    return found


def scheduler_class(folder: Folder, name: str | None) -> str:
    """The class of the scheduler called `name`, in short or in full; the folder's own for None."""
    own = folder.components.get("scheduler", "")
    known = {own: own}
    if not own.startswith("FlowMatch"):  # a network trained on flows fits no other
        known |= SCHEDULERS | {kind: kind for kind in SCHEDULERS.values()}
    if name is not None and name not in known:
        raise unknown("scheduler for this pipeline", name, known)
    return own if name is None else known[name]


def with_scheduler(built: Any, kind: str, steps: int) -> Any:
    """The pipeline `built`, with a scheduler of class `kind` made from its own one's configuration."""
    with calling(f"{kind} can't take {steps} steps"):
        if type(built.scheduler).__name__ != kind:
            built.scheduler = getattr(diffusers(), kind).from_config(built.scheduler.config)
        built.scheduler.set_timesteps(steps)
    return built


@contextmanager
def calling(sentence: str) -> Iterator[None]:
    """Within this block, what the libraries raise becomes a UserError of this sentence and their reason.

    They write nothing to the terminal. Their warnings, except NOISE, become ours.
    """
    said = _Said()
    with warnings.catch_warnings(record=True) as warned, said.listening():
        warnings.simplefilter("always")
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # a damaged folder fails anywhere in the libraries
            raise UserError(f"{sentence} ({_reason(error)}).") from error
    said.messages += [str(one.message) for one in warned if not issubclass(one.category, OF_DEVELOPERS)]
    for message in dict.fromkeys(said.messages):
        if not any(words in message for words in NOISE):
            warnings.warn(printable(message, 500), stacklevel=3)


class _Said(logging.Handler):
    """The warnings that both libraries log, kept from the terminal."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Afterwards the libraries' settings are what they were."""
        before = []
        for log in (diffusers().utils.logging, transformers().utils.logging):
            root = logging.getLogger(log.__name__.partition(".")[0])
            before.append((log, root, root.handlers, root.level, root.propagate, log.is_progress_bar_enabled()))
            root.handlers, root.propagate = [self], False
            root.setLevel(logging.WARNING)
            log.disable_progress_bar()
        try:
            yield
        finally:
            for log, root, root.handlers, level, root.propagate, bars in before:
                root.setLevel(level)
                if bars:
                    log.enable_progress_bar()


def _reason(error: BaseException) -> str:
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return printable(line or type(error).__name__)
