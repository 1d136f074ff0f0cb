"""Errors for users to read: what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SHOWN = 24  # names in a message
OUT_OF_MEMORY = ("out of memory", "can't allocate memory")  # of PyTorch, on a GPU and on a CPU


class UserError(Exception):
    """Bad input or an unusable artifact. The message is one or two sentences; the terminal exits with 2."""


class Failed(UserError):
    """A run that stopped at a fault; what it had done is kept as `ref`, and it can be tried again."""

    def __init__(self, message: str, ref: object):
        super().__init__(message)
        self.ref = ref


class Interrupted(Exception):
    """The user asked to stop. The message says where it stopped and how to continue."""


def sentence(error: BaseException) -> str:
    """The sentence to print for an error of any kind."""
    said = printable(str(error))
    if isinstance(error, (UserError, Interrupted)):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "Stopped at once; the same command continues from the last checkpoint."
    if isinstance(error, SystemExit):  # none of our code does
        return f"Code that the command loaded ended the program (exit code {error.code})."
    if isinstance(error, MemoryError) or any(sign in said.lower() for sign in OUT_OF_MEMORY):
        return f"Memory ran out ({said or 'there is no more'}); choose smaller settings."
    if isinstance(error, OSError):
        return f"The system refuses {error.filename or 'that'} ({error.strerror or error})."
    return f"fedktl failed ({type(error).__name__}: {said}); this is our fault."


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not among `known`: it suggests similar names, or lists the first SHOWN."""
    return UserError(f"There is no {kind} named '{printable(name, 80)}'; {suggestion(name, known)}")


def suggestion(name: str, known: Iterable[str]) -> str:
    """What of `known` may have been meant by a name that is not among them."""
    names = {each.lower(): each for each in sorted(known)}
    near = [names[each] for each in difflib.get_close_matches(name[:80].lower(), names, n=3, cutoff=0.5)]
    if near:
        return f"did you mean {' or '.join(near)}?"
    shown, more = list(names.values())[:SHOWN], len(names) - SHOWN
    return f"known: {', '.join(shown)}{f' and {more} more' if more > 0 else ''}."


def printable(text: str, limit: int = 200) -> str:
    """Foreign text for a message: one line of at most `limit` characters, with control characters escaped."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."
