"""Scenarios beyond label skew: domains as clients, slow clients."""

import numpy as np
import pytest
from PIL import Image

from stages.artifacts.schemas import read
from stages.artifacts.store import Store
from stages.errors import UserError
from stages.prepare import prepare
from stages.report import report
from stages.settings import Prepare, Report, Train
from stages.train import resume, train
from tests.helpers.toy_runs import CODE, QUICK

SHADES = {"photo": 40, "sketch": 160, "quick.draw": 240}


@pytest.fixture
def domains(tmp_path):
    """Three domains, each of its own shade; cats in all of them, dogs in two."""
    root = tmp_path / "domains"
    for domain, shade in SHADES.items():
        for label in ("cat", "dog")[: 1 if domain == "sketch" else 2]:
            folder = root / domain / label
            folder.mkdir(parents=True)
            for number in range(8):
                Image.new("RGB", (10, 10), (shade, shade, 10 if label == "cat" else 200)).save(folder / f"{number}.png")
    return root


def settings(root, **more) -> Prepare:
    given = {"dataset": "folder", "source": str(root), "partition": "domains", "image_size": 8, "min_samples": 8}
    return Prepare.make(given, more)


def test_client_i_gets_domain_i(tmp_path, domains):
    data = read(prepare(Store(tmp_path / "store"), "shift", settings(domains)))
    assert data.artifact.settings["clients"] == data.clients == 3 and data.class_names == ["cat", "dog"]
    assert data.counts.tolist() == [[8, 8], [8, 8], [8, 0]]  # in the order of the names
    for client, domain in enumerate(sorted(SHADES)):
        for split in (data.train, data.validation, data.test):
            images, labels = split.images[split.rows(client)], split.labels[split.rows(client)]
            assert len(images) and (images[:, 0] == SHADES[domain]).all()
            assert np.array_equal(images[:, 2, 0, 0] == 200, labels == 1)


def test_test_images_are_cut_from_each_domain_at_random(tmp_path, domains):
    store = Store(tmp_path / "store")
    first, again, other = (read(prepare(store, "shift", settings(domains, seed=seed))) for seed in (0, 0, 1))
    assert np.diff(first.test.offsets).tolist() == [4, 4, 2]
    assert np.array_equal(first.train.labels, again.train.labels)
    assert not np.array_equal(first.train.labels, other.train.labels)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"min_samples": 9}, "Domain 2 of .*domains has 8 images, fewer than 9; lower `min_samples`"),
        ({"merge": False}, "has no test set to keep"),
        ({"dataset": "digits", "source": None}, "has no domains; the partition 'domains' needs `dataset=folder`"),
    ],
)
def test_domains_that_the_data_does_not_have_are_refused(tmp_path, domains, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        prepare(Store(tmp_path / "store"), "shift", settings(domains, **changes))


@pytest.mark.usefixtures("undrawn")
def test_slow_clients_are_recorded_and_reported_and_never_waited_for(toy_store):
    slow = {"slow_rate": 0.5, "slow_seconds": 1000.0, "join_ratio": 0.5, "rounds": 6, "algorithm": "local"}
    run = read(train(toy_store, "slow", Train.make(QUICK, slow), {})[0])
    late = run.simulated_seconds > 0
    assert set(np.unique(run.simulated_seconds)) <= {0.0, 1000.0} and not (late & ~run.joined).any()
    always = {client for client in range(4) if late[:, client].any()}
    for client in always:
        assert np.array_equal(late[:, client], run.joined[:, client])  # slow in every round it joins
    assert 1 <= len(always) <= 2
    (row,) = report(toy_store, "r", Report()).attributes["rows"]
    assert row["simulated_seconds_per_round"] == 1000 * late.any(1).mean()  # the slowest of a round counts
    assert sum(row["seconds_per_round"].values()) < 100


@pytest.mark.usefixtures("undrawn")
def test_without_slow_clients_nothing_is_simulated(toy_store):
    (artifact,) = train(toy_store, "fast", Train.make(QUICK, {"algorithm": "local", "rounds": 1}), {})
    assert "simulated_seconds" not in artifact.names("rounds") and not read(artifact).simulated_seconds.any()
    (row,) = report(toy_store, "r", Report()).attributes["rows"]
    assert row["simulated_seconds_per_round"] == 0


def test_a_finished_run_with_slow_clients_goes_on(toy_store):
    slow = {"slow_rate": 1.0, "slow_seconds": 2.0, "rounds": 1, "algorithm": "local"}
    train(toy_store, "slow", Train.make(QUICK, slow), {})
    assert read(resume(toy_store, "slow", {**CODE, "rounds": 3})).simulated_seconds.tolist() == [[2.0] * 4] * 3
