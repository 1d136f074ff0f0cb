"""Standard output and error as they are found: closed, full, gone, or in an encoding that lacks some characters."""

from __future__ import annotations

import codecs
import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

PLAIN = str.maketrans("▁▂▃▄▅▆▇█–—…“”‘’·×→•", ".:-=+*#@--.\"\"''.x>*") | {ord("±"): "+-"}


def prepare() -> None:
    """Open what is closed, and replace characters that an encoding lacks. Call once, before anything is printed."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed: the next file that is opened would get its number
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    codecs.register_error("fedktl", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="fedktl")


def _plain(error: UnicodeError) -> tuple[str, int]:
    """What replaces characters that can't be encoded: a similar plain one, else their number."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    alike = error.object[error.start : error.end].translate(PLAIN)
    return alike.encode("ascii", "backslashreplace").decode(), error.end


def console(file: TextIO | Forgiving) -> RichConsole:
    """A Rich console that prints text as it is, and leaves errors to its callers."""
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # Rich would end the program

    return Plain(file=cast(TextIO, file), markup=False, emoji=False, highlight=False)


class Forgiving:
    """A stream for messages beside the result: work continues where it can't be written."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def give_up(stream: TextIO) -> None:
    """Discard what is still to be written, so that Python does not fail on it at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
