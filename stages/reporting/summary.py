"""The first sentence of a report: who is ahead among those that federate, what it costs, and how it compares with no federation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from stages.reporting import formats, numbers
from stages.reporting.rows import label

Row = Mapping[str, Any]
UPLOAD = "upload_floats_per_round"


def summary(rows: Sequence[Row]) -> str:
    """Of the report's `rows`: the best that uploads (else the best) beside the next one and beside local training.

    Finished runs are compared, on the leader's data, where validation images selected a round if all of them have some.
    """
    finished = [row for row in rows if not row["planned_rounds"]] or list(rows)
    selected = all(row["validation_selected"] for row in finished)
    score = "validation_selected" if selected else "last"
    where = "at the rounds selected on validation images" if selected else "after the last round"
    ranked = sorted(finished, key=lambda row: -row[score]["mean"])
    first = next((row for row in ranked if row[UPLOAD]), ranked[0])
    others = [row for row in ranked if row is not first and row["data"] == first["data"]]
    peer = next((row for row in others if row[UPLOAD]), None)
    alone = next((row for row in others if not row[UPLOAD]), None)
    stands = []
    if peer:
        stands.append(f"{_apart(first, peer, score)} with {_part(first[UPLOAD] / peer[UPLOAD])} its upload")
    if alone:
        stands.append(f"{_apart(first, alone, score)}, which uploads nothing")
    reached = f"{_named(first)} reaches {formats.accuracy(first[score])} % test accuracy {where}"
    upload = f"{numbers.count(first[UPLOAD])} floats a round" if first[UPLOAD] else "nothing"
    beside = f": {', and '.join(stands)}" if stands else ""
    return f"{reached}{beside}. Its clients together upload {upload}."


def _named(row: Row) -> str:
    return label(row["algorithm"], row["variant"])


def _apart(row: Row, other: Row, score: str) -> str:
    """How far ahead: a lead within the deviations over seeds, as far as these are known, is called none."""
    lead, name = round(row[score]["mean"] - other[score]["mean"], 2), _named(other)
    if not lead:
        return f"level with {name}"
    apart = f"{abs(lead):.2f} points {'above' if lead > 0 else 'below'}"
    noise = math.hypot(*(each[score]["std"] or 0 for each in (row, other)))
    return f"{apart} {name}" if abs(lead) > noise else f"not clearly apart from {name} ({apart})"


def _part(ratio: float) -> str:
    """How much of a peer's upload: `2.1 % of`, `1.5 times`."""
    return f"{100 * ratio:.2g} % of" if ratio < 1 else f"{ratio:.2g} times"
