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

from stages.errors import UserError, printable, unknown

FOLDER = Path(__file__).parent
STAGES = ("prepare", "generate", "train")
WORDS = ("title", "notes", "extends")
LONGEST, DEEPEST = 1 << 20, 16  # bytes of a file; presets that extend one another


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
        tables |= {f"algorithms.{name}": values for name, values in content.get("algorithms", {}).items()}
        blocks = [_lines({name: content[name] for name in WORDS if name in content})]
        blocks += [f"[{name}]\n{_lines(values)}" for name, values in tables.items()]
        return "\n".join(blocks)


def _lines(values: Mapping[str, Any]) -> str:
    """Texts, numbers, flags and lists of them are written in TOML as in JSON."""
    return "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in values.items())


def names() -> list[str]:
    """The shipped presets, by name and number."""
    return sorted((path.stem for path in FOLDER.glob("*.toml")), key=_natural)


def _natural(name: str) -> list[str | int]:
    """Sorts table2-50 before table2-100."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def load(name: str | None) -> Preset:
    """The preset of this name, or in this file; an empty one for None. UserError says what can't be read."""
    return Preset() if name is None else Preset(**_resolved(_located(name, Path()), ()))


def _located(name: str, beside: Path) -> Path:
    if name.endswith(".toml"):
        return beside / name
    if name not in names():
        raise unknown("preset", name, names())
    return FOLDER / f"{name}.toml"


def _resolved(path: Path, children: tuple[Path, ...]) -> dict[str, Any]:
    """What the file says on top of what it extends; a title is not passed on."""
    real = Path(os.path.realpath(path))  # a link to itself is for `_read` to refuse
    if real in children:
        circle = " -> ".join(child.stem for child in (*children, path))
        raise UserError(f"These presets extend each other in a circle: {circle}; one of them must not.")
    if len(children) == DEEPEST:
        raise UserError(f"The preset {path} comes at the end of {DEEPEST} that extend each other; write fewer of them.")
    content = _read(path)
    parent = content.pop("extends", None)
    if parent is None:
        return content
    below = _resolved(_located(parent, path.parent), (*children, real))
    return _merged(below | {"title": ""}, content)


def _read(path: Path) -> dict[str, Any]:
    """The content of one file, its settings spelled with underscores."""
    try:
        if path.exists() and not (path.is_file() and path.stat().st_size <= LONGEST):
            raise ValueError("it is no file of settings")
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"The preset {printable(str(path))} can't be read ({printable(str(error))}).") from error
    for name, value in content.items():
        if name not in (*WORDS, *STAGES, "algorithms"):
            raise unknown("table in a preset", name, (*STAGES, "algorithms"))
        tables = list(value.values()) if name == "algorithms" and isinstance(value, dict) else [value]
        wanted, what = (str, "text") if name in WORDS else (dict, "a table")
        if not all(isinstance(one, wanted) for one in tables):
            raise UserError(f"In the preset {path}, '{name}' must be {what}.")
        for key, setting in (item for table in tables if isinstance(table, dict) for item in table.items()):
            if not all(_plain(part) for part in (setting if isinstance(setting, list) else [setting])):
                raise UserError(
                    f"In the preset {path}, {printable(key, 60)} must be a text, a finite number, true, false or a list."
                )
    content |= {name: _spelled(content[name]) for name in STAGES if name in content}
    if "algorithms" in content:
        content["algorithms"] = {name: _spelled(values) for name, values in content["algorithms"].items()}
    return content


def _plain(value: Any) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _spelled(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("-", "_"): value for name, value in values.items()}


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` on top of `below`, setting by setting."""
    result = dict(below)
    for name, value in above.items():
        both = isinstance(value, dict) and isinstance(result.get(name), dict)
        result[name] = _merged(result[name], value) if both else value
    return result
