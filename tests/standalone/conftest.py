"""One tiny run of each algorithm, which all tests of exported clients share."""

from functools import cache

import pytest

from stages import algorithms, train
from stages.artifacts.store import Store
from tests.helpers.toy_runs import settings
from tests.helpers.toy_store import write_toy_data, write_toy_latents

HYPER = {"server_epochs": 2, "auxiliary": "tests.helpers.toys:tiny", "sub_feature_dim": 16}


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """The run of an algorithm, and the store that it is in."""
    store = Store(tmp_path_factory.mktemp("runs") / "store")
    data, solo = write_toy_data(store), write_toy_data(store, "solo", clients=1)
    write_toy_latents(store)

    @cache
    def run(name: str):
        fields = algorithms.get(name).Hyper.__dataclass_fields__
        hyper = {key: value for key, value in HYPER.items() if key in fields}
        chosen = str((solo if name == "ktl" else data).ref)
        (made,) = train(store, name, settings(algorithm=name, data=chosen, lr=0.1, rounds=2), {name: hyper})
        return store, made

    return run
