"""Fields of settings: each has a default, a range and a meaning, and is checked the same way wherever its value comes from.

Standard library only: `fedktl --help` imports this module and nothing heavy.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Self, TypeVar

from stages.errors import UserError, printable, suggestion, unknown

T = TypeVar("T")
MOST = 1_000_000  # limit of a number unless its field says otherwise; a larger one is a typing error
WIDEST = 65_536  # of a layer
LARGEST_SEED = 2**63 - 1
LONGEST_RANGE = 10_000


def setting(
    default: T,
    help: str,
    *,
    panel: str = "Settings",
    choices: tuple[str, ...] = (),
    low: float | None = None,
    high: float = MOST,
    above: float | None = None,
    off: str | None = None,
    also: tuple[str, ...] = (),
    none: str | None = None,
    empty: bool = False,
    own: bool = False,
    commas: bool = False,
    affects: bool = True,
    resumable: bool | None = None,
    source: str = "",
) -> T:
    """A dataclass field with its meaning.

    `low` and `high` are inclusive bounds, `above` is an exclusive one; `off` is the option that switches a flag off, `also`
    are other spellings of the option; `none` is the word for None; `empty` allows an empty text, which is not None; with
    `own` a user's `package.module:name` is allowed beside the choices; with `commas` a text with commas is one value;
    `affects` says whether the result depends on the setting (apart from the last digits, which depend on the device);
    `resumable` whether it may change when a run is resumed (by default, if the result does not depend on it); `source` is
    where the default comes from.
    """
    resumable = not affects if resumable is None else resumable
    metadata = dict(
        help=help, panel=panel, choices=choices, low=low, high=high, above=above, off=off, also=also, none=none,
        empty=empty, own=own, commas=commas, affects=affects, resumable=resumable, source=source,
    )  # fmt: skip
    return dataclasses.field(default=default, metadata=metadata)


def key(field: dataclasses.Field[Any]) -> str:
    """The name a user writes for a field: `lambda_` is lambda."""
    return field.name.rstrip("_")


def names(settings: type[Settings], **said: object) -> tuple[str, ...]:
    """The fields that say so of themselves, under the names a user writes: `names(Train, affects=False)`."""
    fields = dataclasses.fields(settings)
    return tuple(key(field) for field in fields if all(field.metadata[fact] == is_ for fact, is_ in said.items()))


@dataclass(frozen=True)
class Settings:
    """Checks every field against its own metadata and reports all mistakes at once."""

    def __post_init__(self) -> None:
        wrong = [sentence for field in dataclasses.fields(self) if (sentence := self._mistake(field))]
        if wrong:
            raise UserError("; ".join(wrong) + ".")

    @classmethod
    def called(cls, name: str) -> str:
        """How a sentence calls the setting of this name."""
        return name

    def _mistake(self, field: dataclasses.Field[Any]) -> str:
        value, meta, name = getattr(self, field.name), field.metadata, self.called(key(field))
        if value == () and field.default:
            return f"{name} must name at least one"
        for one in value if isinstance(value, tuple) else (value,):
            if meta["choices"] and one is not None and one not in meta["choices"] and not (meta["own"] and ":" in one):
                meant = suggestion(str(one), meta["choices"]).rstrip(".?")
                return f"{name} can't be '{printable(str(one), 80)}'; {meant}"
            if one == "" and not meta["empty"]:
                return f"{name} must not be empty"
            if isinstance(one, bool) or not isinstance(one, (int, float)):
                continue
            if isinstance(one, float) and not math.isfinite(one):
                return f"{name} must be a finite number, not {one}"
            if meta["low"] is not None and one < meta["low"]:
                return f"{name} must be at least {said(meta['low'])}, not {said(one)}"
            if meta["above"] is not None and one <= meta["above"]:
                return f"{name} must be above {said(meta['above'])}, not {said(one)}"
            if one > meta["high"]:
                return f"{name} must be at most {said(meta['high'])}, not {said(one)}"
        return ""

    @classmethod
    def make(cls, *layers: Mapping[str, Any]) -> Self:
        """Settings from layers of {name: value}, the later ones winning; values may be text.

        Raises UserError for a name that is not a setting, or a value of the wrong type or range.
        """
        fields = {key(field): field for field in dataclasses.fields(cls)}
        hints = typing.get_type_hints(cls)
        chosen: dict[str, Any] = {}
        for layer in layers:
            for name, value in layer.items():
                field = fields.get(name.replace("-", "_").rstrip("_"))
                if field is None:
                    raise unknown("setting", name, fields)
                absent = value is not None and value == field.metadata["none"]
                chosen[field.name] = None if absent else converted(cls.called(key(field)), value, hints[field.name])
        return cls(**chosen)

    def as_dict(self) -> dict[str, Any]:
        """The resolved settings as JSON-able values, under the names a user writes."""
        values = {key(field): getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


class CommandSettings(Settings):
    """Settings of a command: messages have their names in backticks, which the command replaces by its options."""

    @classmethod
    def called(cls, name: str) -> str:
        return f"`{name}`"


def several(kind: type[Settings], values: Mapping[str, Any]) -> dict[str, list[Any]]:
    """What each value stands for: a list, or text with commas, for several; UserError for an empty one."""
    hints, fields = typing.get_type_hints(kind), dataclasses.fields(kind)
    lists = {key(f) for f in fields if typing.get_origin(hints[f.name]) is tuple}  # one list, one value
    whole = {key(f) for f in fields if f.metadata["commas"]}

    def each(name: str, value: Any) -> list[Any]:
        parts = value.split(",") if isinstance(value, str) and name not in whole else value
        if name in lists or not isinstance(parts, (list, tuple)) or parts == [value]:
            return [value]
        parts = [part.strip() if isinstance(part, str) else part for part in parts]
        if not parts or "" in parts:
            raise UserError(
                f"{kind.called(name)} has an empty value among those to run; give values separated by single commas."
            )
        return parts

    return {name: each(name, value) for name, value in values.items()}


def product(kind: type[Settings], values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every choice from values some of which are `several`.

    >>> product(Settings, {"mu": "1,10", "lambda": 2, "etf": [True, False]})[1]
    {'mu': '1', 'lambda': 2, 'etf': False}
    """
    choices = itertools.product(*several(kind, values).values())
    return [dict(zip(values, choice, strict=True)) for choice in choices]


def said(number: float) -> str:
    """A number of any size, for a sentence."""
    if isinstance(number, int):
        return f"{number:,}" if abs(number) < 10**24 else f"{Decimal(number):.3e}"
    return f"{number:,.9g}"


def spread(name: str, value: Any) -> Iterable[Any]:
    """The whole numbers of a range like 0-4, or the value itself if it is no range."""
    ends = re.fullmatch(r"(\d{1,19})\s*-\s*(\d{1,19})", value) if isinstance(value, str) else None
    if not ends:
        return [value]
    first, last = int(ends[1]), int(ends[2])
    if first > last:
        raise UserError(f"{name}: the range {value} runs backwards; write {last}-{first}.")
    if last - first >= LONGEST_RANGE:
        raise UserError(f"{name}: the range {value} has more than {LONGEST_RANGE:,} numbers.")
    return range(first, last + 1)


def converted(name: str, value: Any, wanted: Any) -> Any:
    """`value` (text, or a value from TOML) as the type `wanted`; the UserError says what would be accepted."""
    if isinstance(wanted, types.UnionType):
        if value is None:
            return None
        wanted = next(kind for kind in typing.get_args(wanted) if kind is not type(None))
    if typing.get_origin(wanted) is tuple:
        parts = value.split(",") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
        stripped = [part.strip() if isinstance(part, str) else part for part in parts]
        if isinstance(value, str) and not any(stripped):
            return ()
        kind = typing.get_args(wanted)[0]
        each = [one for part in stripped for one in (spread(name, part) if kind is int else [part])]
        return tuple(converted(name, one, kind) for one in each)
    if wanted is bool:
        words = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}
        answer = value if isinstance(value, bool) else words.get(str(value).lower())
        if answer is None:
            raise UserError(f"{name} must be on or off, not '{printable(str(value), 60)}'.")
        return answer
    try:
        if isinstance(value, (bool, list, dict)) or (
            wanted is int and isinstance(value, float) and value != int(value)
        ):
            raise ValueError
        made = wanted(value)
        if isinstance(made, str) and ("\0" in made or made.encode("utf-8", "ignore").decode() != made):
            raise ValueError  # a file with it as content or name could not be written or found again
        return made
    except (TypeError, ValueError, OverflowError):
        kind = {int: "a whole number", float: "a number"}.get(wanted, "text in UTF-8")
        raise UserError(f"{name} must be {kind}, not '{printable(str(value), 60)}'.") from None
