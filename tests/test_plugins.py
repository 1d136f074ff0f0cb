"""Code found by name: whose word it takes to load it, and what becomes of code that is none."""

import json
import sys

import pytest
import torch

import stages
from stages import plugins
from stages.artifacts import schemas
from stages.artifacts.store import Store
from stages.errors import Interrupted, UserError
from stages.generators import registry
from stages.settings import Generate, Train
from tests.helpers.cli import run
from tests.helpers.toy_runs import QUICK, StopAfter
from tests.helpers.toys import LinearGenerator

SPY = """
import os
os.open({marker!r}, os.O_CREAT)
from tests.helpers.toys import OWN, halves, linear, tiny
"""


@pytest.fixture
def spy(tmp_path, monkeypatch):
    """A module `spy` that leaves a file behind when it is imported."""
    marker = tmp_path / "imported"
    (tmp_path / "spy.py").write_text(SPY.format(marker=str(marker)))
    monkeypatch.syspath_prepend(tmp_path)
    yield marker
    sys.modules.pop("spy", None)


def forgotten(marker):
    """As a new process would find it."""
    sys.modules.pop("spy", None)
    marker.unlink()


CLASSIFIERS = {
    "models": ({"models": "resnet4,spy:tiny+8"}, {}),
    "an auxiliary model": ({"models": "CNN", "algorithm": "fml"}, {"fml": {"auxiliary": "spy:tiny"}}),
}


@pytest.mark.parametrize(("changes", "hyper"), CLASSIFIERS.values(), ids=CLASSIFIERS)
def test_a_resumed_run_loads_only_code_that_the_user_names_again(toy_store, spy, changes, hyper):
    settings = Train.make(QUICK, {"algorithm": "local"}, changes)
    with pytest.raises(Interrupted):
        stages.train(toy_store, "spied", settings, hyper, StopAfter(1))
    forgotten(spy)
    for named in ({}, {"generator": "spy:linear"}, {"models": "spy:linear"}, {"models": "resnet4"}):
        with pytest.raises(UserError, match=r"`models=spy:tiny`|keeps its"):
            stages.resume(toy_store, "spied", named)
    assert not spy.exists() and "spy" not in sys.modules
    stages.resume(toy_store, "spied", {"models": "spy:tiny"})


def test_a_resumed_run_loads_its_own_algorithm_only_if_it_is_named_again(toy_store, spy):
    settings = Train.make(QUICK, {"algorithm": "spy:OWN"})
    with pytest.raises(Interrupted, match="Stopped spied@v1"):
        stages.train(toy_store, "spied", settings, {}, StopAfter(1))
    forgotten(spy)
    for named in ({}, {"models": QUICK["models"]}, {"models": "spy:tiny"}, {"algorithm": ["local"]}):
        with pytest.raises(UserError, match=r"`algorithm=spy:OWN`|keeps its"):
            stages.resume(toy_store, "spied", named)
    assert not spy.exists() and "spy" not in sys.modules
    run = stages.resume(toy_store, "spied", {"algorithm": ["spy:OWN"], "models": QUICK["models"]})
    assert run.attributes["facts"]["algorithm"] == "spy:OWN"


def test_a_resumed_run_does_not_take_a_banks_word_for_its_generator(toy_store, spy):
    stages.generate(toy_store, "spied", Generate(generator="spy:linear", samples=9))
    live = Train.make(QUICK, {"pairs": "live", "latents": "spied", "generator": "spy:linear", "rounds": 2})
    with pytest.raises(Interrupted, match="Stopped spied@v1"):
        stages.train(toy_store, "spied", live, {"fedktl": {"server_epochs": 1}}, StopAfter(1))
    forgotten(spy)
    with pytest.raises(UserError, match="`generator=spy:linear`"):
        stages.resume(toy_store, "spied", {"models": QUICK["models"]})
    assert not spy.exists()
    stages.resume(toy_store, "spied", {"models": QUICK["models"], "generator": "spy:linear"})


def test_a_resumed_bank_needs_its_generator_named(toy_store, spy):
    plan = Generate(generator="spy:linear", samples=9, batch_size=3)
    with pytest.raises(Interrupted, match=r"`resume=spied@v1 generator=spy:linear`"):
        stages.generate(toy_store, "spied", plan, StopAfter(3))
    forgotten(spy)
    for named in ([], ["--generator", "builtin"]):
        run(toy_store.root, "generate", "--resume", "spied", *named, code=2)
    assert not spy.exists()
    run(toy_store.root, "generate", "--resume", "spied", "--generator", "spy:linear")


def test_a_preset_file_can_not_have_code_run_by_itself(toy_store, spy, tmp_path):
    preset = tmp_path / "mine.toml"
    preset.write_text('[train]\nmodels = "spy:tiny"\nrounds = 1\n[generate]\ngenerator = "spy:linear"\nsamples = 2\n')
    asked = {"train": ["--models", "spy:tiny", "--algorithm", "local"], "generate": ["--generator", "spy:linear"]}
    for command, words in asked.items():
        assert words[1] in run(toy_store.root, command, "--preset", str(preset), code=2).stderr
    assert not spy.exists()
    for command, words in asked.items():
        run(toy_store.root, command, "--preset", str(preset), *words)


def test_nor_can_it_have_an_algorithm_run(toy_store, spy, tmp_path):
    preset = tmp_path / "mine.toml"
    preset.write_text('[train]\nalgorithm = "spy:OWN"\nrounds = 1\n')
    words = ["train", "--preset", str(preset), "--models", "tests.helpers.toys:tiny"]
    assert "--algorithm spy:OWN" in run(toy_store.root, *words, code=2).stderr
    assert not spy.exists()
    assert "spy.OWN-toy-s0@v1" in run(toy_store.root, *words, "--algorithm", "spy:OWN").stdout


def test_an_own_data_set(tmp_path, spy):
    words = ["prepare", "--clients", "2", "--beta", "10", "--image-size", "16"]
    told = json.loads(run(tmp_path, *words, "--dataset", "spy:halves", "--json").stdout)
    assert told["data"] == "spy.halves@v1" and told["class_names"] == ["dark", "light"]
    assert sum(map(sum, told["counts"])) == 400
    data = schemas.read(Store(tmp_path).open("spy.halves"))
    assert (data.train.images == data.train.labels[:, None, None, None] * 255).all()
    forgotten(spy)
    preset = tmp_path / "mine.toml"
    preset.write_text('[prepare]\ndataset = "spy:halves"\n')
    assert "--dataset spy:halves" in run(tmp_path, "prepare", "--preset", str(preset), code=2).stderr
    assert not spy.exists()


NO_READERS = {
    "tests.helpers.toys:tiny": "'tests.helpers.toys:tiny' failed (TypeError",
    "builtins:str": "returned a str, not a stages.data.images.Dataset",
    "tests.helpers.toys:wide": "returned images uint8 [",
}


@pytest.mark.parametrize(("path", "sentence"), NO_READERS.items())
def test_what_is_no_reader_gets_a_sentence_and_leaves_nothing(tmp_path, path, sentence):
    told = run(tmp_path, "prepare", "--clients", "2", "--beta", "10", "--dataset", path, code=2).stderr
    assert sentence in " ".join(told.split())
    assert not list(tmp_path.glob("data/*/v*"))


NO_ALGORITHMS = {
    "tests.helpers.toys:tiny": "is a function, not a stages.algorithms",
    "tests.helpers.toys:absent": "AttributeError",
}


@pytest.mark.parametrize(("path", "sentence"), NO_ALGORITHMS.items())
def test_what_is_no_algorithm_gets_a_sentence(tmp_path, path, sentence):
    assert sentence in " ".join(run(tmp_path, "algorithms", "show", path, code=2).stderr.split())


def test_an_own_algorithm_is_shown_set_and_blamed_with_the_line(toy_store):
    assert "pace" in run(toy_store.root, "algorithms", "show", "tests.helpers.toys:OWN").stdout
    words = [
        "train",
        "--algorithm",
        "tests.helpers.toys:OWN",
        "--rounds",
        "1",
        "--models",
        "tests.helpers.toys:tiny",
        "--set",
    ]
    run(toy_store.root, *words, "tests.helpers.toys:OWN.pace=0.5")
    assert "must be at least 0" in run(toy_store.root, *words, "pace=-1", code=2).stderr
    told = " ".join(run(toy_store.root, *words, "pace=0", code=3).stderr.split())
    assert "'tests.helpers.toys:OWN' failed in server_update (ZeroDivisionError" in told and "; toys.py, line " in told


def test_within_only_the_innermost_and_outermost_word_both_count():
    with (
        plugins.only("a:b,tests.helpers.toys:tiny+4"),
        plugins.only("tests.helpers.toys:tiny", "tests.helpers.toys:linear"),
    ):
        assert plugins.load("tests.helpers.toys:tiny", "models")
        with pytest.raises(UserError, match="you did not"):
            plugins.load("tests.helpers.toys:linear", "models")
    assert plugins.load("tests.helpers.toys:linear", "models")


PATHS = {  # as --generator, and what the sentence says
    "os:system": "'os:system' failed",
    "sys:exit": "'sys:exit' failed (SystemExit",
    "..:x": "package.module:name",
    ":x": "package.module:name",
    "a b:c": "package.module:name",
    "nowhere_at_all:x": "can't be loaded (ModuleNotFoundError",
    "tests.helpers.toys:absent": "can't be loaded (AttributeError",
    "tests.helpers.toys:CODE": "can't be loaded",
    "tests.helpers.toy_store:CLIENTS": "is not a function or class",
    "builtins:str": "it lacks latent_dim, resolution",
    "tests.test_plugins:Vague": "latent_dim is not a positive whole number",
    "broken:x": "can't be loaded (SyntaxError",
    "rude:x": "can't be loaded (SystemExit",
    "tests\x1b[2J:x": r"tests\x1b[2J:x",
}


@pytest.mark.parametrize(("path", "sentence"), PATHS.items())
def test_what_is_no_generator_gets_a_sentence(path, sentence, tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text("x = (")
    (tmp_path / "rude.py").write_text("raise SystemExit(0)")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError) as raised:
        registry.make(Generate(generator=path), torch.device("cpu"))
    assert sentence in str(raised.value) and str(raised.value).isprintable()


@pytest.mark.parametrize("path", ["..:x", "sys:exit", "os:system", "time:sleep", "tests.helpers.toys:linear"])
def test_what_is_no_model_gets_a_sentence(tmp_path, path):
    assert path in run(tmp_path, "models", "show", path, code=2).stderr


class Vague(LinearGenerator):
    latent_dim = "8"


class Odd:
    latent_dim, resolution = 4, 8

    def __init__(self, device):
        pass

    def sample_latents(self, n, rng):
        return torch.zeros(n, 4, dtype=torch.float64)

    def render(self, latents):
        return latents


def test_an_own_generator_is_held_to_the_protocol():
    odd = registry.make(Generate(generator="tests.test_plugins:Odd"), torch.device("cpu"))
    assert json.loads(json.dumps(odd.descriptor)) == {"family": "factory", "factory": "tests.test_plugins:Odd"}
    with pytest.raises(
        UserError, match=r"gave torch\.float64 \[3, 4\] from sample_latents, not torch\.float32 \[3, 4\]"
    ):
        odd.sample_latents(3, torch.Generator())
    with pytest.raises(UserError, match=r"from render, not torch\.uint8 \[2, 3, 8, 8\]"):
        odd.render(torch.zeros(2, 4))
