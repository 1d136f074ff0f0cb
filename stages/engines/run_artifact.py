"""A run's state as an artifact, and back."""

from __future__ import annotations

import numpy as np
import torch
from safetensors.torch import load, save

from stages.artifacts.partial import Partial
from stages.artifacts.store import Artifact, Store, Writer
from stages.engines import checkpoint
from stages.engines.federation import Federation, State
from stages.engines.plan import RunSpec, data_spec_of
from stages.foreign import understood
from stages.models import split


def publish(store: Store, partial: Partial, spec: RunSpec, federation: Federation, state: State) -> Artifact:
    """Write the run artifact under the version reserved for it."""
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
            "parameters": [size[name] for name in names],
        }  # fmt: skip
        write_history(writer, federation, state)
        for number, client in enumerate(state.clients):
            writer.array(f"clients/{number:03d}", blob(checkpoint.client_weights(client)))
            predictor = spec.algorithm.predictor(spec.hyper, federation.shared, client, state.download)
            writer.attributes["predicts"] = predictor.rule
            if predictor.tensors:
                writer.array(f"predictors/{number:03d}", blob(checkpoint.packed(predictor.tensors)))
        rest = {
            name: value
            for name, value in checkpoint.pack(state).items()
            if "/model/" not in name and not name.startswith("history/")
        }
        writer.array("checkpoint", blob(save(rest)))
    assert writer.ref is not None
    return store.open(writer.ref)


def write_history(writer: Writer, federation: Federation, state: State) -> None:
    """All series as arrays; a run without pairs has empty ones."""
    series = state.history.tensors()
    for name in ("test", "validation"):
        series[f"rounds/{name}_samples"] = federation.sizes[name]
    series.setdefault("pairs/rounds", torch.zeros(0, dtype=torch.int64))
    series.setdefault("pairs/labels", torch.zeros(0, 0, dtype=torch.int64))
    series.setdefault("pairs/images", torch.zeros(0, 0, 3, 1, 1, dtype=torch.uint8))
    series["pairs/centroids"] = getattr(state.server, "centroids", torch.zeros(0, 0)).detach().cpu()
    for name, values in series.items():
        writer.array(name, values.numpy())


@understood("A part of the finished run")
def packed_run(artifact: Artifact) -> dict[str, torch.Tensor]:
    """A finished run as the checkpoint it would have left."""
    packed = load(artifact.array("checkpoint").tobytes())
    packed["rounds"].item()  # there is one number of rounds
    for number in artifact.names("clients"):
        weights = load(artifact.array(f"clients/{number}").tobytes())
        packed |= {f"clients/{number}/model/{name}": value for name, value in weights.items()}
    own = {"rounds/test_samples", "rounds/validation_samples", "pairs/centroids"}
    for group in ("rounds", "seconds", "client_metrics", "server_metrics", "pairs", "faults"):
        for name in artifact.names(group):
            if f"{group}/{name}" not in own:
                packed[f"history/{group}/{name}"] = torch.from_numpy(artifact.array(f"{group}/{name}"))
    return packed


def blob(content: bytes) -> np.ndarray:
    return np.frombuffer(content, dtype=np.uint8)
