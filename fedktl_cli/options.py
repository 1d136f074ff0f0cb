"""Command-line options from settings dataclasses, so that each is written once."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any

import typer

from stages.errors import UserError
from stages.settings import Settings, key


def with_settings(settings: type[Settings]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for every field; it receives those the user gave as `given: dict`."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        hints = typing.get_type_hints(settings)
        added = [parameter(field, hints[field.name]) for field in dataclasses.fields(settings)]
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


def parameter(field: dataclasses.Field[Any], hint: Any) -> inspect.Parameter:
    """One field as a Typer option. Its default is None, so that what the user gave can be told from a default."""
    name = key(field).replace("_", "-")
    plain = next(t for t in typing.get_args(hint) if t is not type(None)) if isinstance(hint, types.UnionType) else hint
    flags, kind = [f"--{name}", *field.metadata["also"]], str if field.metadata["none"] else plain
    if plain is bool:
        flags = [f"--{name}/--{field.metadata['off'] or f'no-{name}'}"]
    elif typing.get_origin(plain) is tuple:
        kind = list[str] if typing.get_args(plain)[0] is str else str
    meaning = field.metadata["help"]
    if field.metadata["choices"]:
        meaning += f" One of: {', '.join(field.metadata['choices'])}."
    if default := shown(field.default):
        meaning += rf" [dim]\[default: {default}][/]"
    option = typer.Option(
        *flags, help=meaning, show_default=False, rich_help_panel=field.metadata["panel"],
        metavar={int: "N", float: "X", bool: None}.get(plain, "TEXT"),
    )  # fmt: skip
    annotation = Annotated[kind | None, option]  # type: ignore[operator, valid-type]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def shown(default: Any) -> str:
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
    typer.Option("--preset", help="A preset's name, or a TOML file with the same names.", metavar="NAME|FILE"),
]
