"""Presets: inheritance, and every shipped file through the real parser and a dry run."""

import dataclasses
import json
import os
import tomllib
from functools import cache

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fedktl_cli.main import app
from stages import algorithms, presets
from stages.algorithms.contract import Task
from stages.artifacts.store import Store
from stages.data.partitions import label_counts
from stages.errors import UserError
from stages.models import split
from stages.settings import Generate, Prepare, Train
from stages.train import dry_run
from tests.helpers.toy_store import write_toy_data, write_toy_latents

CLASS_SIZES = {  # training and test images together
    "digits": [180] * 10, "cifar10": [6000] * 10, "cifar100": [600] * 100, "tiny-imagenet": [500] * 200,
    "flowers102": [80] * 101 + [109],
}  # fmt: skip
TOYS = {
    "models": "tests.helpers.toys:tiny",
    "feature_dim": 16,
    "generator": "tests.helpers.toys:linear",
    "seeds": 0,
    "device": "cpu",
}
QUICK = {"server_epochs": 1, "auxiliary": TOYS["models"]}  # hyperparameters, where an algorithm has them


@pytest.mark.parametrize("name", presets.names())
def test_every_shipped_preset_is_what_the_parser_takes(name):
    preset = presets.load(name)
    assert preset.title and (preset.notes or name == "reference")
    Generate.make(preset.generate)
    settings, images = Train.make(preset.train), Prepare.make(preset.prepare)
    shape, classes = (3, images.image_size, images.image_size), len(CLASS_SIZES[images.dataset])
    task = Task(images.clients, classes, 512, 512, 0.01, 10, torch.device("cpu"), shape)
    models = [model(one, shape, classes) for one in split.architectures(settings.models, images.clients)]
    for name in (*settings.algorithm, *preset.algorithms):
        algorithm = algorithms.get(name)
        hyper = algorithm.Hyper.make(preset.algorithms.get(name, {}))
        if name in settings.algorithm:
            algorithm.check(hyper, task, models)  # it takes these models


@cache
def model(architecture: str, shape: tuple[int, int, int], classes: int) -> split.SplitModel:
    """Without memory for its weights, and tried on images of that shape."""
    made = split.meta_model(architecture, shape, classes, 512)
    split.shapes(made, shape)
    return made


@pytest.mark.parametrize("name", presets.names())
def test_every_shipped_partition_can_be_drawn(name):
    settings = Prepare.make(presets.load(name).prepare)
    totals = np.array(CLASS_SIZES[settings.dataset])
    counts = label_counts(settings, totals, np.random.default_rng(0))
    assert (counts.sum(0) <= totals).all() and counts.sum(1).min() >= settings.min_samples


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    found = Store(tmp_path_factory.mktemp("store"))
    write_toy_data(found)
    write_toy_data(found, "solo", clients=1)
    write_toy_latents(found)
    return found


@pytest.fixture(scope="module")
def tried(store):
    """Runs an algorithm of a preset dry, once: many presets differ in their data, models and rounds alone, which are toys here."""

    @cache
    def tried(settings: str, hyper: str) -> dict:
        (previewed,) = dry_run(store, Train.make(json.loads(settings)), json.loads(hyper))
        return previewed

    return tried


@pytest.mark.parametrize("name", presets.names())
def test_every_shipped_preset_runs_dry_on_made_up_data(tried, name):
    preset = presets.load(name)
    data = "solo" if preset.prepare["clients"] == 1 else "toy"
    settings = Train.make(preset.train, TOYS, {"data": data})
    taken = {name for algorithm in settings.algorithm for name in names_of(algorithm)}
    quick = [f"{name}={value}" for name, value in QUICK.items() if name in taken]
    hyper = algorithms.assigned(settings.algorithm, quick, preset.algorithms)
    for algorithm in settings.algorithm:
        alone = json.dumps(dataclasses.replace(settings, algorithm=(algorithm,), rounds=5).as_dict())
        own = {algorithm: hyper[algorithm]} if algorithm in hyper else {}
        assert tried(alone, json.dumps(own))["algorithm"] == algorithm


def names_of(algorithm: str) -> set[str]:
    return {field.name for field in dataclasses.fields(algorithms.get(algorithm).Hyper)}


def test_the_numbers_of_the_paper():
    main, diffusion = presets.load("table1-cifar10-practical"), presets.load("table8-stable-diffusion")
    common = {"batch_size": 10, "lr": 0.01, "local_epochs": 1, "feature_dim": 512, "shuffle": False, "drop_last": True}
    assert main.prepare["clients"] == 20 and common.items() <= main.train.items()
    fedktl = {"mu": 50, "lambda": 1, "server_lr": 0.01, "server_batch_size": 100, "server_epochs": 100}
    assert fedktl.items() <= main.algorithms["fedktl"].items()
    assert {**fedktl, "mu": 100, "lambda": 0.01, "server_lr": 0.1}.items() <= diffusion.algorithms["fedktl"].items()
    assert {**fedktl, "lambda": 0.1}.items() <= presets.load("table6-bench").algorithms["fedktl"].items()
    assert presets.load("table2-200-clients").prepare["clients"] == 200


def test_pathological_partitions_are_those_of_the_library():
    for name in (name for name in presets.names() if name.endswith("-pathological")):
        settings = Prepare.make(presets.load(name).prepare)
        assert settings.partition == "pathological" and settings.class_holders == "consecutive" and settings.squeeze
    totals = np.array(CLASS_SIZES["cifar10"])
    counts = label_counts(
        Prepare.make(presets.load("table1-cifar10-pathological").prepare), totals, np.random.default_rng(0)
    )
    assert len({tuple(np.flatnonzero(row)) for row in counts}) == 5


def test_numbers_in_names_are_sorted_as_numbers():
    names = presets.names()
    assert names.index("table2-50-clients") < names.index("table2-100-clients") < names.index("table2-200-clients")


def written(folder, **files: str) -> None:
    for name, content in files.items():
        (folder / f"{name}.toml").write_text(content)


def test_a_child_beats_its_parent_setting_by_setting(tmp_path):
    written(
        tmp_path,
        oldest='title = "a"\nnotes = "n"\n[train]\nlr = 1.0\nbatch-size = 5\n[algorithms.fedktl]\nmu = 1\nscale = 2',
        middle='extends = "oldest.toml"\n[train]\nbatch_size = 6\nrounds = 7\n[algorithms.fd]\ngamma = 3',
        child='title = "c"\nextends = "middle.toml"\n[train]\nrounds = 8\n[algorithms.fedktl]\nmu = 9',
    )
    found = presets.load(str(tmp_path / "child.toml"))
    assert (found.title, found.notes) == ("c", "n")
    assert found.train == {"lr": 1.0, "batch_size": 6, "rounds": 8}
    assert found.algorithms == {"fedktl": {"mu": 9, "scale": 2}, "fd": {"gamma": 3}}
    assert presets.load(str(tmp_path / "middle.toml")).title == ""  # a title is not passed on


def test_a_file_may_extend_a_shipped_preset(tmp_path):
    written(tmp_path, own='extends = "reference"\n[train]\nlr = 0.5')
    found = presets.load(str(tmp_path / "own.toml"))
    assert found.train["lr"] == 0.5 and found.train["patience"] == 100


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('extends = "own.toml"', "in a circle: own -> own"),
        ('extends = "other.toml"', "in a circle: own -> other -> own"),
        ('extends = "referense"', "did you mean reference"),
        ('extends = "nowhere.toml"', "nowhere.toml can't be read"),
        ("extends = 3", "'extends' must be text"),
        ("[title]", "'title' must be text"),
        ("train = 3", "'train' must be a table"),
        ("algorithms = 3", "'algorithms' must be a table"),
        ("[algorithms]\nfedktl = 3", "'algorithms' must be a table"),
        ("[trian]\nlr = 1", "did you mean train"),
        ("lr = ", "can't be read"),
        ("[train]\nlr = " + "[" * 9000, "it is nested too deeply"),
        ("[train]\nlr = " + "9" * 5000, "can't be read as a preset"),
        ("a." * 9000 + "b = 1", "can't be read as a preset|no table in a preset"),
        ("[train]\ndata = 2026-01-01", "'data' must be text, a number, true or false"),
        ("[train]\nlr = inf", "'lr' must be text, a number"),
        ("[train]\nrounds = 9223372036854775808", "'rounds' must be text, a number"),
        ("[algorithms.fedktl]\nmu = [2026-01-01T00:00:00Z]", "'mu' must be text, a number"),
        ("[train]\nlr = {a = 1}", "'lr' must be text, a number"),
    ],
)
def test_a_preset_that_can_not_be_used(tmp_path, content, sentence):
    written(tmp_path, own=content, other='extends = "own.toml"')
    with pytest.raises(UserError, match=sentence):
        presets.load(str(tmp_path / "own.toml"))


def test_a_long_chain_of_presets_is_refused(tmp_path):
    written(tmp_path, **{f"p{n}": f'extends = "p{n + 1}.toml"' for n in range(1200)})
    with pytest.raises(UserError, match="extends more than 20 others"):
        presets.load(str(tmp_path / "p0.toml"))


def test_a_preset_that_is_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "own.toml")
    with pytest.raises(UserError, match="it is not a plain file"):
        presets.load(str(tmp_path / "own.toml"))


@pytest.mark.parametrize("name", presets.names())
def test_what_is_shown_is_a_preset_that_says_the_same(name, tmp_path):
    shown = CliRunner().invoke(app, ["presets", "show", name]).stdout
    (tmp_path / "shown.toml").write_text(shown)
    assert presets.load(str(tmp_path / "shown.toml")) == presets.load(name)
    assert "extends" not in tomllib.loads(shown)


def test_the_command_line():
    listed = json.loads(CliRunner().invoke(app, ["presets", "list", "--json"]).stdout)["presets"]
    assert [row["preset"] for row in listed] == presets.names()
    assert "table6-ffhq-u" in CliRunner().invoke(app, ["presets", "list"]).stdout
    shown = json.loads(CliRunner().invoke(app, ["presets", "show", "table2-htm10", "--json"]).stdout)
    assert shown["preset"] == "table2-htm10" and shown["train"]["models"] == "HtM10"
    refused = CliRunner().invoke(app, ["presets", "show", "table11"])
    assert refused.exit_code == 2 and "did you mean" in refused.stderr


def test_a_preset_for_an_algorithm_of_the_user_is_valid_toml(tmp_path):
    (tmp_path / "mine.toml").write_text('[algorithms."mine:ALGORITHM"]\nmu = 3\n')
    found = presets.load(str(tmp_path / "mine.toml"))
    assert tomllib.loads(found.as_toml())["algorithms"] == {"mine:ALGORITHM": {"mu": 3}}
