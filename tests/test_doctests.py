"""The examples in docstrings are right, wherever the sources are installed."""

import doctest
import importlib
from pathlib import Path

import pytest

import fedktl_cli
import stages

PACKAGES = {Path(package.__path__[0]): package.__name__ for package in (stages, fedktl_cli)}
MODULES = sorted(
    ".".join([name, *path.relative_to(folder).with_suffix("").parts]).removesuffix(".__init__")
    for folder, name in PACKAGES.items()
    for path in folder.rglob("*.py")
    if ">>> " in path.read_text()
)


def test_there_are_examples():
    assert {"stages.plugins", "stages.randomness"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    failed, attempted = doctest.testmod(importlib.import_module(name))
    assert attempted and not failed
