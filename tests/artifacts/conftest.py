"""The archived artifacts, which read faster than new ones are written."""

import shutil
from pathlib import Path

import pytest

from stages.artifacts.store import Artifact, Store

ARCHIVE = Path(__file__).parent / "archive" / "schema-1"
REFS = {"data": "shapes", "latents": "bank", "run": "fedktl-shapes-s7", "report": "report"}


@pytest.fixture
def archived() -> dict[str, Artifact]:
    """One artifact of each kind, to be read only."""
    return {kind: Store(ARCHIVE).open(name, kind) for kind, name in REFS.items()}


@pytest.fixture
def copied(tmp_path) -> Store:
    """A store of one's own with an artifact of each kind, each made from the ones before it."""
    shutil.copytree(ARCHIVE, tmp_path / "store")
    return Store(tmp_path / "store")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")
