"""A user's own Python objects, named `package.module:attribute`. Only this module loads code by name."""

from __future__ import annotations

import importlib
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

from stages.errors import UserError, printable

PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
# how the file names of code that is not the user's start
OTHERS = (os.path.dirname(__file__), sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), "<")
_named: ContextVar[frozenset[str] | None] = ContextVar("named", default=None)  # paths that may be loaded; None: all


class Unnamed(UserError):
    """Code at `path` that the user did not name."""

    def __init__(self, path: str, setting: str):
        self.path = printable(path)
        super().__init__(
            f"'{self.path}' is code that a file names but you did not; to run it, add `{setting}={self.path}`."
        )


def is_path(name: str) -> bool:
    return ":" in name


def parts(*texts: str | Sequence[str] | None) -> frozenset[str]:
    """The names in the texts of settings and assignments.

    >>> sorted(parts("auxiliary=CNN,mine:net+256", ["mine:ALGORITHM"]))
    ['256', 'CNN', 'auxiliary', 'mine:ALGORITHM', 'mine:net']
    """
    each = [one for text in texts if text for one in ([text] if isinstance(text, str) else text)]
    return frozenset(part.strip() for text in each for part in re.split("[,+=]", text))


def resumed(ref: object, **settings: str | None) -> str:
    """The settings that resume an artifact and name its code again, for a sentence that says how to continue."""
    code = [f" {name}={''.join(text.split())}" for name, text in settings.items() if text and is_path(text)]
    return f"`resume={ref}{''.join(code)}`"


def named() -> frozenset[str] | None:
    """The code that may be loaded here; None: all."""
    return _named.get()


@contextmanager
def only(*texts: str | Sequence[str] | None) -> Iterator[None]:
    """Within this block, only code that the user named in these texts is loaded, whatever an artifact or file names."""
    own, outer = parts(*texts), _named.get()
    token = _named.set(own if outer is None else own & outer)
    try:
        yield
    finally:
        _named.reset(token)


def load(path: str, setting: str) -> Callable[..., Any]:
    """The callable at `package.module:attribute`, the value of a setting; what it raises becomes a UserError."""
    found, shown = attribute(path, setting), printable(path)
    if not callable(found):
        raise UserError(f"'{shown}' is not a function or class; write package.module:factory.")
    return partial(called, f"'{shown}' failed", found)


def attribute(path: str, setting: str) -> Any:
    """The object at `package.module:attribute`, the value of a setting.

    The current folder is searched too, as with `python -m`. UserError if it does not exist or the user did not name it.
    """
    shown, allowed = printable(path), named()
    if not PATH.fullmatch(path):
        raise UserError(f"'{shown}' can't be loaded; write package.module:name.")
    if allowed is not None and path not in allowed:
        raise Unnamed(path, setting)
    module, _, name = path.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    return called(f"'{shown}' can't be loaded", lambda: getattr(importlib.import_module(module), name))


def called(sentence: str, code: Callable[..., Any], *arguments: Any) -> Any:
    """What the code returns; what it raises becomes a UserError that says where, except its own UserErrors."""
    try:
        return code(*arguments)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # foreign code may raise anything
        raise UserError(f"{sentence} ({type(error).__name__}: {printable(str(error))}{place(error)}).") from error


def place(error: BaseException) -> str:
    """The innermost line of the user's own code in the traceback, if any."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(OTHERS)]
    return f"; {printable(os.path.basename(frames[-1].filename))}, line {frames[-1].lineno}" if frames else ""
