"""A run's state as an artifact, and back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from stages.algorithms.common.records import below
from stages.artifacts import schemas
from stages.artifacts.partial import Partial
from stages.artifacts.store import Artifact, Store
from stages.artifacts.writer import Writer
from stages.engines import checkpoint, recording
from stages.engines.federation import Federation, State
from stages.engines.plan import RunSpec, data_spec_of
from stages.engines.shelf import FOLDER, NAMED, named, read
from stages.errors import UserError
from stages.foreign import understood
from stages.models import split

NOBODY = torch.zeros(0, 2, dtype=torch.int64)


def facts(spec: RunSpec, federation: Federation) -> dict[str, Any]:
    """What a run says of itself from its first round on."""
    names, data_spec = split.architectures(spec.settings.models, federation.clients), data_spec_of(spec.data)
    size = {
        name: split.parameters(split.meta_model(name, data_spec.shape, data_spec.classes, spec.settings.feature_dim))
        for name in set(names)
    }
    return spec.facts() | {
        "data": str(spec.data.ref), "latents": str(spec.latents.ref) if spec.latents else None,
        "models": spec.settings.models, "architectures": names, "parameters": [size[name] for name in names],
        "device": str(federation.device), "server_metrics": dict(spec.algorithm.server_metrics),
    }  # fmt: skip


def publish(store: Store, partial: Partial, spec: RunSpec, federation: Federation, state: State) -> Artifact:
    """Write the run artifact with the version reserved for it."""
    ref = partial.ref
    with store.write("run", ref.name, partial.facts["settings"], spec.seed, spec.sources, ref.version) as writer:
        writer.attributes["facts"] = partial.facts | {
            "rounds": state.rounds, "summary": recording.summary(federation, state), **promised(federation, state)
        }  # fmt: skip
        write_history(writer, federation, state)
        write_weights(writer, spec.settings.keep, checkpoint.pack(state), partial.path / FOLDER)
        return writer.publish()


def promised(federation: Federation, state: State) -> dict[str, Any]:
    """The privacy of the client that joined most often; nothing if nothing is promised. What was lost on the way counts."""
    joined = state.history.tensors().get("rounds/joined")
    promise = None if joined is None else federation.hyper.privacy(int(joined.sum(0).max()))
    return {"privacy": promise} if promise else {}


def write_history(writer: Writer, federation: Federation, state: State) -> None:
    """All series as arrays; a run without pairs gets empty ones."""
    series = state.history.tensors()
    for name in schemas.EVALUATED:
        series[f"rounds/{name}_samples"] = federation.sizes[name]
    if (centroids := federation.algorithm.centroids) is not None:
        series["pairs/centroids"] = centroids(state.server).detach().cpu()
    for part in schemas.RUN.values():
        found = part.among(series)
        for path in found:
            writer.array(path, series.pop(path).numpy())
        if not found and not part.optional:
            writer.array(part.path, part.filled({}))
    if series:
        raise KeyError(f"The table of what a run holds lacks {', '.join(series)}.")


def write_weights(writer: Writer, keep: str, packed: Mapping[str, Tensor], folder: Path) -> None:
    """The weights to keep: those of the last round, and below `selected` those of the selected round if it is another."""
    selected = below(packed, "selected")
    if keep != "selected" or not selected:
        write_state(
            writer, "", {k: v for k, v in packed.items() if not k.startswith(("history/", "selected/"))}, folder
        )
    if selected:
        write_state(writer, "selected/", selected, folder)


def write_state(writer: Writer, group: str, packed: Mapping[str, Tensor], folder: Path) -> None:
    """A blob of weights for every client, on a shelf for every one that has trained, and one of the rest."""
    rest, models = dict(packed), defaultdict[str, dict[str, Tensor]](dict)
    for file in named(rest.pop(NAMED, NOBODY)):
        values, client = read(folder, *file), schemas.client_path(file[0])
        writer.array(f"{group}{client}", blob(save(below(values, "model"))))
        rest |= {f"{client}/{path}": value for path, value in values.items() if path.startswith("private/")}
    for path in packed:
        client, _, name = path.partition("/model/")
        if name:
            models[client][name] = rest.pop(path)
    for client, weights in models.items():
        writer.array(f"{group}{client}", blob(save(weights)))
    writer.array(f"{group}checkpoint", blob(save(rest)))


@understood("A part of the run")
def read_state(artifact: Artifact, group: str = "", only: str | None = None) -> dict[str, Tensor]:
    """What `write_state` wrote, as it was packed; of the models only that at one client's path, or with "" none."""
    packed = load(artifact.array(f"{group}checkpoint").tobytes())
    packed["rounds"].item()  # raises unless it is a single number
    every = [f"clients/{number}" for number in artifact.names(f"{group}clients")]
    for client in every if only is None else filter(None, [only]):
        weights = load(artifact.array(f"{group}{client}").tobytes())
        packed |= {f"{client}/model/{name}": value for name, value in weights.items()}
    return packed


@understood("A part of the finished run")
def packed_run(artifact: Artifact) -> dict[str, Tensor]:
    """A finished run as the checkpoint that would continue it; UserError if it kept no weights of its last round."""
    if "checkpoint" not in artifact:
        raise UserError(f"{artifact.ref} kept only the weights of its selected round, so it can't be resumed.")
    packed = read_state(artifact)
    if "selected/checkpoint" in artifact:
        packed |= {f"selected/{name}": value for name, value in read_state(artifact, "selected/").items()}
    paths = list(artifact.arrays())
    series = [path for part in schemas.RUN.values() if part.history for path in part.among(paths)]
    return packed | {f"history/{path}": torch.from_numpy(artifact.array(path)) for path in series}


def blob(content: bytes) -> np.ndarray:
    return np.frombuffer(content, dtype=np.uint8)
