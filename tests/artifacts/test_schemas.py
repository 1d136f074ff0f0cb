"""The typed readers refuse what is not as the schema says, and name it."""

from pathlib import Path

import numpy as np
import pytest

from stages.artifacts import schemas
from stages.artifacts.store import SCHEMAS, Artifact
from stages.errors import UserError
from tests.helpers.archive import ramp


def test_the_format_of_a_run_is_written_down_as_in_the_table():
    rows = [
        f"| `{part.path}` | {part.dtype} | [{', '.join(part.axes)}]"
        + (f": {part.meaning}" if part.meaning else "")
        + ("; MAY be absent |" if part.optional else " |")
        for part in (*schemas.RUN.values(), *schemas.BLOBS)
    ]
    written = Path(schemas.__file__).with_name("FORMAT.md").read_text(encoding="utf-8")
    (section,) = (part for part in written.split("\n## ") if part.startswith("run\n"))
    assert [line for line in section.splitlines() if line.startswith("| `")] == rows


@pytest.mark.parametrize("kind", ["data", "latents"])
def test_the_formats_of_data_and_latents_are_written_down_as_they_are_read(archived, monkeypatch, kind):
    read, symbols, rows = schemas._typed, {"clients": "K", "clients + 1": "K + 1", "classes": "C", "train": "n"}, set()

    def typed(artifact, path, dtype, axes, sizes):
        shape = ", ".join(symbols.get(axis, axis) for axis in axes)
        rows.add(f"| `{path.replace('train/', '<split>/')}` | {dtype} | [{shape}]")
        return read(artifact, path, dtype, axes, sizes)

    monkeypatch.setattr(schemas, "_typed", typed)
    schemas.read(archived[kind])
    written = Path(schemas.__file__).with_name("FORMAT.md").read_text(encoding="utf-8")
    (section,) = (part for part in written.split("\n## ") if part.startswith(f"{kind}\n"))
    told = {
        line.partition("]")[0] + "]" for line in section.splitlines() if line.startswith("| `") and "| any" not in line
    }
    assert told == {row for row in rows if "`test/" not in row and "`validation/" not in row}


def test_what_is_read_is_shown_in_one_line(archived):
    for kind, artifact in archived.items():
        assert repr(schemas.read(artifact)) == f"<content of <{kind} {artifact.ref} in {str(artifact.path)!r}>>"


def test_what_a_run_lacks_reads_as_nothing_measured(archived):
    run = schemas.read_run(archived["run"])
    assert np.isnan(run.test_auc).all() and run.test_auc.shape == run.test_accuracy.shape
    assert run.simulated_seconds.shape == run.joined.shape and not run.simulated_seconds.any()
    assert run.missing.shape == (0, 3) and run.missing.dtype == np.int64 and run.wire == {}


def test_every_schema_has_its_reader():
    assert set(schemas.READERS) == {
        (kind, schema) for kind, newest in SCHEMAS.items() for schema in range(1, newest + 1)
    }


@pytest.mark.parametrize(
    ("kind", "path", "values", "sentence"),
    [
        ("data", "train/images", ramp(3, 3, 4, 4), "train/labels"),
        ("data", "train/images", ramp(4, 3, 4, 4).astype(np.float32), "'train/images' is float32"),
        ("data", "test/images", ramp(2, 3, 5, 5), r"'test/images' is uint8 \(2, 3, 5, 5\), which is not"),
        ("data", "train/labels", np.array([0, 0, 2, 3]), r"train has a label outside 0\.\.2"),
        ("data", "train/labels", np.array([0, 0, 2, -1]), r"train has a label outside 0\.\.2"),
        ("data", "train/labels", np.array([[0], [0], [2], [2]]), "'train/labels' is int64"),
        ("data", "train/offsets", np.array([0, 2, 3]), "train's offsets do not divide its images"),
        ("data", "train/offsets", np.array([1, 2, 4]), "train's offsets do not divide its images"),
        ("data", "train/offsets", np.array([0, 5, 4]), "train's offsets do not divide its images"),
        ("data", "train/offsets", np.array([0, 4]), "train's offsets do not divide its images"),
        ("data", "train/offsets", np.array([], np.int64), "train's offsets do not divide its images"),
        ("data", "counts", np.ones((2, 4), np.int64), "names 3 classes, but counts 4"),
        ("data", "counts", np.ones((2, 3)), "'counts' is float64"),
        ("latents", "latents", np.full((3, 2), np.inf, np.float32), "a latent is not finite"),
        ("latents", "latents", np.zeros((2, 2), np.float32), "'images' is uint8"),
        ("latents", "images", ramp(3, 1, 4, 4), "'images' is uint8"),
        ("run", "rounds/joined", np.ones((3, 2), bool), r"'rounds/uploaded' is bool \(2, 2\)"),
        ("run", "rounds/test_accuracy", np.zeros((3, 2), np.float32), "'rounds/test_accuracy' is float32"),
        ("run", "rounds/test_samples", np.array([1]), "'rounds/test_samples'"),
        ("run", "client_metrics/loss", np.zeros((2, 3)), "'client_metrics/loss'"),
        ("run", "server_metrics/mmd", np.zeros(1), "'server_metrics/mmd'"),
        ("run", "pairs/images", ramp(2, 3, 1, 4, 4), "'pairs/images'"),
        ("report", "page", np.zeros((2, 2), np.uint8), "'page' is uint8"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit_are_named(archived, monkeypatch, kind, path, values, sentence):
    real = Artifact.array
    monkeypatch.setattr(Artifact, "array", lambda self, name: values if name == path else real(self, name))
    with pytest.raises(UserError, match=sentence):
        schemas.read(archived[kind])


@pytest.mark.parametrize(
    ("kind", "name"), [("data", "class_names"), ("latents", "generator"), ("run", "facts"), ("report", "rows")]
)
def test_attributes_of_another_type_are_named(archived, kind, name):
    whole = archived[kind]
    for value in (None, 5, "x"):
        with pytest.raises(UserError, match=f"no attribute '{name}'"):
            schemas.read(Artifact(whole.ref, whole.path, whole.attributes | {name: value}))


def test_a_run_without_a_group_of_metrics_has_none(archived, monkeypatch):
    arrays = {path: array for path, array in archived["run"].arrays().items() if not path.startswith("server_metrics/")}
    monkeypatch.setattr(Artifact, "arrays", lambda self: arrays)
    assert schemas.read(archived["run"]).server_metrics == {}
