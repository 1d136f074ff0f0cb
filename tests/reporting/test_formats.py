import csv
import io
import json
import re

import pytest

from fedktl_cli import report as report_command
from stages.errors import UserError
from stages.reporting import formats, matrix, numbers
from tests.helpers.made_runs import ROW

OTHER = ROW | {"algorithm": "local", "variant": "", "validation_selected": {"mean": 80.5, "std": 1.0}}
CELLS = [
    "fedktl (mu=10)", "digits_10@v1", "small", "2", "30", "84.41 ± 0.13", "–", "85.00", "61.24", "97.13", "90.0k",
    "7.17M", "10.8 MB", "360 MB", "1.750 (train 1.250, align 0.500)", "1.50 GiB",
]  # fmt: skip


def test_columns():
    headers, cells, words = formats.table([ROW])
    assert cells == [CELLS] and words == 3
    assert headers[5:8] == ["Last (%)", "Selected (%)", "Best on test (%)"]


def test_some_columns_are_there_only_where_a_run_has_something_for_them():
    plain = ROW | {"epsilon": None, "delta": None, "clients": 10_000, "evaluated_clients": None}
    noisy = plain | {"epsilon": 12.345, "delta": 1e-5, "evaluated_clients": 100}
    assert formats.table([plain])[0] == formats.table([ROW])[0]
    headers, cells, _ = formats.table([noisy, plain])
    assert len(headers) == len(formats.table([ROW])[0]) + 2
    for header, texts in {"Epsilon": ["12.3", "–"], "Clients evaluated": ["100 of 10,000", "all"]}.items():
        assert [line[headers.index(header)] for line in cells] == texts
    assert "epsilon" not in formats.as_csv([plain]) and "epsilon,delta" in formats.as_csv([noisy])
    assert formats.table([plain], ["epsilon"])[1] == [["–"]]  # asked for


def test_columns_are_chosen_in_every_format():
    chosen = ["algorithm", "up", "last"]
    assert formats.table([ROW], chosen) == (["Algorithm", "Floats up/round", "Last (%)"], [["fedktl (mu=10)", "90.0k", "84.41 ± 0.13"]], 1)  # fmt: skip
    fields = {"algorithm": "fedktl", "variant": "mu=10", "upload_floats_per_round": 90000.0, "last": ROW["last"]}
    assert json.loads(formats.as_json([ROW], chosen)) == {"rows": [fields]}
    assert (
        formats.as_csv([ROW], chosen).splitlines()[0] == "algorithm,variant,upload_floats_per_round,last.mean,last.std"
    )
    assert formats.as_markdown([ROW], chosen).splitlines()[1] == "| --- | ---: | ---: |"
    with pytest.raises(UserError, match="no column named 'lats'; did you mean last"):
        formats.chosen_columns(["lats"], ["mu"])


def test_settings_that_differ_are_columns():
    rows = [ROW | {"choices": {"mu": 10.0, "etf": True, "rounds": 30}}, OTHER | {"choices": {"rounds": 40}}]
    assert formats.chosen_columns(["mu", "last", "mu"], ["mu", "etf"]) == ["mu", "last"]
    assert formats.table(rows, ["algorithm", "mu", "etf"])[1] == [["fedktl (mu=10)", "10.0", "on"], ["local", "–", "–"]]
    assert [formats.order(row, "mu") for row in rows] == [10.0, None]
    first, second = csv.DictReader(io.StringIO(formats.as_csv(rows)))
    assert list(first)[:5] == ["algorithm", "variant", "mu", "etf", "data"]
    assert (first["mu"], first["etf"], first["rounds"]) == ("10.0", "True", "30")
    assert (second["mu"], second["rounds"]) == ("", "30")
    assert formats.as_csv(rows, ["mu", "algorithm"]).splitlines()[:2] == ["mu,algorithm,variant", "10.0,fedktl,mu=10"]


def test_rows_are_sorted_by_numbers_and_words():
    orders = [formats.order(ROW, name) for name in ("algorithm", "seeds", "last", "selected", "seconds")]
    assert orders == ["fedktl", 2, 84.414, None, 1.75]


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


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (912, "912"), (999.6, "1.00k"), (1.5, "1.50"), (1024, "1.02k"), (90_000, "90.0k"), (7_168_000, "7.17M")],
)
def test_count(number, text):
    assert numbers.count(number) == text


def test_sizes_and_seconds():
    assert (numbers.size(1500), numbers.memory(1536), numbers.memory(2**60)) == ("1.50 kB", "1.50 KiB", "1048576 TiB")
    assert (numbers.seconds(0.0421), numbers.seconds(63.08)) == ("0.042", "63.1")


def test_the_command_offers_every_format_and_accuracy():
    assert tuple(matrix.METRICS) == tuple(matrix.TITLES) == report_command.METRICS
    assert ("table", *formats.FORMATS, "latex", "html", "tidy") == report_command.FORMATS
