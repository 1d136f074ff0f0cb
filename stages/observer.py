"""How a stage reports progress. The terminal implements this; without an observer a stage is silent."""

from __future__ import annotations


class Observer:
    """Receives progress. A stage may call every method at any time, and each must return quickly."""

    def start(self, task: str, total: int, done: int = 0) -> None:
        """A task of `total` steps starts; `done` of them are already finished (in a resumed run)."""

    def advance(self, steps: int = 1, **facts: object) -> None:
        """`steps` more are done; `facts` are values to show beside the bar, by name."""

    def finish(self) -> None:
        """The current task is finished."""

    def note(self, message: str) -> None:
        """A sentence the user should read; never needed to understand the result."""

    def stop_requested(self) -> bool:
        """True once the user has asked to stop; a long stage then ends at its next safe point."""
        return False


SILENT = Observer()
