"""The pages for people: links that lead somewhere, commands that parse, a README of readable width."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from fedktl_cli.main import app
from stages import algorithms
from stages.models import split

ROOT = Path(__file__).parents[1]
if not (ROOT / "stages").is_dir():
    pytest.skip("the pages are not beside the tests", allow_module_level=True)
PAGES = sorted(
    path
    for path in [
        *ROOT.glob("*.md"),
        *ROOT.glob(".github/*.md"),
        *ROOT.glob("stages/**/*.md"),
        *ROOT.glob("tests/**/*.md"),
    ]
    if not path.is_relative_to(ROOT / "tests/fixtures")
)
COMMAND = typer.main.get_command(app)


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    """The page without its examples."""
    return re.sub(r"```.*?```|^    .*$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def commands(page: Path) -> list[list[str]]:
    """The words behind `fedktl` of each command line in an indented block, continued lines joined, remarks dropped."""
    blocks = re.findall(r"^ {4,}(.*)$", page.read_text().replace("\\\n", " "), re.MULTILINE)
    lines = [line for block in blocks for line in block.split("&&")]
    return [shlex.split(line, comments=True)[1:] for line in lines if re.match(r"\s*fedktl (?!.* -> )", line)]


LINES = [(page, words) for page in PAGES for words in commands(page)]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if not target.startswith(("http", "mailto")):
            path, _, anchor = target.partition("#")
            found = page if not path else page.parent / path
            assert found.exists(), target
            assert not anchor or anchor in anchors(found), target


def test_there_are_commands():
    assert len({page for page, _ in LINES}) >= 5 and len(LINES) >= 25


@pytest.mark.parametrize(("page", "words"), LINES, ids=[f"{name(page)}: {' '.join(words)}" for page, words in LINES])
def test_commands_parse(page, words):
    """Every option is there and gets a value that fits, without anything being run."""
    command, context = COMMAND, None
    while True:
        context = command.make_context(command.name or "fedktl", list(words), parent=context)
        if not hasattr(command, "commands"):
            return
        rest = [*context._protected_args, *context.args]
        _, command, words = command.resolve_command(context, rest)


def test_the_readme_is_readable():
    text = (ROOT / "README.md").read_text()
    lines = [line for line in text.splitlines() if not re.match(r"\[.*\]: http", line)]  # nobody sees these
    assert len(lines) < 200 and max(map(len, lines)) <= 100
    paragraphs = [part.splitlines() for part in prose(ROOT / "README.md").split("\n\n")]
    assert [part[0] for part in paragraphs if len(part) > 5 and not part[0].startswith(("|", "- ", "["))] == []


def test_every_algorithm_has_its_row():
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    named = [found for row in rows for found in re.findall(r"`([a-z0-9-]+)`", row)]
    assert [found for found in named if found in algorithms.NAMES] == list(algorithms.NAMES)


def test_every_preset_has_its_line():
    presets = {path.stem for path in (ROOT / "stages/presets").glob("*.toml")}
    page = (ROOT / "stages/presets/README.md").read_text()
    assert presets == set(re.findall(r"`([a-z0-9-]+)`", page)) & presets


def test_the_models_on_their_page_are_there():
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "stages/models/README.md").read_text(), re.MULTILINE)
    named = [found for row in rows for found in re.findall(r"`([\w,+]+)`", row)]
    assert len(named) >= 5 and all(split.listed(models) for models in named)
