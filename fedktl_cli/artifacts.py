"""fedktl artifacts: what is in the store."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from fedktl_cli.options import Json
from fedktl_cli.terminal import Terminal, guarded, here, safe
from stages.artifacts.partial import progress, unfinished
from stages.artifacts.refs import FOLDERS
from stages.errors import UserError
from stages.settings import MOST

app = typer.Typer(help="List, check, export and remove artifacts.", no_args_is_help=True)
Reference = Annotated[str, typer.Argument(help="NAME, NAME@v3 or KIND/NAME@v3.", metavar="REF")]


@app.command("list")
@guarded
def list_artifacts(context: typer.Context, json: Json = False) -> None:
    """List every artifact, and what can be resumed.

    [dim]fedktl artifacts list[/]
    """
    terminal = here(context)
    rows = []
    for kind in FOLDERS:
        for ref in terminal.store.refs(kind):
            try:
                made = str(terminal.store.open(ref).attributes.get("created"))
            except UserError:
                made = "damaged"
            rows.append({"kind": kind, "ref": str(ref), "created": made})
        for path in unfinished(terminal.store, kind):
            done = f"unfinished, {progress(path)} {'rounds' if kind == 'run' else 'latents'} done"
            rows.append({"kind": kind, "ref": f"{path.parent.name}@{path.stem}", "created": done})
    if json:
        terminal.json({"artifacts": rows})
        return
    if not rows:
        terminal.say(f"{terminal.store.root} holds no artifacts yet; `fedktl demo` makes some.")
        return
    from fedktl_cli import tables

    terminal.show(tables.plain(["artifact", "kind", "created"], [[r["ref"], r["kind"], r["created"]] for r in rows]))


@app.command("show")
@guarded
def show(context: typer.Context, ref: Reference, json: Json = False) -> None:
    """Show the attributes and arrays of an artifact.

    [dim]fedktl artifacts show digits@v1[/]
    """
    terminal = here(context)
    artifact = terminal.store.open(ref)
    facts = {name: value for name, value in artifact.attributes.items() if name not in ("manifest", "rows")}
    arrays = {
        name: {"shape": list(array.shape), "dtype": str(array.dtype)} for name, array in artifact.arrays().items()
    }
    size = sum(entry[0] for entry in artifact.attributes["manifest"].values())
    if json:
        terminal.json({"ref": str(artifact.ref), "path": str(artifact.path), "bytes": size, **facts, "arrays": arrays})
        return
    from rich.pretty import Pretty

    from fedktl_cli import tables

    terminal.show(f"{artifact.kind}/{artifact.ref}  {artifact.path}  {size:,} bytes")
    terminal.show(Pretty(facts, expand_all=False))
    rows = [[name, "x".join(map(str, a["shape"])) or "-", a["dtype"]] for name, a in sorted(arrays.items())]
    terminal.show(tables.plain(["array", "shape", "dtype"], rows))


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


@app.command("remove")
@guarded
def remove(context: typer.Context, ref: Reference) -> None:
    """Remove one version of an artifact (NAME alone means the newest), or an unfinished run.

    [dim]fedktl artifacts remove digits@v1[/]
    """
    terminal = here(context)
    for kind in FOLDERS:
        for path in unfinished(terminal.store, kind):
            if ref.removeprefix(f"{kind}/") == f"{path.parent.name}@{path.stem}":
                _discard(terminal, path)
                return
    full = terminal.store.resolve(ref)
    terminal.store.remove(full)
    terminal.say(f"Removed {full.kind}/{full}")


def _discard(terminal: Terminal, path: Path) -> None:
    from stages.artifacts.partial import Partial

    Partial.reopen(path).discard()
    terminal.say(f"Removed the unfinished {path}")


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
