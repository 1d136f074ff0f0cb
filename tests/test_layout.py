"""Every import runs down: from the terminal over the stages and engines to what these are made of. And none in a circle."""

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from stages import algorithms
from stages.settings import Train, key

ROOT = Path(__file__).parents[1]
if not (ROOT / "stages").is_dir():
    pytest.skip("the sources are not beside the tests", allow_module_level=True)

STAGES = ("prepare", "generate", "train", "report")
ROOMS = ("artifacts", "data", "generators", "models", "algorithms", "engines", "reporting")
FORBIDDEN = {  # what a room must not know
    "artifacts": ("data", "generators", "models", "algorithms", "engines", "reporting"),
    "data": ("generators", "models", "algorithms", "engines", "reporting"),
    "generators": ("data", "engines", "reporting"),
    "models": ("artifacts", "data", "generators", "algorithms", "engines", "reporting"),
    "algorithms": ("artifacts", "data", "generators", "engines", "reporting"),
    "engines": ("data", "reporting"),
    "reporting": ("data", "generators", "engines"),
}


def modules() -> dict[str, Path]:
    """The files of the program by dotted name; a package's `__init__` has the package's."""
    paths = [path for package in ("stages", "fedktl_cli") for path in (ROOT / package).rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


MODULES = modules()
BELOW = [name for name in MODULES if name.startswith("stages")]  # the terminal


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(name: str, for_types: bool) -> Iterator[str]:
    """The program's modules that a module imports, at once or when a function is called, or `for_types` alone."""
    whole = tree(MODULES[name])
    blocks = [
        node for node in ast.walk(whole) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    only_types = {node for block in blocks for node in ast.walk(block)}
    for node in ast.walk(whole):
        if node in only_types and not for_types:
            continue
        named: list[str] = []
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            named = [one if one in MODULES else node.module for one in inner]
        yield from (each for each in named if each in MODULES)


def test_no_arrow_runs_up():
    for name in BELOW:
        room = name.split(".")[1] if "." in name else ""
        for imported in imports(name, for_types=True):
            assert not imported.startswith("fedktl_cli"), f"{name} knows the terminal"
            target = imported.split(".")[1] if "." in imported else ""
            if room in ROOMS:
                assert target not in (*FORBIDDEN[room], *STAGES), f"{name} imports {imported}"
            if room in STAGES:
                assert imported.split(".")[1:] not in [[one] for one in STAGES], f"{name} imports the stage {imported}"


def test_no_module_imports_itself_in_a_circle():
    order = TopologicalSorter({name: set(imports(name, for_types=False)) for name in MODULES}).static_order()
    assert len(list(order)) == len(MODULES)


def test_nothing_is_too_long_to_read():
    for name, path in MODULES.items():
        assert len(path.read_text().splitlines()) <= 350, name
        functions = [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef)]
        assert not [each.name for each in functions if each.end_lineno - each.lineno >= 50], name


def sentences(name: str) -> list[str]:
    """The texts in a module's code, docstrings excepted."""
    nodes = list(ast.walk(tree(MODULES[name])))
    docstrings = {node.value for node in nodes if isinstance(node, ast.Expr)}
    return [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str) and n not in docstrings]


def own_words() -> set[str]:
    """What the algorithms that come with the program call their phases, losses and protected tensors."""
    every = [algorithms.get(name) for name in algorithms.NAMES]
    words = {word for one in every for word in (one.name, *one.phases, *one.server_metrics, *one.unit_rows)}
    return words - {key(field) for field in fields(Train)} - {"local", "fedktl"}  # an engine's name, and the program's


def private_names(name: str) -> Iterator[str]:
    """PyTorch's private modules and attributes that a module uses."""
    for node in ast.walk(tree(MODULES[name])):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("torch"):
            named = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            named = [alias.name for alias in node.names if alias.name.startswith("torch")]
        elif isinstance(node, ast.Attribute) and re.fullmatch(r"(torch|nn|F)(\.\w+)+", ast.unparse(node)):
            named = [ast.unparse(node)]
        else:
            continue
        yield from (one for one in named if re.search(r"\._(?!_)", one))


def test_private_parts_of_pytorch_are_used_in_one_file():
    assert [name for name in MODULES if [*private_names(name)]] == ["stages.torch_private"]


def test_the_engine_knows_no_algorithm():
    words, engines = own_words(), [name for name in BELOW if name.startswith("stages.engines")]
    assert not [
        (name, text) for name in engines for text in sentences(name) if words & set(re.findall(r"[\w-]+", text))
    ]


def test_no_sentence_below_the_terminal_names_an_option():
    """It names settings in backticks, which the terminal shows as options."""
    texts = [(name, text) for name in BELOW for text in sentences(name) if " " in text]
    assert not [(name, text) for name, text in texts if re.search(r"(^|[ (`'])--([a-z]|$)", text)]


def test_what_tests_share_stands_in_helpers():
    for path in (ROOT / "tests").rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        named = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
        named |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        for module in named:
            assert not module.split(".")[-1].startswith(("test_", "conftest")), f"{path} imports {module}"
            if module.startswith("tests."):
                file = ROOT / module.replace(".", "/")
                assert file.is_dir() or file.with_suffix(".py").is_file(), f"{path} imports {module}, which is missing"


INDEXED = [
    name
    for name, path in MODULES.items()
    if path.name == "__init__.py" and re.search(r"^\w+\.py ", path.read_text(), re.M)
]


def test_there_are_rooms_with_an_index():
    assert {"stages.engines", "stages.engines.flower", "stages.algorithms.common"} <= set(INDEXED)


@pytest.mark.parametrize("name", INDEXED)
def test_an_index_names_every_file(name):
    told = set(re.findall(r"\b(\w+)(?:\.py|/)", ast.get_docstring(tree(MODULES[name]))))
    inner = {
        path.stem if path.is_file() else path.name
        for path in MODULES[name].parent.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert inner - {"__init__"} == told
