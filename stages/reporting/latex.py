r"""Tables for a paper in two columns: booktabs, a caption and a label, the best bold and the second underlined.

They need `\usepackage{booktabs}` and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from stages.reporting import formats
from stages.reporting.matrix import TITLES, Matrix, matrix, ranked

ESCAPED = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "±": r"$\pm$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}  # fmt: skip
COLUMN, PAGE = 234.0, 490.0  # points: the narrowest column of the usual classes, and their narrowest page
GLYPH, GAP = 4.75, 8.0  # points: a wide character in \small, and what lies between two columns
NAME = 118.0  # points that a name may take before it is broken over lines


def escaped(text: str) -> str:
    """`text` as LaTeX prints it; `84.41 ± 0.13` becomes `$84.41 \\pm 0.13$`."""
    safe = "".join(ESCAPED.get(character, character) for character in text)
    return re.sub(r"([\d.]+) \$\\pm\$ ([\d.]+)", r"$\1 \\pm \2$", safe)


def of_rows(rows: Sequence[dict[str, Any]], metric: str, columns: Sequence[str] = ()) -> str:
    """Algorithms x what differs, or the columns named."""
    if columns:
        headers, cells, words = formats.table(list(rows), columns)
        lines = [[escaped(cell) for cell in line] for line in cells]
        return floating("Results.", "tab:results", headers, lines, words)
    found = matrix(rows)
    one = len(found.columns) == 1
    where = f" on {found.columns[0]}" if one and found.across == "data" else ""
    seeds = sorted({len(row["runs"]) for row in rows})
    several = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"{seeds[0]}"
    spread = f", mean and standard deviation over {several} seeds" if seeds[-1] > 1 else ""
    caption = f"Test accuracy (\\%){escaped(where)} {TITLES[metric]}{spread}."
    head = ["Algorithm", *(["Accuracy"] if one else found.columns)]
    lines = [[escaped(row), *(_cell(found, row, column, metric) for column in found.columns)] for row in found.rows]
    return floating(caption, f"tab:accuracy-{metric}", head, lines, 1)


def _cell(found: Matrix, row: str, column: str, metric: str) -> str:
    score, rank = found.score(row, column, metric), found.rank(row, column, metric)
    return emphasised(escaped(formats.accuracy(score)), rank)


def emphasised(cell: str, rank: int | None) -> str:
    r"""The best bold, the second underlined: `$84.41 \pm 0.13$` with its digits, and not with text, in a bold face."""
    if rank is None:
        return cell
    if rank:
        return rf"\underline{{{cell}}}"
    return rf"$\mathbf{{{cell.strip('$')}}}$" if "$" in cell else rf"\textbf{{{cell}}}"


def floating(caption: str, label: str, headers: Sequence[str], lines: Sequence[Sequence[str]], words: int) -> str:
    """A table as wide as a column, or, where it needs more, as the page; what is wider still continues below.

    A header of two parts, `Cifar10, practical`, stands in two lines.
    """
    heads = [[escaped(part) for part in (*header.split(", ", 1), "")[:2]] for header in headers]
    columns = zip(heads, *lines, strict=True)
    widths = [max(_width(cell) for cell in (*head, *cells)) for head, *cells in columns]
    layout = ["l"] * words + ["r"] * (len(headers) - words)
    for place in range(words):
        if widths[place] > NAME:
            longest = max(_width(token) for line in lines for token in line[place].split(" "))
            widths[place] = max(NAME, longest)
            layout[place] = rf"p{{{widths[place]:.0f}pt}}"
    star = "" if sum(widths) + GAP * len(widths) <= COLUMN else "*"
    blocks = _blocks(widths)
    body = []
    for block in blocks:
        heading = [[heads[column][part] for column in block] for part in (0, 1)]
        body += [r"\toprule" if block is blocks[0] else r"\midrule", *(_line(part) for part in heading if any(part))]
        body += [r"\midrule", *(_line([line[column] for column in block]) for line in lines)]
    longest_block = max(blocks, key=len)
    return "\n".join([
        rf"\begin{{table{star}}}[t]", r"\centering", r"\small", r"\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{caption}}}", rf"\label{{{label}}}",
        rf"\begin{{tabular}}{{@{{}}{''.join(layout[column] for column in longest_block)}@{{}}}}", *body,
        r"\bottomrule", r"\end{tabular}", rf"\end{{table{star}}}", "",
    ])  # fmt: skip


def _blocks(widths: Sequence[float]) -> list[list[int]]:
    """As few blocks of columns as fit the page, about as many columns in each; the first column leads every block."""
    for count in range(1, len(widths)):
        size = -(-(len(widths) - 1) // count)
        blocks = [[0, *range(start, min(start + size, len(widths)))] for start in range(1, len(widths), size)]
        if all(sum(widths[column] + GAP for column in block) <= PAGE for block in blocks):
            break
    return blocks if len(widths) > 1 else [[0]]


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _width(cell: str) -> float:
    """Points, rather too many than too few."""
    bare = re.sub(r"\\(textbf|underline|mathbf|textbackslash|textasciitilde|textasciicircum)|\\pm|[{}$]", "", cell)
    return GLYPH * len(bare.replace("\\", ""))


def of_paper(comparison: Mapping[str, Any]) -> str:
    """A table of the paper: below each line what was measured, where anything was."""
    by_place = {(cell["row"], cell["column"]): cell for cell in comparison["cells"]}
    rows, columns = (list(dict.fromkeys(place[axis] for place in by_place)) for axis in (0, 1))
    lines: list[list[str]] = [[escaped(row)] for row in rows]
    measured: list[list[str]] = [[r"\quad measured"] for _ in rows]
    for column in columns:
        for kind, into in (("published", lines), ("measured", measured)):
            scores = [by_place.get((row, column), {}).get(kind) for row in rows]
            ranks = ranked([None if score is None else score["mean"] for score in scores])
            for line, score, rank in zip(into, scores, ranks, strict=True):
                emphasis = rank if comparison["higher_is_better"] else None
                line.append(emphasised(escaped(formats.accuracy(score)), emphasis))
    shown = []
    for published, own in zip(lines, measured, strict=True):
        shown += [published, own] if set(own[1:]) != {"--"} else [published]
    caption = (
        f"{escaped(comparison['title'])}: published, and below it what was measured, mean and deviation over seeds."
    )
    return floating(caption, f"tab:{comparison['table']}", ["Algorithm", *columns], shown, 1)
