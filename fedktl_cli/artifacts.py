"""fedktl artifacts: what is in the store."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedktl_cli import completion
from fedktl_cli.commands import Group
from fedktl_cli.options import Json
from fedktl_cli.terminal import Terminal, guarded, here, safe
from stages.artifacts.refs import FOLDERS
from stages.errors import Interrupted, UserError
from stages.settings import MOST

if TYPE_CHECKING:
    from stages.artifacts.listing import Entry

app = typer.Typer(help="List, check, export and remove artifacts.", cls=Group)
Reference = Annotated[
    str,
    typer.Argument(help="NAME, NAME@v3 or KIND/NAME@v3.", metavar="REF", autocompletion=completion.artifacts()),
]


def _made(terminal: Terminal, entry: Entry) -> str:
    """When it was made, how much of it is done, or that it is damaged."""
    from stages.artifacts.partial import progress

    if not entry.finished:
        return f"unfinished, {progress(entry.path)} {'rounds' if entry.ref.kind == 'run' else 'latents'} done"
    try:
        return str(terminal.store.open(entry.ref).attributes.get("created"))
    except UserError:
        return "damaged"


@app.command("ls", hidden=True)
@app.command("list")
@guarded
def list_artifacts(context: typer.Context, json: Json = False) -> None:
    """List every artifact, and what can be resumed.

    [dim]fedktl artifacts list[/], or [dim]fedktl artifacts ls[/]
    """
    from stages.artifacts.listing import listed

    terminal = here(context)
    rows = [
        {"kind": entry.ref.kind, "ref": str(entry.ref), "created": _made(terminal, entry)}
        for entry in listed(terminal.store)
    ]
    if json:
        terminal.json({"artifacts": rows})
        return
    if not rows:
        terminal.say(f"{terminal.store.root} holds no artifacts yet; `fedktl demo` makes some.")
        return
    from fedktl_cli import tables

    terminal.show(
        tables.plain(["artifact", "kind", "created"], [[r["ref"], r["kind"], r["created"]] for r in rows], left=3)
    )


@app.command("show")
@guarded
def show(context: typer.Context, ref: Reference, json: Json = False) -> None:
    """Show the attributes and arrays of an artifact.

    [dim]fedktl artifacts show digits@v1[/]
    """
    from stages.artifacts.listing import find

    terminal = here(context)
    entry = find(terminal.store, ref)
    told = _published(terminal, entry) if entry.finished else _going(entry)
    if json:
        terminal.json(told)
        return
    from fedktl_cli import tables

    terminal.show(tables.artifact(str(entry), told))


def _published(terminal: Terminal, entry: Entry) -> dict[str, Any]:
    artifact = terminal.store.open(entry.ref)
    size = sum(file[0] for file in artifact.attributes["manifest"].values())
    attributes = {name: value for name, value in artifact.attributes.items() if name not in ("manifest", "rows")}
    arrays = {
        name: {"shape": list(array.shape), "dtype": str(array.dtype)} for name, array in artifact.arrays().items()
    }
    return {"ref": str(entry.ref), "path": str(entry.path), "bytes": size, **attributes, "arrays": arrays}


def _going(entry: Entry) -> dict[str, Any]:
    from stages.artifacts.partial import facts, progress

    unit = "rounds" if entry.ref.kind == "run" else "latents"
    state = {"kind": entry.ref.kind, "state": "unfinished", f"{unit}_done": progress(entry.path)}
    return {"ref": str(entry.ref), "path": str(entry.path), "bytes": entry.bytes, **state, **facts(entry.path)}


@app.command("verify")
@guarded
def verify(
    context: typer.Context,
    refs: Annotated[list[str] | None, typer.Argument(help="Artifacts; default: all.", metavar="REF")] = None,
) -> None:
    """Read every byte of artifacts (default: all) and compare the checksums.

    [dim]fedktl artifacts verify fedktl-digits-s0@v1[/]
    """
    terminal = here(context)
    wanted = [terminal.store.resolve(ref) for ref in refs or []] or [r for k in FOLDERS for r in terminal.store.refs(k)]
    if not wanted:
        raise UserError(f"There is no artifact in {terminal.store.root} yet.")
    damaged = []
    with terminal.observer() as observer:
        observer.start("verifying", len(wanted))
        for ref in wanted:
            try:
                terminal.store.open(ref, thorough=True)
            except UserError as error:
                damaged.append(str(error))
            observer.advance()
    for sentence in damaged:
        terminal.tell(sentence)
    if damaged:
        raise UserError(f"{len(damaged)} of {len(wanted)} artifacts are damaged.")
    terminal.show(f"{len(wanted)} artifacts are whole.")


@app.command("lineage")
@guarded
def lineage(context: typer.Context, ref: Reference, json: Json = False) -> None:
    """Show what an artifact was made from, back to the beginning.

    [dim]fedktl artifacts lineage demo[/]
    """
    from rich.text import Text
    from rich.tree import Tree

    from stages.artifacts.lineage import Node
    from stages.artifacts.lineage import lineage as trace

    terminal = here(context)

    def grow(tree: Tree, node: Node) -> Tree:
        for role, child in node.sources.items():
            grow(tree.add(Text(safe(f"{role}: {child}"))), child)
        return tree

    root = trace(terminal.store, ref)
    if json:
        terminal.json(root.as_dict())
    else:
        terminal.show(grow(Tree(Text(safe(str(root)))), root))


@app.command("export")
@guarded
def export(
    context: typer.Context,
    ref: Reference,
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.", metavar="DIR")],
    format: Annotated[
        str | None,
        typer.Option("--format", help="npz (default), pfllib, or share: data of --client.", metavar="TEXT"),
    ] = None,
    client: Annotated[
        int | None,
        typer.Option("--client", help="This client's data only, as a store of its own.", min=0, max=MOST),
    ] = None,
) -> None:
    """Write an artifact for other programs: data as PFLlib folders or npz, the metrics of a run as npz.

    [dim]fedktl artifacts export digits --format pfllib digits-pfllib[/]

    [dim]fedktl artifacts export digits --client 3 share-of-3[/]
    """
    from stages.export import export as write

    terminal = here(context)
    for path in write(terminal.store.open(ref), format, folder, client):
        terminal.show(str(path))


Url = Annotated[str, typer.Argument(help="s3://, gs://, az://, https:// (pull only), or a folder.", metavar="URL")]


@app.command("push")
@guarded
def push(context: typer.Context, ref: Reference, url: Url) -> None:
    """Send an artifact to an object store or a folder. After an interruption, the same command continues.

    Credentials come from the environment: AWS_ACCESS_KEY_ID, AZURE_STORAGE_ACCOUNT_KEY, GOOGLE_APPLICATION_CREDENTIALS ...

    [dim]fedktl artifacts push digits s3://bucket/digits.zarr[/]
    """
    from stages.artifacts.travel import push as send

    terminal = here(context)
    with terminal.observer() as observer:
        remote = send(terminal.store, terminal.store.resolve(ref), url, observer)
    terminal.show(str(remote))


@app.command("pull")
@guarded
def pull(
    context: typer.Context,
    url: Url,
    ref: Annotated[str, typer.Argument(help="NAME, or NAME@v3 to keep a number.", metavar="REF")],
) -> None:
    """Get an artifact that was pushed; it appears once all of it has arrived and its seal is right.

    [dim]fedktl artifacts pull s3://bucket/digits.zarr digits[/]
    """
    from stages.artifacts.travel import pull as get
    from stages.report import lay_missing

    terminal = here(context)
    with terminal.observer() as observer:
        artifact = get(terminal.store, url, ref, observer)
    if artifact.kind == "report":
        lay_missing(terminal.store)
    terminal.show(f"{artifact.kind}/{artifact.ref}")


Yes = Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")]
Patterns = typer.Argument(
    help="References, or patterns such as 'local-*' or 'report/*'.",
    metavar="REF",
    autocompletion=completion.artifacts(),
)


@app.command("remove")
@guarded
def remove(context: typer.Context, refs: Annotated[list[str], Patterns], yes: Yes = False) -> None:
    """Remove versions of artifacts (NAME alone means the newest) and unfinished work, after asking.

    [dim]fedktl artifacts remove digits@v1 'local-*' --yes[/]
    """
    from stages.artifacts.listing import picked

    terminal = here(context)
    _remove(terminal, picked(terminal.store, refs), yes)


@app.command("prune")
@guarded
def prune(
    context: typer.Context,
    refs: Annotated[list[str] | None, Patterns] = None,
    keep: Annotated[int, typer.Option("--keep", help="Versions of each name to keep.", min=1, max=MOST)] = 1,
    yes: Yes = False,
) -> None:
    """Remove all but the newest versions of each name, after asking. Unfinished work is kept.

    [dim]fedktl artifacts prune --keep 2 'fedktl-*'[/]
    """
    from stages.artifacts.listing import outdated

    terminal = here(context)
    found = outdated(terminal.store, keep, refs or [])
    if not found:
        terminal.say(f"Nothing has more than {keep} version{'s' * (keep > 1)}.")
        return
    _remove(terminal, found, yes)


def _remove(terminal: Terminal, entries: list[Entry], yes: bool) -> None:
    """List what is to be removed, ask, and remove it."""
    from fedktl_cli import tables
    from stages.reporting.numbers import size

    if not yes:
        rows = [[str(entry), "" if entry.finished else "unfinished", size(entry.bytes)] for entry in entries]
        terminal.show(tables.plain(["to be removed", "", "size"], rows, left=2))
        if not sys.stdin.isatty():
            raise UserError("Nothing was removed: there is no terminal to ask for confirmation; add --yes.")
        if not typer.confirm("Remove this for good?", err=True):
            raise Interrupted("Nothing was removed.")
    for entry in entries:
        entry.remove(terminal.store)
        terminal.say(f"Removed {entry}")


@app.command("gc")
@guarded
def gc(context: typer.Context) -> None:
    """Remove temporary folders of killed processes, and write report pages that are missing. Unfinished runs stay.

    [dim]fedktl artifacts gc[/]
    """
    from stages.report import lay_missing

    terminal = here(context)
    found = terminal.store.leftovers()
    for path in found:
        shutil.rmtree(path, ignore_errors=True)
    terminal.show(f"Removed {len(found)} left-over folders.")
    for path in lay_missing(terminal.store):
        terminal.show(str(path))
