"""What a run is said to suffer from, each case from numbers that show it."""

import numpy as np
import pytest

from stages.artifacts import schemas
from stages.artifacts.store import Store
from stages.reporting.diagnosis import diagnose
from stages.reporting.rows import grouped
from tests.helpers.made_runs import made_data, made_run

SOUND = {
    "server_metrics/mmd": np.array([2.0, 1.0]), "server_metrics/mse": np.array([0.5, 0.25]),
    "client_metrics/transfer": np.array([[1.0, 1.0], [0.5, 0.6]]),
    "pairs/images": np.stack([np.full((2, 3, 4, 4), 10), np.arange(96).reshape(2, 3, 4, 4)]).astype(np.uint8),
    "pairs/labels": np.array([[0, 1], [0, 1]]), "pairs/centroids": np.array([[0, 1], [1, 0]], np.float32),
}  # fmt: skip
LOCAL = {"rounds/upload_floats": np.zeros((2, 2), int)}


@pytest.fixture
def found(tmp_path):
    def findings(local=True, **changes):
        store = Store(tmp_path)
        data = made_data(store)
        runs = [made_run(store, "a", data, **SOUND | changes)]
        if local:
            lower = np.array([[0.0, 0.0], [0.5, 0.5], [0.5, 0.5]])
            runs.append(made_run(store, "b", data, algorithm="local", **LOCAL, **{"rounds/test_accuracy": lower}))
        groups = grouped(schemas.read(run) for run in runs)
        return diagnose(groups, {str(data.ref): ["cat", "dog", "emu"]})[0]

    return findings


def test_all_is_well(found):
    said = found(**{"rounds/validation_samples": [0, 0]})
    assert all(finding.good and not finding.advice for finding in said)
    assert [finding.says.split(" from ")[0] for finding in said] == [
        "mmd fell", "mse fell", "The prototypes of the classes are apart: the two nearest by 100 % of the mean distance.",
        "The pictures of different classes differ, the most similar by 48 of 255 grey levels a pixel. Judge by eye whether they are clear: see below.",
        "The transfer loss fell", "It is 12.50 points above local training after the last round.",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "says", "advice"),
    [
        ({"server_metrics/mmd": [1.0, 1.0]}, "mmd did not move", "mmd_bandwidth=median"),
        ({"server_metrics/mse": [0.1, 0.2]}, "mse rose from 0.1 after the first round to 0.2", "server_epochs=300"),
        ({"pairs/centroids": np.ones((2, 2), np.float32)}, "prototypes of cat and dog nearly coincide", "more rounds"),
        ({"pairs/images": np.full((2, 2, 3, 4, 4), 9, np.uint8)}, "pictures of cat and dog are as good as the same", "larger bank"),
        ({"client_metrics/transfer": [[1.0, 1.0], [0.01, 0.01]]}, "know the pairs by heart", "pairs_per_class=10"),
        ({"client_metrics/transfer": [[1.0, 1.0], [1.0, 1.0]]}, "did not fall", "mu=100"),
        ({"rounds/test_accuracy": np.full((3, 2), 0.25)}, "25.00 points below local training", "hyperparameters"),
        ({"local": False}, "no local training to compare with", "algorithm=local"),
    ],
)  # fmt: skip
def test_each_trouble_is_named_with_what_to_try(found, changes, says, advice):
    arrays = {name: value if name == "local" else np.asarray(value) for name, value in changes.items()}
    bad = [finding for finding in found(**arrays) if not finding.good]
    assert any(says in finding.says and advice in finding.advice for finding in bad), bad


def test_the_round_without_pairs_is_no_loss_of_zero(found):
    assert not any("transfer" in finding.says for finding in found(**{"client_metrics/transfer": np.array([[0.0, 0.0], [1.0, 1.0]])}))  # fmt: skip
