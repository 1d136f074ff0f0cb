"""The program as a library."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import FunctionType

import pytest

import stages
from tests.helpers.cli import run
from tests.helpers.toy_store import write_toy_data

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "numpy", "zarr", "scipy", "matplotlib", "sklearn", "typer")


@pytest.mark.usefixtures("undrawn")
def test_what_the_readme_shows_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_python_of(ROOT / "README.md")
    assert re.fullmatch(r"<run mine@v1 in '.*v1\.zarr'>", repr(names["run"])) and str(names["longer"].ref) == "mine@v2"
    assert names["accuracy"].shape == (4, 4) and "table@v1" in repr(names["page"])


def run_python_of(page: Path) -> dict:
    """The names that the page's one example in Python leaves."""
    names: dict = {}
    exec(compile(example(page), str(page), "exec"), names)
    return names


def example(page: Path) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    return str(code)


@pytest.mark.parametrize("part", ["algorithms", "data", "generators", "models"])
def test_a_part_of_ones_own_runs_as_its_page_shows_it(part, toy_store, tmp_path, monkeypatch):
    """The example saved as `mine.py`, and every command of the page that names it."""
    page = Path(stages.__file__).parent / part / "README.md"
    code = example(page)
    assert len(code.splitlines()) < 25
    (tmp_path / "mine.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    own = [line for line in re.findall(r"^    fedktl (.*)$", page.read_text(), re.MULTILINE) if "mine:" in line]
    assert own
    for line in own:
        run(toy_store.root, *line.split())
    monkeypatch.delitem(sys.modules, "mine")


def test_importing_the_package_imports_nothing_heavy():
    code = f"import sys, stages; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "[]\n", done.stderr


def test_every_name_of_the_package_can_be_had():
    names: dict = {}
    exec("from stages import *", names)
    assert stages.__all__ and not set(stages.__all__) - names.keys()


def test_every_name_is_listed_before_it_is_used():
    code = "import stages; print(not set(stages.__all__) - set(dir(stages)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT).stdout == "True\n"


@pytest.mark.parametrize("name", ["train", "report"])
def test_a_stage_is_a_function_though_its_module_was_imported_before(name, monkeypatch):
    monkeypatch.delitem(sys.modules, f"stages.{name}", raising=False)
    assert importlib.import_module(f"stages.{name}").__name__ == f"stages.{name}"  # sets an attribute of the package
    assert isinstance(getattr(stages, name), FunctionType)


def test_names_that_are_not_there():
    assert isinstance(stages.resume, FunctionType)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = stages.trian


def test_what_is_there_is_shown_in_a_line(toy_store):
    toy = write_toy_data(toy_store)
    assert repr(toy) == f"<data toy@v2 in '{toy.path}'>" and repr(toy_store) == f"<store in '{toy_store.root}'>"
    content = stages.read_data(toy)
    assert repr(content) == f"<content of {toy!r}>" and repr(content.test) == "<40 images of 4 clients>"


@pytest.mark.parametrize("package", ["stages", "fedktl_cli"])
def test_the_types_ship(package):
    """`.ci/run` tests the installed package, so this looks into the wheel."""
    assert (Path(importlib.util.find_spec(package).origin).parent / "py.typed").is_file()
