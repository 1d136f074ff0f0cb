"""What the demo asks the stages for; `.ci/run` runs it."""

from importlib import import_module

import pytest

from stages.errors import UserError
from tests.helpers.cli import run


@pytest.mark.parametrize(("gpu", "jobs"), [(False, 2), (True, 1)])
def test_it_makes_two_runs_at_a_time_where_they_do_not_share_a_gpu(toy_store, monkeypatch, gpu, jobs):
    asked = []

    def train(store, name, settings, *others):
        asked.append(settings)
        raise UserError("That is enough.")

    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    made = {"prepare": lambda *_: toy_store.open("toy"), "generate": lambda *_: toy_store.open("bank"), "train": train}
    for stage, function in made.items():
        monkeypatch.setattr(import_module(f"stages.{stage}"), stage, function)
    run(toy_store.root, "demo", code=2)
    (settings,) = asked
    assert settings.jobs == jobs and settings.seeds == (0, 1)
    assert settings.algorithm == ("fedktl-gated", "fedtgp", "local")
