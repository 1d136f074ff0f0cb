"""Command-line options from settings dataclasses, so that each is written once."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any

import typer
import typer.main
from typer.core import TyperArgument

from fedktl_cli import completion
from stages.errors import UserError
from stages.settings import DECISIVE, Generate, Prepare, Settings, Train, TrainGenerator, key


class Argument(TyperArgument):
    """An argument that keeps its help: Typer before 0.21 sets it first, and the constructor of Click 8.5 clears it."""

    def __init__(self, *, help: str | None = None, **rest: Any):
        super().__init__(help=help, **rest)
        self.help = help


vars(typer.main)["TyperArgument"] = Argument


def flags(field: dataclasses.Field[Any]) -> tuple[str, str]:
    """The option that gives a field, and for a field that is on or off the one that switches it off."""
    name = key(field).replace("_", "-")
    return f"--{name}", f"--{field.metadata['off'] or f'no-{name}'}" if isinstance(field.default, bool) else ""


OPTIONS = {key(f): flags(f) for kind in (Prepare, Generate, Train, TrainGenerator) for f in dataclasses.fields(kind)}
OPTIONS |= {
    name: (f"--{name}", "") for name in ("resume", "format", "client", "unfinished")
}  # arguments of stages, not settings


def with_settings(settings: type[Settings]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for every field; it receives those the user gave as `given: dict`."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        hints = typing.get_type_hints(settings)
        several = DECISIVE if settings is Train else ()
        added = [parameter(f, hints[f.name], key(f) in several) for f in dataclasses.fields(settings)]
        signature = inspect.signature(function, eval_str=True)
        own = [p for p in signature.parameters.values() if p.name != "given"]
        names = {p.name for p in added}

        @functools.wraps(function)
        def command(**values: Any) -> None:
            chosen = {name: value for name, value in values.items() if name in names}
            rest = {name: value for name, value in values.items() if name not in names}
            for name, value in rest.items():
                if value == "":  # as of a shell variable that was not set
                    raise UserError(f"--{name} must not be empty; leave it out instead.")
            function(**rest, given={name: value for name, value in chosen.items() if value not in (None, [])})

        every = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in [*own, *added]]
        command.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in every}
        return command

    return decorate


def as_options(message: str) -> str:
    """A sentence of the library with the settings in it, `batch_size` or `pairs=live`, as the options that give them.

    >>> as_options("Lower `batch_size`, or resume with `workers=1 merge=off`; `of` is no setting.")
    'Lower --batch-size, or resume with --workers 1 --keep-splits; `of` is no setting.'
    """
    return re.sub(r"`(\w+(?:=\S+)?(?: \w+=\S+)*)`", lambda found: _options(found[1].split()) or found[0], message)


def _options(settings: list[str]) -> str:
    """Settings as options; nothing if one of them has none."""
    words = []
    for setting in settings:
        name, _, value = setting.partition("=")
        if name not in OPTIONS:
            return ""
        on, off = OPTIONS[name]
        words.append(f"{on} {value}" if value and not off else off if value == "off" else on)
    return " ".join(words)


def parameter(field: dataclasses.Field[Any], hint: Any, several: bool) -> inspect.Parameter:
    """One field as a Typer option, which may take several values, a run each, separated by commas.

    Its default is None, so that what the user gave can be told from a default.
    """
    on, off = flags(field)
    plain = next(t for t in typing.get_args(hint) if t is not type(None)) if isinstance(hint, types.UnionType) else hint
    spellings, kind = [on, *field.metadata["also"]], str if field.metadata["none"] or (several and not off) else plain
    if off:
        spellings = [f"{on}/{off}"]
    elif typing.get_origin(plain) is tuple:
        kind = list[str] if typing.get_args(plain)[0] is str else str
    meaning = as_options(field.metadata["help"])
    choices = field.metadata["choices"]
    if choices:
        meaning += f" One of: {', '.join(choices)}."
    if default := shown(field.default):
        meaning += rf" [dim]\[default: {default}][/]"
    option = typer.Option(
        *spellings, help=meaning, show_default=False, rich_help_panel=field.metadata["panel"],
        metavar={int: "N", float: "X", bool: None}.get(plain, "TEXT"),
        autocompletion=completion.choices(choices) if choices else completion.SETTINGS.get(key(field)),
    )  # fmt: skip
    annotation = Annotated[kind | None, option]  # type: ignore[valid-type]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def shown(default: object) -> str:
    """A default as help shows it; nothing where None or empty says it all."""
    if default is None or default == ():
        return ""
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return {True: "on", False: "off"}[default] if isinstance(default, bool) else str(default)


Name = Annotated[str | None, typer.Option("--name", help="Name of the artifact to write.", metavar="NAME")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        autocompletion=completion.presets,
        help="A preset's name, or a TOML file with the same names.",
        metavar="NAME|FILE",
    ),
]
