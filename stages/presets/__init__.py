"""Presets: TOML files with the names of the settings, one table per stage and one per algorithm.

    title = "What it is"
    notes = "What it needs"
    extends = "reference"
    [prepare]
    [generate]
    [train]
    [algorithms.fedktl]

A preset beats the one it extends (a shipped name, or a file beside it), the command line beats a preset, and a preset
beats the defaults.
"""

from __future__ import annotations

import json
import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stages import foreign
from stages.errors import UserError, printable, unknown

FOLDER = Path(__file__).parent
STAGES = ("prepare", "generate", "train")
WORDS = ("title", "notes", "extends")
LONGEST = 20  # presets, each extending the next


@dataclass(frozen=True)
class Preset:
    """Settings by stage and hyperparameters by algorithm, as written: names are checked where they are used."""

    title: str = ""
    notes: str = ""
    prepare: Mapping[str, Any] = field(default_factory=dict)
    generate: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    algorithms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Only what the preset says, JSON-able."""
        return {name: value for name, value in asdict(self).items() if value}

    def as_toml(self) -> str:
        """The preset as a file that says the same without extending another."""
        content = self.as_dict()
        tables = {name: content[name] for name in STAGES if name in content}
        tables |= {f"algorithms.{_key(name)}": values for name, values in content.get("algorithms", {}).items()}
        blocks = [_lines({name: content[name] for name in WORDS if name in content})]
        blocks += [f"[{name}]\n{_lines(values)}" for name, values in tables.items()]
        return "\n".join(blocks)


def _lines(values: Mapping[str, Any]) -> str:
    """Texts, numbers, flags and lists of them are written in TOML as in JSON."""
    return "".join(f"{_key(name)} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in values.items())


def _key(name: str) -> str:
    """A name in TOML, quoted if it must be: `mine:ALGORITHM`."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def names() -> list[str]:
    """The shipped presets, by name and number."""
    return sorted((path.stem for path in FOLDER.glob("*.toml")), key=_natural)


def _natural(name: str) -> list[str | int]:
    """Sorts table2-50 before table2-100."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def load(name: str | None) -> Preset:
    """The preset of this name, or in this file, on top of what it extends; an empty one for None.

    A title is not passed on. UserError says what can't be read.
    """
    paths: list[Path] = []
    contents: list[dict[str, Any]] = []
    beside = Path()
    while name is not None:
        path = _located(name, beside)
        if os.path.realpath(path) in map(os.path.realpath, paths):
            circle = " -> ".join(child.stem for child in (*paths, path))
            raise UserError(f"These presets extend each other in a circle: {circle}; one of them must not.")
        if len(paths) == LONGEST:
            raise UserError(
                f"The preset {paths[0]} extends more than {LONGEST} others, one the next; put some together."
            )
        content = _read(path)
        name, beside = content.pop("extends", None), path.parent
        paths.append(path)
        contents.append(content)
    result: dict[str, Any] = {}
    for content in reversed(contents):
        result = _merged(result | {"title": ""}, content)
    return Preset(**result)


def _located(name: str, beside: Path) -> Path:
    if name.endswith(".toml"):
        return beside / name
    if name not in names():
        raise unknown("preset", name, names())
    return FOLDER / f"{name}.toml"


def _read(path: Path) -> dict[str, Any]:
    """The content of one file, its settings spelled with underscores."""
    content = foreign.parsed(path, "a preset", lambda raw: tomllib.loads(raw.decode()))
    for name, value in content.items():
        if name not in (*WORDS, *STAGES, "algorithms"):
            raise unknown("table in a preset", name, (*STAGES, "algorithms"))
        tables = list(value.values()) if name == "algorithms" and isinstance(value, dict) else [value]
        wanted, what = (str, "text") if name in WORDS else (dict, "a table")
        if not all(isinstance(one, wanted) for one in tables):
            raise UserError(f"In the preset {path}, '{name}' must be {what}.")
        for key, setting in (pair for table in tables if isinstance(table, dict) for pair in table.items()):
            if not all(map(_plain, setting if isinstance(setting, list) else [setting])):
                raise UserError(
                    f"In the preset {path}, '{printable(key, 40)}' must be text, a number, true or false, or a list of these."
                )
    content |= {name: _spelled(content[name]) for name in STAGES if name in content}
    if "algorithms" in content:
        content["algorithms"] = {name: _spelled(values) for name, values in content["algorithms"].items()}
    return content


def _plain(value: object) -> bool:
    """Whether every reader of JSON and TOML has such a value: no date, no infinity, no number beyond 64 bits."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, (str, bool)) or (isinstance(value, int) and abs(value) < 1 << 63)


def _spelled(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("-", "_"): value for name, value in values.items()}


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` on top of `below`, setting by setting."""
    result = dict(below)
    for name, value in above.items():
        both = isinstance(value, dict) and isinstance(result.get(name), dict)
        result[name] = _merged(result[name], value) if both else value
    return result
