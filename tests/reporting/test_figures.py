import xml.etree.ElementTree as ET

import numpy as np

from stages.artifacts import schemas
from stages.artifacts.store import Store
from stages.reporting.figures import Labels, pictures
from stages.reporting.rows import grouped
from tests.helpers.made_runs import CLASSES, made_data, made_run

LABELS = Labels("digits@v1", [*CLASSES[1:], "$x_1$"], np.array([[3, 0, 1], [0, 5, 2]]))


def groups(store, **arrays):
    data = made_data(store)
    runs = [
        made_run(store, "fedktl-0", data, seed=0, **arrays),
        made_run(store, "fedktl-1", data, seed=1, **arrays),
        made_run(store, "local", data, algorithm="local", **{"rounds/upload_floats": np.zeros((2, 2), int)}),
    ]
    return grouped(schemas.read(run) for run in runs)


def test_every_figure_and_the_same_bytes_again(store):
    first, again = (pictures(groups(Store(store.root / part)), [LABELS]) for part in ("one", "two"))
    assert [picture.name for picture in first] == [
        "accuracy-rounds", "accuracy-floats", "clients", "labels", "server-losses", "client-losses",
    ]  # fmt: skip
    assert [picture.svg for picture in first] == [picture.svg for picture in again]
    texts = {picture.name: "".join(ET.fromstring(picture.svg).itertext()) for picture in first}
    assert "CNN" in texts["clients"] and "ResNet-4" in texts["clients"]
    assert "<script>alert(1)" in texts["labels"] and "$x_1$" in texts["labels"]  # as text, not as markup
    assert "fedktl" in texts["accuracy-rounds"] and "local" in texts["accuracy-rounds"]


def test_absent_metrics_have_no_figure(store):
    found = groups(store)
    for group in found:
        for run in group.runs:
            run.server_metrics.clear()
            run.client_metrics.clear()
    assert [picture.name for picture in pictures(found, [])] == ["accuracy-rounds", "accuracy-floats", "clients"]


def test_federations_have_their_own_figure(store):
    data, other = made_data(store), made_data(store, "other")
    runs = [made_run(store, "a", data), made_run(store, "b", other, architectures=["CNN", "CNN"])]
    found = pictures(grouped(schemas.read(run) for run in runs), [])
    assert [picture.title for picture in found if picture.name.startswith("clients")] == [
        "Accuracy of each client: digits@v1, small", "Accuracy of each client: other@v1, small",
    ]  # fmt: skip
