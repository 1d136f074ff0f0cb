import csv
import io
import json
import re

import pytest

from fedktl_cli import report as report_command
from stages.reporting import formats, numbers

ROW = {
    "algorithm": "fedktl", "data": "digits_10@v1", "models": "small", "variant": "mu=10", "runs": ["a@v1", "b@v2"],
    "seeds": [0, 1], "rounds": 30, "last": {"mean": 84.414, "std": 0.126}, "validation_selected": None,
    "best_on_test": {"mean": 85.0, "std": None}, "worst_client": 61.239, "spread": 7.5,
    "auc": {"mean": 97.126, "std": None}, "auc_spread": 1.5,
    "upload_floats_per_round": 90000.0, "download_floats_per_round": 7168000.0, "upload_bytes_per_round": 360000.0,
    "download_bytes_per_round": 1.2e7, "upload_floats_total": 2.7e6, "download_floats_total": 2.15e8,
    "upload_bytes_total": 10800000.0, "download_bytes_total": 3.6e8,
    "seconds_per_round": {"train": 1.25, "align": 0.5}, "peak_memory_bytes": 3 * 2**29,
}  # fmt: skip
OTHER = ROW | {"algorithm": "local", "variant": "", "validation_selected": {"mean": 80.5, "std": 1.0}}
CELLS = [
    "fedktl (mu=10)", "digits_10@v1", "small", "2", "30", "84.41 ± 0.13", "–", "85.00", "61.24", "97.13", "90.0k",
    "7.17M", "10.8 MB", "360 MB", "1.750 (train 1.250, align 0.500)", "1.50 GiB",
]  # fmt: skip


def test_columns():
    headers, cells = formats.columns([ROW])
    assert cells == [CELLS]
    assert headers[5:8] == ["Last (%)", "Validation-selected (%)", "Best on test (%)"]


def test_json_gives_the_rows_back():
    assert json.loads(formats.as_json([ROW, OTHER])) == {"rows": [ROW, OTHER]}


def test_csv_is_flat_and_in_full():
    first, second = csv.DictReader(io.StringIO(formats.as_csv([ROW, OTHER])))
    assert list(first)[:4] == ["algorithm", "variant", "data", "models"]
    assert (first["algorithm"], first["runs"], first["seeds"]) == ("fedktl", "a@v1 b@v2", "0 1")
    assert float(first["last.mean"]) == 84.414
    assert float(first["seconds_per_round.align"]) == 0.5
    assert first["validation_selected.mean"] == ""
    assert float(second["validation_selected.mean"]) == 80.5


def test_markdown():
    lines = formats.as_markdown([ROW | {"variant": "a|b"}]).splitlines()
    assert len(lines) == 3
    parsed = [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", lines[2])[1:-1]]
    assert parsed == ["fedktl (a|b)", *CELLS[1:]]


def test_latex():
    lines = formats.as_latex([ROW]).splitlines()
    assert lines[0] == r"\begin{tabular}{lll" + "r" * 13 + "}"
    assert (lines[1], lines[3], lines[5], lines[6]) == (r"\toprule", r"\midrule", r"\bottomrule", r"\end{tabular}")
    cells = lines[4].removesuffix(r" \\").split(" & ")
    assert cells[1] == r"digits\_10@v1"
    assert cells[5:8] == [r"$84.41 \pm 0.13$", "--", "85.00"]


def test_latex_escapes_what_it_reserves():
    assert formats.latex_escaped(r"50% & a_b {x} #1 $ ~ ^ \end") == (
        r"50\% \& a\_b \{x\} \#1 \$ \textasciitilde{} \textasciicircum{} \textbackslash{}end"
    )


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (912, "912"), (999.6, "1.00k"), (1.5, "1.50"), (1024, "1.02k"), (90_000, "90.0k"), (7_168_000, "7.17M")],
)
def test_count(number, text):
    assert numbers.count(number) == text


def test_sizes_and_seconds():
    assert (numbers.size(1500), numbers.memory(1536), numbers.memory(2**60)) == ("1.50 kB", "1.50 KiB", "1048576 TiB")
    assert (numbers.seconds(0.0421), numbers.seconds(63.08)) == ("0.042", "63.1")


def test_the_command_offers_every_format():
    assert ("table", *formats.FORMATS, "html") == report_command.FORMATS
