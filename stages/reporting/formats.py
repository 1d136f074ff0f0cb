"""Rows as text: JSON, CSV, Markdown and LaTeX, and the cells of a table for whoever draws one."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

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


COLUMNS: dict[str, Callable[[Row], str]] = {
    "Algorithm": lambda row: label(row["algorithm"], row["variant"]),
    "Data": lambda row: row["data"],
    "Models": lambda row: row["models"],
    "Seeds": lambda row: str(len(row["runs"])),
    "Rounds": lambda row: str(row["rounds"]),
    "Last (%)": lambda row: accuracy(row["last"]),
    "Validation-selected (%)": lambda row: accuracy(row["validation_selected"]),
    "Best on test (%)": lambda row: accuracy(row["best_on_test"]),
    "Worst client (%)": lambda row: f"{row['worst_client']:.2f}",
    "AUC (%)": lambda row: accuracy(row["auc"]),
    "Floats up/round": lambda row: count(row["upload_floats_per_round"]),
    "Floats down/round": lambda row: count(row["download_floats_per_round"]),
    "Up in all": lambda row: size(row["upload_bytes_total"]),
    "Down in all": lambda row: size(row["download_bytes_total"]),
    "Seconds/round": _phases,
    "Peak memory": lambda row: memory(row["peak_memory_bytes"]),
}


def columns(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Headers, and the cells of each row, as they are shown to people."""
    return list(COLUMNS), [[cell(row) for cell in COLUMNS.values()] for row in rows]


# An artifact keeps its attributes sorted by name; people read what was run first, then how good it is, then its cost.
FIRST = (
    "algorithm", "variant", "data", "models", "runs", "seeds", "rounds", "last", "validation_selected", "best_on_test",
    "worst_client", "spread", "auc", "auc_spread",
)  # fmt: skip


def _ordered(row: Row) -> Row:
    return {name: row[name] for name in (*FIRST, *row)}


def as_json(rows: list[Row]) -> str:
    return json_of({"rows": [_ordered(row) for row in rows]})


def json_of(value: Any) -> str:
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def as_csv(rows: list[Row]) -> str:
    return csv_of([_ordered(row) for row in rows])


def csv_of(rows: list[Row]) -> str:
    """One flat record a row, numbers in full: `last.mean`, `seconds_per_round.train`; lists are joined by blanks."""
    records = [_flat(row) for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, list({name: None for record in records for name in record}), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _flat(row: Row) -> Row:
    record: Row = {}
    for name, value in row.items():
        if isinstance(value, dict):
            record.update({f"{name}.{inner}": part for inner, part in value.items()})
        elif isinstance(value, list):
            record[name] = " ".join(map(str, value))
        elif value is not None:
            record[name] = value
    return record


def as_markdown(rows: list[Row]) -> str:
    return markdown(*columns(rows), 3)


def markdown(headers: list[str], cells: list[list[str]], words: int) -> str:
    """A table whose first `words` columns stand to the left, the numbers to the right."""
    ruler = ["---"] * words + ["---:"] * (len(headers) - words)
    lines = [headers, ruler, *cells]
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines)


LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}  # fmt: skip


def latex_escaped(text: str) -> str:
    """`text` as LaTeX prints it; `84.41 ± 0.13` becomes `$84.41 \\pm 0.13$`."""
    escaped = "".join(LATEX.get(character, character) for character in text)
    return re.sub(r"([\d.]+) ± ([\d.]+)", r"$\1 \\pm \2$", escaped)


def as_latex(rows: list[Row]) -> str:
    return latex(*columns(rows), 3)


def latex(headers: list[str], cells: list[list[str]], words: int) -> str:
    """A tabular for the booktabs package; the first `words` columns stand to the left."""
    lines = [" & ".join(map(latex_escaped, line)) + r" \\" for line in [headers, *cells]]
    body = [r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"]
    layout = "l" * words + "r" * (len(headers) - words)
    return "\n".join([rf"\begin{{tabular}}{{{layout}}}", *body, r"\end{tabular}", ""])


FORMATS: dict[str, Callable[[list[Row]], str]] = {
    "json": as_json, "csv": as_csv, "markdown": as_markdown, "latex": as_latex,
}  # fmt: skip
