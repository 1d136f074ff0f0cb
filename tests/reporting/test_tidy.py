"""The numbers of runs in long form."""

import csv
import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from stages.artifacts.schemas import read_run
from stages.artifacts.store import Store
from stages.errors import UserError
from stages.report import tidy_table
from stages.reporting import tidy
from tests.helpers.cli import run
from tests.helpers.made_runs import made_data, made_run


@pytest.fixture
def store(tmp_path) -> Store:
    """Two runs that differ in mu and in their seed."""
    store = Store(tmp_path / "store")
    data = made_data(store)
    made_run(store, "one", data, hyper={"mu": 10.0, "etf": True})
    made_run(store, "two", data, seed=1, hyper={"mu": 50.0, "etf": True})
    return store


def test_every_number_of_every_round_is_a_row(store):
    columns = read_run(store.open("one")).metrics()
    rows = list(zip(*(columns[name].tolist() for name in ("round", "client", "metric", "value")), strict=True))
    assert [row for row in rows if row[2] == "test_accuracy"] == [
        (0, 0, "test_accuracy", 1.0), (0, 1, "test_accuracy", 0.0), (1, 0, "test_accuracy", 1.0),
        (1, 1, "test_accuracy", 1.0), (2, 0, "test_accuracy", 0.25), (2, 1, "test_accuracy", 0.75),
    ]  # fmt: skip
    assert [row[:2] for row in rows if row[2] == "client_metrics/loss"] == [(1, 0), (1, 1), (2, 0)]  # the last is NaN
    assert [row for row in rows if row[2] == "server_metrics/mmd"] == [
        (1, -1, "server_metrics/mmd", 2.0), (2, -1, "server_metrics/mmd", 1.0)
    ]  # fmt: skip
    assert {row[2] for row in rows} >= {"upload_bytes", "seconds/train", "peak_memory", "joined"}
    assert "test_auc" not in {row[2] for row in rows}  # which was not measured
    assert (columns["round"].dtype, columns["value"].dtype) == (np.int64, np.float64)


def test_a_frame_has_the_same_columns_where_pandas_is(store, monkeypatch):
    run_ = read_run(store.open("one"))
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=dict))
    frame = run_.frame()
    assert {name: values.tolist() for name, values in frame.items()} == {
        name: values.tolist() for name, values in run_.metrics().items()
    }
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match="needs pandas"):
        run_.frame()


def test_runs_stand_below_each_other_with_what_sets_them_apart(store):
    columns = tidy_table(store)
    assert list(columns) == ["run", "algorithm", "data", "models", "seed", "mu", "round", "client", "metric", "value"]
    rows = list(csv.DictReader(io.StringIO(tidy.as_csv(columns))))
    assert {(row["run"], row["mu"], row["seed"]) for row in rows} == {("one@v1", "10.0", "0"), ("two@v1", "50.0", "1")}
    assert {row["client"] for row in rows if row["metric"] == "peak_memory"} == {""}
    assert len(tidy_table(store, ["two"])["run"]) * 2 == len(rows)


def test_parquet(store, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    run(store.root, "report", "--format", "tidy", "--output", str(tmp_path / "numbers.parquet"))
    columns = parquet.read_table(tmp_path / "numbers.parquet").to_pydict()
    assert columns == tidy_table(store)


def test_from_the_command_line(store, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    shown = run(store.root, "report", "one", "--format", "tidy").stdout
    assert shown == tidy.as_csv(tidy_table(store, ["one"]))
    run(store.root, "report", "one", "--format", "tidy", "--output", str(tmp_path / "numbers.csv"))
    assert (tmp_path / "numbers.csv").read_text() == shown
    for options, sentence in (
        (["--output", str(tmp_path / "numbers.parquet")], "pip install 'fedktl[parquet]'"),
        (["--columns", "last"], "leave out --columns"),
        (["--name", "x"], "leave out --columns and --name"),
        (["--paper", "table1"], "a --format other than html or tidy"),
    ):
        refused = run(store.root, "report", "--format", "tidy", *options, code=2)
        assert sentence in " ".join(refused.stderr.split())
    assert not (tmp_path / "numbers.parquet").exists() and not list(store.refs("report"))
    with pytest.raises(UserError, match="no run artifact"):
        tidy_table(store, ["three"])
