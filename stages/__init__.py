"""fedktl from Python: the four stages as functions, their settings, and the store they read and write.

    from stages import Prepare, Store, Train, prepare, read_run, train

`read` gives the content of any artifact; `read_data`, `read_latents`, `read_run` and `read_report` give that of one kind, so
that type checkers and editors know its fields.

Every name is imported when it is first used, so `import stages` is instant. Nothing in this package prints or knows a
terminal.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stages.algorithms.contract import Algorithm as Algorithm
    from stages.artifacts.schemas import read as read
    from stages.artifacts.schemas import read_data as read_data
    from stages.artifacts.schemas import read_latents as read_latents
    from stages.artifacts.schemas import read_report as read_report
    from stages.artifacts.schemas import read_run as read_run
    from stages.artifacts.store import Store as Store
    from stages.checking import check_algorithm as check_algorithm
    from stages.errors import UserError as UserError
    from stages.generate import generate as generate
    from stages.prepare import prepare as prepare
    from stages.report import report as report
    from stages.settings import Generate as Generate
    from stages.settings import Prepare as Prepare
    from stages.settings import Report as Report
    from stages.settings import Train as Train
    from stages.train import resume as resume
    from stages.train import study as study
    from stages.train import train as train

_HOMES = {
    "Algorithm": "algorithms.contract", "Generate": "settings", "Prepare": "settings", "Report": "settings",
    "Store": "artifacts.store", "Train": "settings", "UserError": "errors", "check_algorithm": "checking",
    "generate": "generate", "prepare": "prepare", "report": "report", "resume": "train", "study": "train", "train": "train",
    **dict.fromkeys(("read", "read_data", "read_latents", "read_report", "read_run"), "artifacts.schemas"),
}  # fmt: skip
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'stages' has no attribute '{name}'")
    return getattr(importlib.import_module(f"stages.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps `stages.train` the function; otherwise importing the module of that name would replace it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _HOMES:
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
