"""Three rounds of the baselines against numbers recorded from the public library (tests/fixtures/README.md)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stages import algorithms, presets
from stages.algorithms import fedgen
from stages.algorithms.common.batches import Batches
from stages.algorithms.common.records import tensors
from stages.algorithms.contract import ClientState, Task
from stages.models.split import SplitModel
from stages.pixels import normalised
from stages.randomness import Rng

FIXTURES = Path(__file__).parents[1] / "fixtures" / "baselines"
CLIENTS, CLASSES, WIDTH, BATCH, ROUNDS = range(3), 4, 32, 10, (1, 2, 3)
TASK = Task(len(CLIENTS), CLASSES, WIDTH, 0, 0.01, BATCH, torch.device("cpu"), (3, 16, 16))
SERVED = {"server_lr": 0.01, "server_epochs": 20, "server_batch_size": BATCH}

Named = dict[str, Tensor]


class Recorded(nn.Module):
    """The classifier that was recorded."""

    def __init__(self, channels: int, width: int = WIDTH):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, channels, 3, padding=1), nn.Linear(16 * channels, width)
        self.fc = nn.Linear(width, CLASSES)

    def forward(self, x):
        return self.fc(self.linear(F.avg_pool2d(self.conv(x).relu(), 4).flatten(1)))


def model(weights: Named, channels: int = 8, width: int = WIDTH) -> SplitModel:
    made = SplitModel(Recorded(channels, width), width, CLASSES)
    made.load_state_dict({name: value for name, value in weights.items() if "/" not in name})
    return made


def below(recorded: Mapping[str, Tensor], path: str) -> Named:
    return {name.removeprefix(f"{path}/"): value for name, value in recorded.items() if name.startswith(f"{path}/")}


def per_class(name: str, labels: Tensor, rows: Tensor) -> Named:
    """Rows as they were recorded: one of every class, zeros where there is none."""
    table, present = torch.zeros(CLASSES, rows.shape[1]), torch.zeros(CLASSES, dtype=torch.bool)
    table[labels], present[labels] = rows, True
    return {name: table, f"{name}_present": present}


def layers(module: Any, names: Mapping[str, str]) -> Named:
    """The state of numbered layers under their recorded names."""
    numbered = [(name.partition("."), value) for name, value in tensors(module).items()]
    return {f"{names[number]}.{part}": value for (number, _, part), value in numbered if number in names}


TGP = {"0": "embedding", "1": "hidden", "3": "out"}
GENERATOR = {"0": "hidden", "1": "norm", "3": "out"}


def prefixed(prefix: str, values: Mapping[str, Tensor]) -> Named:
    return {f"{prefix}{name}": value for name, value in values.items()}


def numbered(recorded: Named, names: Mapping[str, str]) -> Named:
    """The inverse of `layers`."""
    back = {name: number for number, name in names.items()}
    return {f"{back[name.partition('.')[0]]}.{name.partition('.')[2]}": value for name, value in recorded.items()}


# What an algorithm starts from, as it was recorded; each changes what `init` gave.


def from_nothing(recorded, state, shared, clients):
    return state, shared


def from_head(recorded, state, shared, clients):
    head = {name: recorded[f"init/server/head.{name}"] for name in ("weight", "bias")}
    if state is not None:
        state.head.load_state_dict(head)
    return state, replace(shared, head=head)


def from_generator(recorded, state, shared, clients):
    _, shared = from_head(recorded, None, shared, clients)
    state.generator.load_state_dict(numbered(below(recorded, "init/server/generator"), GENERATOR))
    return state, shared


def from_prototypes(recorded, state, shared, clients):
    state.prototypes.load_state_dict(numbered(below(recorded, "init/server/tgp"), TGP))
    return state, shared


def from_auxiliary(recorded, state, shared, clients):
    start = below(recorded, "init/server/aux")
    for number, client in enumerate(clients):
        client.private = below(recorded, f"init/client{number}/proj")
    return state, replace(shared, start=model(start, width=len(start["base.linear.bias"])))


def from_vectors(recorded, state, shared, clients):
    return replace(state, vectors=recorded["init/server/guiding"]), replace(
        shared, start=recorded["init/server/guiding"]
    )


# What it shows of an upload, and of what its server made: (state, download, metrics) -> numbers by name.


def nothing(*_):
    return {}


def head(state, download, metrics):
    return prefixed("head.", download.head)


def head_and_generator(state, download, metrics):
    made = layers(download.generator, GENERATOR)
    del made["hidden.bias"]  # BatchNorm cancels it: its gradient is rounding, Adam makes it steps
    return head(state, download, metrics) | prefixed("generator/", made)


def prototypes(record, *_):
    return per_class("prototypes", record.labels, record.prototypes)


def auxiliary(state, download, metrics):
    return prefixed("aux/", download.weights)


def trained_prototypes(state, download, metrics):
    return prototypes(download) | {"margin": metrics["margin"]} | prefixed("tgp/", layers(state.prototypes, TGP))


@dataclass(frozen=True)
class Case:
    algorithm: str
    numbers: Mapping[str, Any]  # hyperparameters as they were
    start: Callable[..., Any] = from_nothing
    uploaded: Callable[..., Named] = nothing
    served: Callable[..., Named] = nothing
    reference: bool = True  # with the choices of the preset that behaves as the library; without: the defaults


def proto(**more):
    return Case("fedproto", {"lambda": 10, **more}, uploaded=prototypes, served=lambda s, d, m: prototypes(d))


def tgp(**more):
    return Case("fedtgp", {"lambda": 10, **SERVED}, from_prototypes, prototypes, trained_prototypes, **more)


def mutual(**more):
    return Case("fml", {"alpha": 0.5, "beta": 0.5}, from_auxiliary, served=auxiliary, **more)


def distilled(**more):
    def outputs(record):
        return per_class("outputs", record.labels, record.outputs)

    return Case("fd", {"gamma": 1}, uploaded=outputs, served=lambda s, d, m: outputs(d), **more)


def fused(**more):
    return Case("fedmrl", {"sub_feature_dim": 16}, from_auxiliary, served=auxiliary, **more)


def guided():
    return Case(
        "fedl2g", {"server_lr": 10}, from_vectors, lambda u: per_class("gradients", u.labels, u.gradients),
        lambda s, d, m: {"guiding": d.vectors},
    )  # fmt: skip


CASES = {
    "local": Case("local", {}),
    "lg-fedavg": Case("lg-fedavg", {}, from_head, served=head),
    "fedproto": proto(),
    "fedproto-after": proto(collected="after"),
    "fedgh": Case("fedgh", SERVED, from_head, prototypes, head),
    "fedgen": Case(
        "fedgen", {"generator_lr": 0.005, "server_epochs": 20, "noise_dim": 8, "hidden_dim": 24}, from_generator,
        served=head_and_generator,
    ),
    "fedtgp": tgp(),
    "fedtgp-paper-margin": tgp(reference=False),
    "fml": mutual(),
    "fml-repaired": mutual(reference=False),
    "fd": distilled(),
    "fd-own-out": distilled(reference=False),
    "fedl2g": guided(),
    "fedl2g-onebatch": guided(),
    "fedmrl": fused(),
    "fedmrl-weighted": fused(reference=False),
}  # fmt: skip


def read(name: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for part in ("common", name):
        with np.load(FIXTURES / f"{part}.npz") as arrays:
            found |= {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    return found


def recorded_draws(recorded: dict[str, Tensor]):
    """FedGen's draws in the order in which they are asked for: the clients' from round 2 on, then the server's."""
    for round in ROUNDS:
        for who in (*(f"client{client}" for client in CLIENTS), "server"):
            drawn = below(recorded, f"round{round}/{who}/draw")
            if drawn:
                yield drawn["labels"], torch.cat([drawn["noise"], F.one_hot(drawn["labels"], CLASSES)], -1)


def shown_on_test_images(case: Case, hyper: Any, shared: Any, client: ClientState, download: Any, x: Tensor) -> Named:
    own, scores = client.model.eval()(x), algorithms.get(case.algorithm).predict(hyper, shared, client, download, x)
    shown = {"predicted": scores.argmax(1)}
    if case.algorithm in ("fedproto", "fedtgp"):
        return shown | {"logits": own, "distances": -scores / WIDTH}
    return shown | {"logits": scores, "logits_before_download": own}


@pytest.mark.parametrize("name", CASES)
def test_three_rounds_as_they_were_recorded(name, monkeypatch):
    recorded, case, rng = read(name), CASES[name], Rng(0)
    algorithm = algorithms.get(case.algorithm)
    library = presets.load("reference").algorithms.get(case.algorithm, {}) if case.reference else {}
    hyper = algorithm.Hyper.make(library, case.numbers)
    draws = recorded_draws(recorded)
    monkeypatch.setattr(fedgen, "draws", lambda *_: next(draws))
    if name == "fedl2g":  # the study batch was not drawn, but the first
        monkeypatch.setattr(torch, "randperm", lambda n, generator: torch.arange(n))
    shares = {(c, s): (recorded["client"] == c) & (recorded["split"] == s) for c in CLIENTS for s in (0, 1)}
    own = {c: (recorded["images"][shares[c, 0]], recorded["labels"][shares[c, 0]]) for c in CLIENTS}
    clients = [ClientState(model(below(recorded, f"init/client{c}"), 12 if c == 1 else 8)) for c in CLIENTS]
    state, shared = case.start(recorded, *algorithm.init(hyper, TASK, rng), clients)
    download, uploads, seen = None, {}, set()

    def same(path: str, values: Named) -> None:
        """Compare what was recorded below a path, and remember that it was."""
        for key, expected in below(recorded, path).items():
            if key in values:
                exact = not expected.is_floating_point()
                tolerance = {"atol": 0 if exact else 2e-5, "rtol": 0}
                torch.testing.assert_close(values[key], expected, **tolerance, msg=lambda m, k=key: f"{path}/{k}: {m}")
                seen.add(f"{path}/{key}")

    for round in ROUNDS:
        for c in CLIENTS:
            batches = Batches(*own[c], BATCH, shuffle=False)
            uploads[c], _ = algorithm.client_update(hyper, shared, clients[c], download, batches, rng)
            same(f"round{round}/client{c}/weights", clients[c].model.state_dict())
            same(f"round{round}/client{c}/proj", clients[c].private)
            same(f"round{round}/client{c}/upload", case.uploaded(uploads[c]))
        if case.algorithm != "local":
            state, download, metrics = algorithm.server_update(hyper, shared, state, uploads, rng)
            same(f"round{round}/server", case.served(state, download, metrics))
        for c in CLIENTS:
            with torch.no_grad():
                shown = shown_on_test_images(
                    case, hyper, shared, clients[c], download, normalised(recorded["images"][shares[c, 1]])
                )
            same(f"round{round}/client{c}/test", shown)
    assert not {key for key in recorded if key.startswith("round") and "/draw/" not in key} - seen
    assert next(draws, None) is None
