"""Files from strangers: checked before they are opened, and whatever their parser raises becomes a UserError."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from stages.errors import UserError, printable

T = TypeVar("T")
LARGEST = 32 << 20  # bytes of a file that is parsed as a whole


def opened(path: Path) -> BinaryIO:
    """A plain file or a link to one, open for reading; a pipe could block and a device never end."""
    if path.exists() and not path.is_file():
        raise ValueError("it is not a plain file")
    return path.open("rb")


def parsed(path: Path, what: str, parse: Callable[[bytes], T], largest: int = LARGEST) -> T:
    """What `parse` makes of a file's bytes; the UserError says why the file is not `what`."""
    try:
        with opened(path) as file:
            raw = file.read(largest + 1)
        if len(raw) > largest:
            raise ValueError(f"it is larger than {largest >> 20} MiB")
        return parse(raw)
    except Exception as error:  # a parser may raise anything on bytes from strangers
        raise UserError(f"{path} can't be read as {what} ({reason(error)}).") from error


@contextmanager
def understood(what: str) -> Iterator[None]:
    """For code that takes apart a structure from strangers: whatever it raises becomes a UserError about `what`.

    Only for code that does nothing else, since its own bugs would be blamed on the structure.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what} can't be understood ({reason(error)}); make it again.") from error


def reason(error: Exception) -> str:
    """Why it failed, in a few words."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, KeyError):
        return f"there is no {printable(str(error), 60)}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return printable(str(error).strip().partition("\n")[0].partition(". ")[0] or type(error).__name__, 120)
