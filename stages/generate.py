"""Stage two: generator weights -> a bank of latents and the images rendered from them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from stages import npy, plugins
from stages.artifacts.partial import Partial, find_unfinished
from stages.artifacts.refs import Ref
from stages.artifacts.schemas import read_run
from stages.artifacts.store import Artifact, Store
from stages.devices import device
from stages.errors import Interrupted, UserError, printable
from stages.generators import registry
from stages.generators.protocol import Generator
from stages.observer import SILENT, Observer
from stages.pixels import resized
from stages.randomness import Rng
from stages.settings import Generate


@dataclass(frozen=True)
class Job:
    """What to render, and with which generator."""

    settings: Generate
    generator: Generator
    given: Tensor | None  # latents float32 [n, H], if they are not drawn
    made_from: Mapping[str, Artifact]

    @property
    def total(self) -> int:
        return self.settings.samples if self.given is None else len(self.given)

    @property
    def size(self) -> int:
        return self.settings.image_size or self.generator.resolution

    def inputs(self) -> dict[str, Any]:
        """What must not change while a bank is rendered."""
        given = None if self.given is None else hashlib.sha256(self.given.numpy().tobytes()).hexdigest()
        return {"generator": dict(self.generator.descriptor), "given": given}


def generate(store: Store, name: str, settings: Generate, observer: Observer = SILENT) -> Artifact:
    """Write a latents artifact: latents float32 [n, H], images uint8 [n, 3, size, size], and what rendered them.

    Latents are drawn, or given by `from_latents`; each batch depends only on (seed, its first row), and memory holds one
    batch. Raises Interrupted when the observer asks to stop; `resume` continues from there.
    """
    job = planned(store, settings)
    partial = Partial.begin(store, "latents", name, {"settings": settings.as_dict(), **job.inputs()})
    return finish(store, partial, job, observer)


def resume(store: Store, ref: str, generator: str | None = None, observer: Observer = SILENT) -> Artifact:
    """Render what is missing in an unfinished bank; UserError if its generator or latents have changed.

    If it is rendered by the user's own code, `generator` must name that code again.
    """
    path = find_unfinished(store, Ref.parse(ref), "latents")
    if path is None:
        raise UserError(
            f"There is no unfinished bank {ref} in {store.root}; `fedktl artifacts list` shows what is there."
        )
    with closing(Partial.reopen(path)) as partial:
        settings = Generate.make(partial.facts["settings"])
        if generator not in (None, settings.generator):
            raise UserError(f"{partial.ref} is rendered by {settings.generator}; resuming can't change that.")
        with plugins.only(generator):
            job = planned(store, settings)
        for what, value in job.inputs().items():
            if value != partial.facts[what]:
                source = settings.from_latents if what == "given" else settings.weights or settings.generator
                raise UserError(
                    f"{source} has changed since {partial.ref} was started; restore it, or generate a new bank."
                )
        return finish(store, partial, job, observer)


def planned(store: Store, settings: Generate) -> Job:
    generator = registry.make(settings, device(settings.device))
    return Job(settings, generator, *given_latents(store, settings.from_latents, generator.latent_dim))


def finish(store: Store, partial: Partial, job: Job, observer: Observer) -> Artifact:
    """Render the missing batches, and publish."""
    try:
        with store.writable(partial.path):
            render(partial, job, observer)
    except Exception:
        partial.close() if partial.whole() else partial.discard()  # keep what can be resumed
        raise
    artifact = publish(store, partial, job)
    partial.discard()
    return artifact


def render(partial: Partial, job: Job, observer: Observer) -> None:
    """Save each missing batch as one piece: latents and images."""
    rng, step = Rng(job.settings.seed), job.settings.batch_size
    batches = [slice(start, min(start + step, job.total)) for start in range(0, job.total, step)]
    done = partial.whole()
    missing = [rows for rows in batches if rows.start not in done]
    observer.start("rendering", job.total, job.total - sum(rows.stop - rows.start for rows in missing))
    for rows in missing:
        if observer.stop_requested():
            raise Interrupted(
                f"Stopped at latent {rows.start} of {job.total}; continue with "
                f"{plugins.resumed(partial.ref, generator=job.settings.generator)}."
            )
        if job.given is None:
            latents = job.generator.sample_latents(rows.stop - rows.start, rng.torch("latents", rows.start))
        else:
            latents = job.given[rows]
        images = resized(job.generator.render(latents), job.size)
        save(partial, rows.start, latents, images)
        observer.advance(rows.stop - rows.start)
    observer.finish()


def save(partial: Partial, start: int, latents: Tensor, images: Tensor) -> None:
    piece = {"latents": latents.float().cpu().contiguous(), "images": images.cpu().contiguous()}
    partial.save(start, lambda path: save_file(piece, path), alone=False)


def publish(store: Store, partial: Partial, job: Job) -> Artifact:
    """Publish all pieces with the version reserved for them."""
    ref, settings = partial.ref, job.settings
    with store.write("latents", ref.name, settings.as_dict(), settings.seed, job.made_from, ref.version) as writer:
        latents = writer.empty("latents", (job.total, job.generator.latent_dim), "float32")
        images = writer.empty("images", (job.total, 3, job.size, job.size), "uint8")
        end = 0
        for start, path in partial.whole().items():
            if start != end:
                break
            piece = load_file(path)
            end += len(piece["latents"])
            latents[start:end], images[start:end] = piece["latents"].numpy(), piece["images"].numpy()
        if end != job.total:
            raise UserError(f"A piece in {partial.path} was damaged; continue with `resume={ref}`.")
        for name, embedding in getattr(job.generator, "embeddings", {}).items():
            writer.array(f"embeddings/{name}", embedding.float().cpu().numpy())
        writer.attributes["generator"] = dict(job.generator.descriptor)
        return writer.publish()


def given_latents(store: Store, source: str | None, width: int) -> tuple[Tensor | None, dict[str, Artifact]]:
    """Latents float32 [n, width] from a .npy or .npz file (its first array) or a run's centroids; None without a source."""
    if source is None:
        return None, {}
    made_from: dict[str, Artifact] = {}
    if Path(source).suffix in (".npy", ".npz"):
        values = from_file(Path(source))
    else:
        made_from["run"] = store.open(source, "run")
        values = read_run(made_from["run"]).centroids
    if values.dtype.kind != "f" or values.ndim != 2 or not len(values) or values.shape[1] != width:
        raise UserError(f"{source} holds {values.dtype} {values.shape}; this generator takes floats [n, {width}].")
    with np.errstate(over="ignore"):
        latents = values.astype(np.float32)
    if not np.isfinite(latents).all():
        raise UserError(
            f"{source} holds a latent that is not a finite float32; every value must be a number below 3.4e38."
        )
    return torch.from_numpy(latents), made_from


def from_file(path: Path) -> np.ndarray:
    try:
        return npy.first(path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} can't be read as latents ({printable(str(error))}); give a .npy or .npz of floats [n, H]."
        ) from error
