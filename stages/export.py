"""Artifacts for other programs: arrays as .npz, data as PFLlib's files or as one client's share."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from stages.artifacts import schemas
from stages.artifacts.store import Artifact, Store
from stages.errors import UserError


def export(artifact: Artifact, format: str | None, folder: Path, client: int | None = None) -> list[Path]:
    """Write `artifact` into a new or empty folder, all or nothing; returns the paths of the files.

    `client` selects one client's share of data, as a separate artifact. UserError for a format that this kind of artifact
    does not have, and for a folder in use.
    """
    formats = [name for kind, name in WRITERS if kind == artifact.kind]
    if not formats:
        raise UserError(f"A {artifact.kind} can't be exported; write its table with a `format` of the report instead.")
    if format is None:
        format = "share" if artifact.kind == "data" and client is not None else "npz"
    if format not in formats:
        raise UserError(f"A {artifact.kind} artifact can be exported as {' or '.join(formats)}, not as '{format}'.")
    if client is not None and format != "share":
        raise UserError("A single client's share is exported from data (`format=share`); its model by `fedktl export`.")
    if client is None and format == "share":
        raise UserError("A share belongs to one client; name it with `client`.")
    with appearing(folder) as draft:
        WRITERS[artifact.kind, format](artifact, draft, client)
    return sorted(path for path in folder.rglob("*") if path.is_file())


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes the name of the new or empty `folder` when the block ends well; else nothing is left."""
    folder = folder.absolute()
    draft = folder.with_name(f".{uuid.uuid4().hex}")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder} is not an empty folder; give a new one.")
        draft.mkdir(parents=True)
        yield draft
        if folder.exists():
            folder.rmdir()
        draft.rename(folder)
    except OSError as error:
        raise UserError(f"{folder} can't be written ({error.strerror or error}).") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _data_npz(artifact: Artifact, folder: Path, client: int | None) -> None:
    """data.npz with Keras' names for images and labels, so that `fedktl prepare --dataset npz` reads it.

    For train, validation and test: x_train uint8 [n, height, width, channels], y_train int64 [n], offsets_train
    int64 [clients + 1] (client k has rows offsets[k]:offsets[k + 1]); counts int64 [clients, classes]; class_names.
    """
    data = schemas.read_data(artifact)
    arrays = {"counts": data.counts, "class_names": np.array(data.class_names, dtype=np.str_)}
    for name in schemas.SPLITS:
        split: schemas.Split = getattr(data, name)
        arrays[f"x_{name}"] = split.images.transpose(0, 2, 3, 1)
        arrays[f"y_{name}"], arrays[f"offsets_{name}"] = split.labels, split.offsets
    np.savez(folder / "data.npz", **arrays)  # type: ignore[arg-type]


def _data_share(artifact: Artifact, folder: Path, client: int | None) -> None:
    """A store with a data artifact of this client alone; the attribute `part_of` says which client of how many."""
    assert client is not None
    counts, class_names = schemas.read_counts(artifact)
    clients = len(counts)
    if "part_of" in artifact.attributes or client >= clients:
        raise UserError(f"{artifact.ref} has no client {client} to export; it holds {clients}.")
    name, sources = f"{artifact.ref.name}-client-{client:03d}", {"data": artifact}
    with Store(folder).write("data", name, artifact.settings, artifact.attributes["seed"], sources) as writer:
        for split, (images, labels) in schemas.read_share(artifact, client).items():
            writer.array(f"{split}/images", images)
            writer.array(f"{split}/labels", labels)
            writer.array(f"{split}/offsets", np.array([0, len(labels)]))
        writer.array("counts", counts[client : client + 1])
        writer.attributes["class_names"] = class_names
        writer.attributes["part_of"] = {"client": client, "clients": clients}


def _data_pfllib(artifact: Artifact, folder: Path, client: int | None) -> None:
    """train/0.npz, test/0.npz, ... and config.json."""
    from stages.data.pfllib import export_pfllib

    export_pfllib(schemas.read_data(artifact), folder)


def _latents_npz(artifact: Artifact, folder: Path, client: int | None) -> None:
    """latents.npz: latents float32 [n, H] and the images uint8 [n, 3, size, size] rendered from them."""
    bank = schemas.read_latents(artifact)
    np.savez(folder / "latents.npz", latents=bank.latents, images=bank.images)


def _run_npz(artifact: Artifact, folder: Path, client: int | None) -> None:
    """metrics.npz: every array of the run except models and checkpoint, under its path, such as rounds/test_accuracy."""
    held = list(artifact.arrays())
    paths = [path for part in schemas.RUN.values() for path in part.among(held)]
    np.savez(folder / "metrics.npz", **{path: artifact.array(path) for path in paths})  # type: ignore[arg-type]


WRITERS: dict[tuple[str, str], Callable[[Artifact, Path, int | None], None]] = {
    ("data", "npz"): _data_npz,
    ("data", "pfllib"): _data_pfllib,
    ("data", "share"): _data_share,
    ("latents", "npz"): _latents_npz,
    ("run", "npz"): _run_npz,
}
