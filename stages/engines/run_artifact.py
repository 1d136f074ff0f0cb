"""A run's state as an artifact, and back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from stages.artifacts.partial import Partial
from stages.artifacts.store import Artifact, Store, Writer
from stages.engines import checkpoint
from stages.engines.federation import Federation, State
from stages.engines.plan import RunSpec, data_spec_of
from stages.errors import UserError
from stages.foreign import understood
from stages.models import split


def publish(store: Store, partial: Partial, spec: RunSpec, federation: Federation, state: State) -> Artifact:
    """Write the run artifact with the version reserved for it."""
    ref = partial.ref
    with store.write("run", ref.name, spec.facts()["settings"], spec.seed, spec.sources, ref.version) as writer:
        names, data_spec = split.architectures(spec.settings.models, federation.clients), data_spec_of(spec.data)
        size = {
            name: split.parameters(
                split.meta_model(name, data_spec.shape, data_spec.classes, spec.settings.feature_dim)
            )
            for name in set(names)
        }
        writer.attributes["facts"] = spec.facts() | {
            "rounds": state.rounds, "data": str(spec.data.ref), "latents": str(spec.latents.ref) if spec.latents else None,
            "models": spec.settings.models, "architectures": names, "device": str(federation.device),
            "parameters": [size[name] for name in names], "server_metrics": dict(spec.algorithm.server_metrics),
        }  # fmt: skip
        write_history(writer, federation, state)
        for number, client in enumerate(state.clients):
            predictor = spec.algorithm.predictor(spec.hyper, federation.shared, client, state.download)
            writer.attributes["predicts"] = predictor.rule
            if predictor.tensors:
                writer.array(f"predictors/{number:03d}", blob(checkpoint.packed(predictor.tensors)))
        write_weights(writer, spec.settings.keep, checkpoint.pack(state))
    assert writer.ref is not None
    return store.open(writer.ref)


def write_history(writer: Writer, federation: Federation, state: State) -> None:
    """All series as arrays; a run without pairs gets empty ones."""
    series = state.history.tensors()
    for name in ("test", "validation"):
        series[f"rounds/{name}_samples"] = federation.sizes[name]
    series.setdefault("pairs/rounds", torch.zeros(0, dtype=torch.int64))
    series.setdefault("pairs/labels", torch.zeros(0, 0, dtype=torch.int64))
    series.setdefault("pairs/images", torch.zeros(0, 0, 3, 1, 1, dtype=torch.uint8))
    centroids = federation.algorithm.centroids
    series["pairs/centroids"] = (torch.zeros(0, 0) if centroids is None else centroids(state.server)).detach().cpu()
    for name, values in series.items():
        writer.array(name, values.numpy())


def write_weights(writer: Writer, keep: str, packed: Mapping[str, Tensor]) -> None:
    """The weights to keep: those of the last round, and below `selected` those of the selected round if it is another."""
    selected = checkpoint.below(packed, "selected")
    if keep != "selected" or not selected:
        write_state(writer, "", {k: v for k, v in packed.items() if not k.startswith(("history/", "selected/"))})
    if selected:
        write_state(writer, "selected/", selected)


def write_state(writer: Writer, group: str, packed: Mapping[str, Tensor]) -> None:
    """A blob of weights for every client, and one of the rest."""
    rest, models = dict(packed), defaultdict[str, dict[str, Tensor]](dict)
    for path in packed:
        client, _, name = path.partition("/model/")
        if name:
            models[client][name] = rest.pop(path)
    for client, weights in models.items():
        writer.array(f"{group}{client}", blob(save(weights)))
    writer.array(f"{group}checkpoint", blob(save(rest)))


@understood("A part of the run")
def read_state(artifact: Artifact, group: str = "") -> dict[str, Tensor]:
    """What `write_state` wrote, as it was packed."""
    packed = load(artifact.array(f"{group}checkpoint").tobytes())
    packed["rounds"].item()  # raises unless it is a single number
    for number in artifact.names(f"{group}clients"):
        weights = load(artifact.array(f"{group}clients/{number}").tobytes())
        packed |= {f"clients/{number}/model/{name}": value for name, value in weights.items()}
    return packed


@understood("A part of the finished run")
def packed_run(artifact: Artifact) -> dict[str, Tensor]:
    """A finished run as the checkpoint that would continue it; UserError if it kept no weights of its last round."""
    if "checkpoint" not in artifact:
        raise UserError(f"{artifact.ref} kept only the weights of its selected round, so it can't be resumed.")
    packed = read_state(artifact)
    if "selected/checkpoint" in artifact:
        packed |= {f"selected/{name}": value for name, value in read_state(artifact, "selected/").items()}
    own = {"rounds/test_samples", "rounds/validation_samples", "pairs/centroids"}
    for group in ("rounds", "seconds", "client_metrics", "server_metrics", "pairs", "faults"):
        for name in artifact.names(group):
            if f"{group}/{name}" not in own:
                packed[f"history/{group}/{name}"] = torch.from_numpy(artifact.array(f"{group}/{name}"))
    return packed


def blob(content: bytes) -> np.ndarray:
    return np.frombuffer(content, dtype=np.uint8)
