"""Libraries that take seconds to import: only by the tests that use them, not by every process that collects tests."""

import importlib
from importlib.util import find_spec
from typing import Any

import pytest


class Later:
    """A library that is imported when something of it is first used."""

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("_", "pytest")):  # which pytest looks for in whatever a test module holds
            raise AttributeError(name)
        return getattr(importlib.import_module(self._name), name)


def needs(*packages: str) -> pytest.MarkDecorator:
    """Skips where one of them is not installed."""
    absent = [name for name in packages if find_spec(name) is None]
    return pytest.mark.skipif(bool(absent), reason=f"needs the package {', '.join(absent)}")
