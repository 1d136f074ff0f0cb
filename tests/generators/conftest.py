"""Tiny pipelines that the tests of generators share."""

import shutil

import pytest


@pytest.fixture(scope="session")
def pipelines(tmp_path_factory):
    """A folder of folders, not to be written to."""
    pytest.importorskip("diffusers")
    from tests.helpers import tiny_pipelines

    folder = tmp_path_factory.mktemp("pipelines")
    tiny_pipelines.build(folder)
    return folder


@pytest.fixture
def copied(pipelines, tmp_path):
    """A pipeline of one's own to spoil, by name."""
    return lambda name: shutil.copytree(pipelines / name, tmp_path / name)
