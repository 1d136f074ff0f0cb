"""The clients of a run, out of what the run keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stages.algorithms.common.records import below
from stages.artifacts import schemas
from stages.artifacts.store import Artifact, Store
from stages.engines.plan import RunSpec, data_spec_of, planned_again
from stages.engines.run_artifact import read_state
from stages.errors import UserError, printable
from stages.means import selected
from stages.models import split
from stages.standalone.client import Client, Description

LAST, SELECTED = "", "selected/"  # groups of a run's weights


@dataclass(frozen=True)
class Trained:
    """A client, and what its run records about it."""

    client: Client
    number: int
    accuracy: float  # on its test images, in 0..1; NaN without any
    images: Tensor  # its test images, uint8 [n, 3, size, size]
    labels: Tensor  # int64 [n]


@dataclass(frozen=True)
class Clients:
    """The clients of a run after one of its rounds."""

    run: Artifact
    weights: str  # last or selected
    round: int
    licence: str | None  # of the generator whose pairs they were trained on
    _spec: RunSpec
    _group: str
    _accuracy: np.ndarray  # float64 [clients]

    def __len__(self) -> int:
        return len(self._accuracy)

    @property
    def data(self) -> Artifact:
        assert isinstance(self._spec.data, Artifact)
        return self._spec.data

    def __getitem__(self, number: int) -> Trained:
        """UserError for a client that the run does not have."""
        if not 0 <= number < len(self):
            raise UserError(f"{self.run.ref} has no client {number}; its clients are 0 to {len(self) - 1}.")
        path = schemas.client_path(number)
        if f"{self._group}{path}" not in self.run:
            raise UserError(f"Client {number} never trained in {self.run.ref}, which kept no weights of it.")
        packed = read_state(self.run, self._group, path)
        private, download = below(packed, f"{path}/private"), below(packed, "download")
        values = below(packed, f"{path}/model")
        values |= {f"private.{k}": value for k, value in private.items()}
        values |= {f"download.{k}": value for k, value in download.items()}
        description = describe(self._spec, self.data, number, bool(download))
        images, labels = map(torch.from_numpy, schemas.read_share(self.data, number)["test"])
        client = Client(description, self._spec.hyper.as_dict(), values)
        return Trained(client, number, float(self._accuracy[number]), images, labels)


def clients(store: Store, run: Artifact, weights: str | None = None) -> Clients:
    """The clients as the run kept them, by default after its last round.

    UserError for weights that it has not kept, and for data or latents that are gone.
    """
    content = schemas.read_run(run)
    if "weights" in content.facts.get("federation", {}):
        raise UserError(
            f"The models of {run.ref} are on the clients' own machines, in the stores that they joined with."
        )
    kept, group = kept_weights(content, weights)
    spec = planned_again(store, content.facts, {})
    done = int(read_state(run, group, only="")["rounds"])
    (at,) = np.flatnonzero(content.evaluated == done)
    licence = spec.latents and schemas.descriptor(spec.latents).get("licence")
    return Clients(
        run, kept, done, printable(str(licence)) if licence else None, spec, group, content.test_accuracy[at]
    )  # fmt: skip


def kept_weights(run: schemas.Run, wanted: str | None) -> tuple[str, str]:
    """Which of the weights that a run kept are meant, and their group; UserError if it has not kept them."""
    has_last, has_selected = (f"{group}checkpoint" in run.artifact for group in (LAST, SELECTED))
    wanted = wanted or ("last" if has_last else "selected")
    if wanted == "last" and has_last:
        return wanted, LAST
    if wanted == "selected" and has_selected:
        return wanted, SELECTED
    best = selected(run.validation_accuracy, run.validation_samples)
    if wanted == "selected" and has_last and best == len(run.evaluated) - 1:  # the last round is the selected one
        return wanted, LAST
    raise UserError(f"{run.artifact.ref} kept no weights of its {wanted} round; `keep` says which a run keeps.")


def describe(spec: RunSpec, data: Artifact, number: int, arrived: bool) -> Description:
    """UserError for images that are not square colour images."""
    data_spec, settings = data_spec_of(data), spec.settings
    _, names = schemas.read_counts(data)
    channels, height, width = data_spec.shape
    if channels != 3 or height != width:
        raise UserError(
            f"{data.ref} has images {channels}x{height}x{width}; a client can be used on its own only with 3xNxN ones."
        )
    facts: dict[str, Any] = {
        "architecture": split.architectures(settings.models, data_spec.clients)[number],
        "feature_dim": settings.feature_dim, "precision": settings.precision, "channels_last": settings.channels_last,
        "image_size": height, "squeeze": bool(data.settings.get("squeeze", False)), "class_names": names,
        "algorithm": spec.algorithm.name, "seed": spec.seed, "clients": data_spec.clients,
        "latent_dim": spec.latents.shape("latents")[1] if spec.latents else 0, "arrived": arrived,
    }  # fmt: skip
    return Description.make(facts)
