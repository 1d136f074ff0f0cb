"""The generate stage."""

import numpy as np
import pytest
import torch

import stages
from stages.artifacts.partial import unfinished
from stages.artifacts.schemas import read
from stages.errors import Interrupted, UserError
from stages.generate import generate, resume
from stages.settings import Generate
from tests.helpers.toy_runs import QUICK, StopAfter
from tests.helpers.toys import LinearGenerator


def made(store, name="b", **settings):
    return read(
        generate(
            store,
            name,
            Generate.make({"samples": 10, "image_size": 16, "generator": "tests.helpers.toys:linear"}, settings),
        )
    )


def test_images_are_those_of_their_latents(toy_store):
    bank = made(toy_store)
    expected = LinearGenerator(torch.device("cpu")).render(torch.from_numpy(bank.latents))
    assert bank.latents.shape == (10, 8) and np.array_equal(bank.images, expected.numpy())
    assert bank.generator["factory"] == "tests.helpers.toys:linear" and bank.artifact.attributes["seed"] == 0


def test_the_seed_decides(toy_store):
    one, again, other = made(toy_store), made(toy_store), made(toy_store, seed=1)
    assert np.array_equal(one.latents, again.latents) and not np.array_equal(one.latents, other.latents)
    assert str(again.artifact.ref) == "b@v2"


def test_another_size(toy_store):
    assert made(toy_store, image_size=24).images.shape == (10, 3, 24, 24)


def test_the_built_in_generator_by_default(toy_store):
    bank = read(generate(toy_store, "b", Generate(samples=3)))
    assert bank.images.shape == (3, 3, 32, 32) and bank.generator["family"] == "builtin"


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_given_latents(toy_store, tmp_path, suffix):
    latents, path = np.linspace(-1, 1, 24).reshape(3, 8), tmp_path / f"z{suffix}"
    (np.save if suffix == ".npy" else np.savez)(path, latents)
    bank = made(toy_store, from_latents=str(path))
    assert np.array_equal(bank.latents, latents.astype(np.float32)) and len(bank.images) == 3


def test_the_centroids_of_a_run(toy_store):
    from stages.settings import Train

    settings = Train.make(QUICK, {"rounds": 1})
    (run,) = stages.train(toy_store, "taught", settings, {"fedktl": {"server_epochs": 1}})
    bank = made(toy_store, from_latents="taught@v1")
    assert np.array_equal(bank.latents, read(run).centroids)
    assert bank.artifact.attributes["made_from"]["run"] == run.identity


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (np.zeros((3, 7)), r"\[n, 8\]"), (np.zeros(8), r"\[n, 8\]"), (np.zeros((0, 8)), r"\[n, 8\]"),
        (np.full((3, 8), np.nan), "not a finite float32"), (np.array(["a"]), "not plain numbers"), (b"no array", "can't be read"),
        (np.array([print], dtype=object), "can't be read"), (np.full((3, 8), 1e300), "not a finite float32"),
        (np.full((3, 8), np.inf), "not a finite float32"), (b"\x93NUMPY\x01\0\x06\0[(((((", "can't be read"),
        (b"PK\3\4" + bytes(40), "can't be read"),
    ],
)  # fmt: skip
def test_latents_that_can_not_be(toy_store, tmp_path, content, sentence):
    path = tmp_path / "z.npy"
    path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content, allow_pickle=True)
    with pytest.raises(UserError, match=sentence):
        made(toy_store, from_latents=str(path))


def test_arrays_are_known_by_what_they_are_and_not_by_their_suffix(toy_store, tmp_path):
    latents = np.linspace(-1, 1, 16).reshape(2, 8)
    with (tmp_path / "z.npz").open("wb") as file:
        np.save(file, latents)
    with (tmp_path / "z.npy").open("wb") as file:
        np.savez(file, latents)
    for name in ("z.npz", "z.npy"):
        assert np.array_equal(made(toy_store, from_latents=str(tmp_path / name)).latents, latents.astype(np.float32))


def test_a_run_without_centroids_has_none_to_render(toy_store):
    from stages.settings import Train

    stages.train(toy_store, "alone", Train.make(QUICK, {"rounds": 1, "algorithm": "local"}), {})
    with pytest.raises(UserError, match=r"alone holds float32 \(0, 0\)"):
        made(toy_store, from_latents="alone")


def test_a_failing_generator_leaves_nothing(toy_store, monkeypatch):
    monkeypatch.setattr(LinearGenerator, "render", lambda self, latents: 1 / 0)
    with pytest.raises(
        UserError,
        match=r"'tests\.helpers\.toys:linear' failed in render \(ZeroDivisionError: division by zero; test_generate\.py, line \d+\)",
    ):
        made(toy_store, name="broken")
    assert toy_store.versions("latents", "broken") == [] and not toy_store.leftovers()


def stopped(store, **settings):
    plan = Generate.make(
        {"samples": 10, "batch_size": 3, "image_size": 16, "generator": "tests.helpers.toys:linear"}, settings
    )
    with pytest.raises(Interrupted, match="`resume=half@v"):
        generate(store, "half", plan, StopAfter(6))
    return plan


def test_stopped_and_resumed_equals_one_go(toy_store):
    whole = read(generate(toy_store, "whole", stopped(toy_store)))
    rendered = []
    original, LinearGenerator.render = (
        LinearGenerator.render,
        lambda self, z: rendered.append(len(z)) or original(self, z),
    )
    try:
        resumed = read(resume(toy_store, "half", "tests.helpers.toys:linear"))
    finally:
        LinearGenerator.render = original
    assert rendered == [3, 1]  # two batches were done before
    assert str(resumed.artifact.ref) == "half@v1" and not unfinished(toy_store, "latents")
    assert np.array_equal(whole.latents, resumed.latents) and np.array_equal(whole.images, resumed.images)


def test_a_generator_that_changed_is_refused_on_resume(toy_store, monkeypatch):
    stopped(toy_store)
    monkeypatch.setattr("tests.helpers.toys.linear", lambda device: OtherVersion(device))
    with pytest.raises(UserError, match="has changed since half@v1 was started"):
        resume(toy_store, "half", "tests.helpers.toys:linear")


class OtherVersion(LinearGenerator):
    def __init__(self, device):
        super().__init__(device)
        self.descriptor = {"version": 2}


def test_given_latents_that_changed_are_refused_on_resume(toy_store, tmp_path):
    np.save(tmp_path / "z.npy", np.ones((10, 8)))
    stopped(toy_store, from_latents=str(tmp_path / "z.npy"))
    np.save(tmp_path / "z.npy", np.zeros((10, 8)))
    with pytest.raises(UserError, match=r"z\.npy has changed since"):
        resume(toy_store, "half", "tests.helpers.toys:linear")


def test_nothing_to_resume(toy_store):
    with pytest.raises(UserError, match="no unfinished bank b"):
        resume(toy_store, "b")


def test_native_keeps_the_generators_resolution(toy_store):
    assert made(toy_store, image_size="native").images.shape == (10, 3, 16, 16)
