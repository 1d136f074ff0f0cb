"""The page as a reader meets it. Needs Chromium: `apt-get install chromium`."""

import numpy as np
import pytest

from stages.report import page_path, report
from stages.settings import Report
from tests.helpers import browser
from tests.helpers.made_runs import made_data, made_latents, made_run

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(browser.BROWSER is None, reason="needs the browser Chromium"),
]
ROUNDS, CLIENTS, CLASSES = 60, 20, 10


def nine_runs(store):
    """Three algorithms by three seeds at the size of a study, with pictures that do not compress."""
    rng = np.random.default_rng(0)
    data, bank = (
        made_data(
            store, counts=rng.integers(0, 90, (CLIENTS, CLASSES)), class_names=[f"class {c}" for c in range(CLASSES)]
        ),
        made_latents(store),
    )
    each, clients = np.full((ROUNDS, CLIENTS), 100), np.full(CLIENTS, 30)
    for algorithm in ("fedktl", "fedproto", "local"):
        for seed in range(3):
            accuracy = np.clip(rng.normal(0.7, 0.1, (ROUNDS + 1, CLIENTS)), 0, 1)
            made_run(
                store, f"{algorithm}-{seed}", data, bank, algorithm=algorithm, seed=seed,
                architectures=["CNN", "ResNet-4", "ResNet-6", "ResNet-8"] * 5,
                **{
                    "rounds/evaluated": np.arange(ROUNDS + 1), "rounds/test_accuracy": accuracy,
                    "rounds/validation_accuracy": accuracy, "rounds/test_samples": clients,
                    "rounds/validation_samples": clients, "rounds/joined": each > 0, "rounds/uploaded": each > 0,
                    **{f"rounds/{way}_{unit}": each * (algorithm != "local") for way in ("upload", "download") for unit in ("floats", "bytes")},
                    "rounds/peak_memory": np.full(ROUNDS, 2**30), "seconds/train": np.ones(ROUNDS), "seconds/server": np.ones(ROUNDS),
                    "rounds/test_confusion": rng.integers(0, 60, (1, CLASSES, CLASSES)),
                    "client_metrics/loss": rng.random((ROUNDS, CLIENTS)), "client_metrics/transfer": rng.random((ROUNDS, CLIENTS)),
                    "server_metrics/mmd": rng.random(ROUNDS), "server_metrics/mse": rng.random(ROUNDS),
                    "pairs/rounds": np.arange(1, 9), "pairs/labels": np.tile(np.arange(CLASSES) if algorithm == "fedktl" else -1, (8, 1)) + np.zeros((8, CLASSES), int),
                    "pairs/images": rng.integers(0, 256, (8, CLASSES, 3, 32, 32), dtype=np.uint8),
                    "pairs/centroids": rng.normal(size=(CLASSES, 8)).astype(np.float32),
                },
            )  # fmt: skip


@pytest.mark.parametrize(
    "screens",
    [
        [(390, True), (1440, False)],
        pytest.param([(390, False), (1440, True)], marks=pytest.mark.slow),
    ],
)
def test_nine_runs_fit_every_screen_and_are_read_well(tmp_path, screens):
    from stages.artifacts.store import Store

    store = Store(tmp_path / "store")
    nine_runs(store)
    page = page_path(store, report(store, "study", Report()).ref)
    assert page.stat().st_size < 600_000
    for width, dark in screens:
        found = browser.visited(page, tmp_path, width, dark)
        assert (found["overflow"], found["faint"], found["errors"], found["unnamed"]) == (0, [], [], 0), (width, dark)
        assert found["sorted"] == sorted(found["sorted"], reverse=True) and found["tip"].startswith("fedktl: ")
