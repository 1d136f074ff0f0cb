"""What the user sees: results on standard output, everything else on standard error; exit codes."""

from __future__ import annotations

import functools
import json
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec

import typer

from fedktl_cli.hints import NEXT
from fedktl_cli.options import as_options
from fedktl_cli.progress import LiveProgress, Progress
from fedktl_cli.streams import Forgiving, console, give_up
from stages.errors import Failed, Interrupted, UserError, printable, sentence
from stages.observer import Observer

if TYPE_CHECKING:
    from types import FrameType

    from rich.console import Console, RenderableType

    from stages.artifacts.store import Store

BAD_INPUT, OUR_FAULT, INCOMPLETE, INTERRUPTED = 2, 1, 3, 130
STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
LONGEST_LINE = 1200  # characters; of a longer one the middle is left out
P = ParamSpec("P")


@dataclass
class Terminal:
    """The global options and the two streams."""

    store: Store
    quiet: bool = False
    verbose: bool = False

    @functools.cached_property
    def out(self) -> Console:
        return console(sys.stdout)

    @functools.cached_property
    def err(self) -> Console:
        return console(Forgiving(sys.stderr))

    def say(self, message: str) -> None:
        """A sentence beside the result; silent under --quiet."""
        if not self.quiet:
            self.tell(message)

    def tell(self, message: str) -> None:
        """A sentence that is always printed; where it names settings, it names their options."""
        self.err.print(safe(as_options(message)), soft_wrap=True)

    def hint(self, command: str) -> None:
        """What follows a command, for people at a terminal."""
        if self.out.is_terminal:
            self.say(f"Next: {NEXT[command]}")

    def show(self, renderable: RenderableType) -> None:
        """A result for people."""
        with self._result():
            if isinstance(renderable, str):
                self.out.print(safe(renderable), soft_wrap=True)
            else:
                self.out.print(renderable)

    def json(self, value: object) -> None:
        """A result for a script."""
        self.write(json.dumps(value, allow_nan=False) + "\n")

    def write(self, text: str) -> None:
        """A result that goes into a file."""
        with self._result():
            sys.stdout.write(text)

    @contextmanager
    def _result(self) -> Iterator[None]:
        """UserError if standard output takes no more; a reader that went away, as `head` does, has all it wanted."""
        try:
            yield
            sys.stdout.flush()
        except BrokenPipeError:
            give_up(sys.stdout)
        except OSError as error:
            give_up(sys.stdout)
            raise UserError(
                f"Standard output can't be written ({error.strerror}); what the command made is kept, its result is not shown."
            ) from error

    @contextmanager
    def observer(self) -> Iterator[Observer]:
        """Live progress on a terminal, lines on a pipe.

        The first Ctrl-C, SIGTERM or SIGHUP asks the stage to stop at its next safe point, the second stops at once.
        """
        progress: Progress = LiveProgress(self) if self.err.is_terminal and not self.quiet else Progress(self)
        with stopping(progress.interrupt):
            try:
                yield progress
            finally:
                progress.finish()


@contextmanager
def stopping(act: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Within this block, Ctrl-C, SIGTERM and SIGHUP do this.

    What is ignored stays ignored: SIGHUP under nohup, Ctrl-C in a script's background.
    """
    before = {number: signal.getsignal(number) for number in STOPPING}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, act)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def guarded(function: Callable[P, None]) -> Callable[P, None]:
    """End a command with the exit code its failure deserves, and a sentence instead of a traceback."""

    @functools.wraps(function)
    def command(*args: P.args, **kwargs: P.kwargs) -> None:
        terminal = here(kwargs["context"])  # type: ignore[arg-type]
        try:
            with warnings.catch_warnings():
                warnings.showwarning = lambda message, *_, **__: terminal.say(str(message))
                function(*args, **kwargs)
        except typer.Exit:
            raise
        except UserError as error:
            raise _ended(terminal, str(error), INCOMPLETE if isinstance(error, Failed) else BAD_INPUT) from error
        except (Interrupted, KeyboardInterrupt) as error:
            raise _ended(terminal, str(error) or "Stopped.", INTERRUPTED) from error
        except (Exception, SystemExit) as error:
            message, ours = sentence(error), "our fault" in sentence(error)
            raise _ended(
                terminal, message + " --verbose shows where." * ours, OUR_FAULT if ours else BAD_INPUT
            ) from error

    return command


def _ended(terminal: Terminal, message: str, code: int) -> typer.Exit:
    if terminal.verbose and code != INTERRUPTED:
        traceback.print_exc()
    terminal.tell(message)
    return typer.Exit(code)


def safe(text: str) -> str:
    """A message whose parts may come from anywhere: its lines as a terminal may have them."""
    return "\n".join(_short(line) for line in text.splitlines())


def _short(line: str) -> str:
    if len(line) > LONGEST_LINE:
        line = f"{line[: LONGEST_LINE - 300]} ... {line[-295:]}"
    return printable(line, 8 * LONGEST_LINE)


def here(context: typer.Context) -> Terminal:
    terminal: Terminal = context.obj
    return terminal
