"""Rows as text: JSON, CSV and Markdown, and the cells of a table for those who draw one."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.errors import unknown
from stages.reporting.numbers import count, memory, seconds, size
from stages.reporting.rows import label

Row = dict[str, Any]


def accuracy(score: Mapping[str, float | None] | None) -> str:
    """`84.41 ± 0.13`, as in papers; `84.41` of a single seed; a dash where nothing was measured."""
    if score is None:
        return "–"
    return f"{score['mean']:.2f}" + ("" if score["std"] is None else f" ± {score['std']:.2f}")


def _phases(row: Row) -> str:
    phases = row["seconds_per_round"]
    return f"{seconds(sum(phases.values()))} ({', '.join(f'{name} {seconds(s)}' for name, s in phases.items())})"


def _rounds(row: Row) -> str:
    """`30`; of an unfinished run `30 of 100`."""
    return f"{row['rounds']} of {planned}" if (planned := row.get("planned_rounds")) else str(row["rounds"])


def _evaluated(row: Row) -> str:
    """`100 of 10,000`, or `all`."""
    return "all" if (some := value(row, "evaluated_clients")) is None else f"{some:,} of {row['clients']:,}"


def _rounded(number: float | None) -> str:
    return "–" if number is None else f"{number:.3g}"


@dataclass(frozen=True)
class Column:
    header: str
    text: Callable[[Row], str]
    fields: tuple[str, ...]  # of the row; the first one sorts


COLUMNS = {
    "algorithm": Column("Algorithm", lambda row: label(row["algorithm"], row["variant"]), ("algorithm", "variant")),
    "data": Column("Data", lambda row: row["data"], ("data",)),
    "models": Column("Models", lambda row: row["models"], ("models",)),
    "seeds": Column("Seeds", lambda row: str(len(row["runs"])), ("seeds", "runs")),
    "rounds": Column("Rounds", _rounds, ("rounds",)),
    "last": Column("Last (%)", lambda row: accuracy(row["last"]), ("last",)),
    "selected": Column("Selected (%)", lambda row: accuracy(row["validation_selected"]), ("validation_selected",)),
    "best": Column("Best on test (%)", lambda row: accuracy(row["best_on_test"]), ("best_on_test",)),
    "worst": Column("Worst client (%)", lambda row: f"{row['worst_client']:.2f}", ("worst_client", "spread")),
    "evaluated": Column("Clients evaluated", _evaluated, ("evaluated_clients", "clients")),
    "auc": Column("AUC (%)", lambda row: accuracy(row["auc"]), ("auc", "auc_spread")),
    "up": Column("Floats up/round", lambda row: count(row["upload_floats_per_round"]), ("upload_floats_per_round",)),
    "down": Column(
        "Floats down/round", lambda row: count(row["download_floats_per_round"]), ("download_floats_per_round",)
    ),
    "up-total": Column("Up in all", lambda row: size(row["upload_bytes_total"]), ("upload_bytes_total",)),
    "down-total": Column("Down in all", lambda row: size(row["download_bytes_total"]), ("download_bytes_total",)),
    "epsilon": Column("Epsilon", lambda row: _rounded(value(row, "epsilon")), ("epsilon", "delta")),
    "seconds": Column("Seconds/round", _phases, ("seconds_per_round",)),
    "memory": Column("Peak memory", lambda row: memory(row["peak_memory_bytes"]), ("peak_memory_bytes",)),
}
WORDS = ("algorithm", "data", "models")  # columns that are aligned left; numbers are aligned right
OCCASIONAL = ("evaluated", "epsilon")  # columns that are there where a row has something for them


def standard(rows: Sequence[Row]) -> list[str]:
    """The columns of these rows where none are named."""
    return [name for name in COLUMNS if name not in OCCASIONAL or any(order(row, name) is not None for row in rows)]


def chosen_columns(names: Sequence[str], choices: Iterable[str]) -> list[str]:
    """The columns named, or all except the `choices`, the settings in which runs differ; UserError for an unknown one."""
    known = {**COLUMNS, **dict.fromkeys(choices)}
    for name in names:
        if name not in known:
            raise unknown("column", name, known)
    return list(dict.fromkeys(names)) or list(COLUMNS)


def column(name: str) -> Column:
    """The column called so, else that of a setting."""
    return COLUMNS.get(name) or Column(name, lambda row: _shown(value(row, name)), (name,))


def value(row: Row, field: str) -> Any:
    """A field of a row, else one of its choices; None of neither."""
    return row[field] if field in row else row.get("choices", {}).get(field)


def _shown(choice: object) -> str:
    return "–" if choice is None else ("off", "on")[choice] if isinstance(choice, bool) else str(choice)


def table(rows: list[Row], names: Sequence[str] = ()) -> tuple[list[str], list[list[str]], int]:
    """Headers, the cells of each row as they are shown to people, and how many columns of words come first."""
    names = names or standard(rows)
    columns = [column(name) for name in names]
    cells = [[each.text(row) for each in columns] for row in rows]
    words = next((place for place, name in enumerate(names) if name not in WORDS), len(columns))
    return [each.header for each in columns], cells, words


def order(row: Row, name: str) -> float | str | None:
    """What a column sorts a row by."""
    found = value(row, column(name).fields[0])
    if isinstance(found, dict):
        return found["mean"] if "mean" in found else sum(found.values())
    return len(found) if isinstance(found, list) else found


# An artifact keeps its attributes sorted by name; people read what was run first, then how good it is, then its cost.
FIRST = (
    "algorithm", "variant", "choices", "data", "models", "runs", "seeds", "rounds", "planned_rounds", "last", "validation_selected", "best_on_test",
    "worst_client", "spread", "clients", "evaluated_clients", "auc", "auc_spread",
)  # fmt: skip


def _ordered(row: Row, names: Sequence[str] = ()) -> Row:
    """The row's fields in the order of reading, or those of the columns named."""
    if not names:
        return {field: row[field] for field in (*FIRST, *row) if field in row}
    return {field: value(row, field) for name in names for field in column(name).fields}


def as_json(rows: list[Row], names: Sequence[str] = ()) -> str:
    return json_of({"rows": [_ordered(row, names) for row in rows]})


def json_of(value: object) -> str:
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def as_csv(rows: list[Row], names: Sequence[str] = ()) -> str:
    return csv_of([_ordered(row, names) for row in rows])


def csv_of(rows: list[Row]) -> str:
    """One flat record a row, numbers in full: `last.mean`, `seconds_per_round.train`, `mu`; lists are joined by blanks."""
    records = [_flat(row) for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, list({name: None for record in records for name in record}), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _flat(row: Row) -> Row:
    record: Row = {}
    for name, part in row.items():
        if name == "choices":  # one named like a field is in that field
            record.update(_flat({choice: its for choice, its in part.items() if choice not in row}))
        elif isinstance(part, dict):
            record.update({f"{name}.{inner}": its for inner, its in part.items()})
        elif isinstance(part, list):
            record[name] = " ".join(map(str, part))
        elif part is not None:
            record[name] = part
    return record


def as_markdown(rows: list[Row], names: Sequence[str] = ()) -> str:
    return markdown(*table(rows, names))


def markdown(headers: list[str], cells: list[list[str]], words: int) -> str:
    """A table whose first `words` columns are aligned left, the numbers right."""
    ruler = ["---"] * words + ["---:"] * (len(headers) - words)
    lines = [headers, ruler, *cells]
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines)


FORMATS: dict[str, Callable[[list[Row], Sequence[str]], str]] = {
    "json": as_json, "csv": as_csv, "markdown": as_markdown,
}  # fmt: skip
