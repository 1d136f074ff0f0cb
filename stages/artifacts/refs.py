"""References: `name`, `name@v3`, `kind/name@v3`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stages.errors import UserError, unknown

IDENTITY = ("kind", "ref", "seal")  # what an artifact records of what it was made from
FOLDERS = {"data": "data", "latents": "latents", "run": "runs", "report": "reports"}
LONGEST = 100  # characters of a name
NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST - 1}}}")


@dataclass(frozen=True)
class Ref:
    """A name with, if the user gave them, a kind and a version."""

    name: str
    version: int | None = None
    kind: str | None = None

    def __str__(self) -> str:
        return self.name if self.version is None else f"{self.name}@v{self.version}"

    @classmethod
    def parse(cls, text: str) -> Ref:
        """Parse what a user wrote; the UserError shows the forms that a reference can take."""
        kind, slash, rest = text.rpartition("/")
        name, _, version = rest.partition("@")
        kind = next((known for known, folder in FOLDERS.items() if kind in (known, folder)), kind)
        if kind and kind not in FOLDERS:
            raise unknown("kind of artifact", kind, FOLDERS)
        versioned = re.fullmatch(r"v[1-9][0-9]{0,8}", version) if "@" in rest else True
        if not versioned or not NAME.fullmatch(name) or (slash and not kind):
            raise UserError(f"'{text}' is not a reference to an artifact; write NAME, NAME@v3 or KIND/NAME@v3.")
        return cls(name, int(version[1:]) if version else None, kind or None)


def checked_name(name: str) -> str:
    """`name` if an artifact may have it, else UserError."""
    if not NAME.fullmatch(name):
        raise UserError(
            f"'{name}' can't name an artifact; use letters, digits, '.', '_' and '-', starting with a letter or digit."
        )
    return name
