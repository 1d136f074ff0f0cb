"""`rounds.jsonl` in the folder of an unfinished run: a line per round, for those who watch from another process."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stages.foreign import opened
from stages.observer import Observer

NAME = "rounds.jsonl"
TAIL = 1 << 16  # bytes; the lines of some dozen rounds


class RoundLog(Observer):
    """Appends a line, flushed, after each round. `before` are the rounds already done; lines of later ones are dropped."""

    def __init__(self, folder: Path, before: Iterable[Mapping[str, Any]]):
        self._path = folder / NAME
        known = {line["round"]: line for line in read(folder, None)}
        draft = self._path.with_suffix(".draft")
        draft.write_text("".join(_text(known.get(line["round"], line)) for line in before))
        os.replace(draft, self._path)

    def end_round(self, line: Mapping[str, Any]) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with self._path.open("a") as file:
            file.write(_text({"time": stamp, **line}))


def read(folder: Path, tail: int | None = TAIL) -> list[dict[str, Any]]:
    """The lines in the last `tail` bytes of a run's log, None for all; whatever is not a whole line of a round is skipped."""
    try:
        with opened(folder / NAME) as file:
            start = max(0, file.seek(0, os.SEEK_END) - (tail or 0)) if tail else 0
            file.seek(start)
            texts = file.read().split(b"\n")[1 if start else 0 : -1]  # without a line cut in two
    except (OSError, ValueError):
        return []
    lines = (_line(text) for text in texts)
    return [line for line in lines if line]


def _line(text: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and type(found.get("round")) is int else None


def _text(line: Mapping[str, Any]) -> str:
    return json.dumps(line, allow_nan=False) + "\n"
