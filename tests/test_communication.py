"""What a round sends, counted from the messages themselves, equals the formulas of the FedKTL paper (table 5).

Data shaped as its CIFAR-100: 100 classes, 20 clients, 32x32. Only heads, prototypes and auxiliary models travel, so
the clients' bases may be toys.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from stages import algorithms
from stages.algorithms import fedkd
from stages.algorithms.common.records import cost, sent, tensors
from stages.algorithms.fedktl import Download
from stages.algorithms.lg_fedavg import Upload
from stages.artifacts.store import Store
from stages.engines import rounds
from stages.engines.assembly import assemble
from stages.engines.local import InProcess
from stages.engines.plan import RunSpec
from stages.engines.preview import preview
from stages.settings import Train

K, C, F, W, PIXELS = 20, 100, 512, 512, 3 * 32 * 32  # clients, classes, feature_dim, latent width, numbers in an image
HEAD = F * C + C
AUXILIARY = 873_408 + HEAD  # FedAvgCNN at 32x32
GENERATOR = (32 + C) * 512 + 512 + 2 * 512 + 512 * F + F  # of features, from noise of 32 and a one-hot label

Traffic = tuple[int, int]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """Clients with some 20 classes each, an image of each; class c is at least with client c mod 20."""
    found, rng = Store(tmp_path_factory.mktemp("store")), np.random.default_rng(0)
    held = [rng.permutation(np.union1d(np.arange(k, C, K), rng.permutation(C)[:16])) for k in range(K)]
    with found.write("data", "cifar100", {}, 0, {}) as writer:
        for split, piles in (("train", held), ("validation", [[]] * K), ("test", [pile[:1] for pile in held])):
            labels = np.concatenate(piles).astype(np.int64)
            writer.array(f"{split}/images", rng.integers(0, 256, (len(labels), 3, 32, 32), dtype=np.uint8))
            writer.array(f"{split}/labels", labels)
            writer.array(f"{split}/offsets", np.cumsum([0, *map(len, piles)], dtype=np.int64))
        writer.array("counts", np.stack([np.bincount(pile, minlength=C) for pile in held]).astype(np.int64))
        writer.attributes["class_names"] = [str(label) for label in range(C)]
    with found.write("latents", "bank", {}, 0, {}) as writer:
        writer.array("latents", rng.standard_normal((C, W)).astype(np.float32))
        writer.array("images", rng.integers(0, 256, (C, 3, 32, 32), dtype=np.uint8))
        writer.attributes["generator"] = {"family": "none"}
    return found


@pytest.fixture(scope="module")
def pairs(store) -> int:
    """p: pairs of a client and a class that it has, an image of each."""
    return len(store.open("cifar100").array("train/labels"))


def planned(store: Store, name: str, hyper: dict | None = None, **settings) -> RunSpec:
    algorithm = algorithms.get(name)
    quick = {"server_epochs": 1} if "server_epochs" in algorithm.Hyper().as_dict() else {}
    chosen = Train.make({"models": "tests.helpers.toys:tiny", "feature_dim": F, "batch_size": 50}, settings)
    own = algorithm.Hyper.make({**quick, **(hyper or {})})
    return RunSpec(algorithm, own, chosen, 0, store.open("cifar100"), store.open("bank"))


def second_round(spec: RunSpec) -> tuple[Traffic, Traffic]:
    """Floats, and bytes, up and down in the second round, all clients together; in the first, nothing comes down."""
    federation, state = assemble(spec)
    for _ in range(2):
        rounds.play_round(federation, state, InProcess(federation, state.clients))
    last = {name: int(values[-1].sum()) for name, values in state.history.tensors().items() if "load_" in name}
    return tuple((last[f"rounds/upload_{unit}"], last[f"rounds/download_{unit}"]) for unit in ("floats", "bytes"))


def formulas(p: int) -> dict[str, Traffic]:
    return {
        "lg-fedavg": (K * HEAD, K * HEAD),
        "fedgen": (K * HEAD, K * (HEAD + GENERATOR)),
        "fedgh": (p * F, K * HEAD),
        "fml": (K * AUXILIARY, K * AUXILIARY),
        "fd": (p * C, K * C * C),
        "fedproto": (p * F, K * C * F),
        "fedtgp": (p * F, K * C * F),
        "fedktl": (p * C, K * C * (W + PIXELS)),
        "local": (0, 0),
    }


@pytest.mark.parametrize("name", formulas(0))
def test_a_round_sends_what_the_formula_says(store, pairs, name):
    floats, _ = second_round(planned(store, name))
    assert floats == formulas(pairs)[name]


def test_the_formulas_give_the_papers_numbers():
    found = {name: tuple(round(count / 1e6, 2) for count in both) for name, both in formulas(900).items()}
    assert found["lg-fedavg"] == (1.03, 1.03) and found["fedgen"] == (1.03, 7.66) and found["fedgh"] == (0.46, 1.03)
    assert found["fd"] == (0.09, 0.20) and found["fedproto"] == (0.46, 1.02) and found["fedktl"] == (0.09, 7.17)
    assert found["fml"] == (18.49, 18.49)  # the paper rounds one model before it multiplies: 18.50


def test_fedkd_sends_each_matrix_in_as_few_numbers_as_its_rank_allows(store):
    """K SVD(M): k (P + 1 + Q) numbers for a matrix [P, Q] of rank k, or all P Q if these are fewer."""
    messages = []

    def overheard(*arguments):
        upload, metrics = fedkd.client_update(*arguments)
        messages.append(upload.change)
        return upload, metrics

    spec = planned(store, "fedkd", join_ratio=0.2)
    federation, state = assemble(replace(spec, algorithm=replace(spec.algorithm, client_update=overheard)))
    rounds.play_round(federation, state, InProcess(federation, state.clients))
    shapes = {name: (len(w), w[0].numel()) for name, w in federation.shared.start.state_dict().items()}
    assert sum(rows * columns for rows, columns in shapes.values()) == AUXILIARY

    def numbers(message):
        ranks = {name: len(message[f"{name}:s"]) for name in shapes if name not in message}
        whole = sum(rows * columns for name, (rows, columns) in shapes.items() if name in message)
        return whole + sum(rank * (shapes[name][0] + 1 + shapes[name][1]) for name, rank in ranks.items())

    uploads = state.history["rounds/upload_floats"][0]
    assert uploads[uploads > 0].tolist() == [numbers(message) for message in messages] and len(messages) == 4
    assert cost(state.download)[0] == numbers(state.download.change)
    assert max(map(numbers, [*messages, state.download.change])) < AUXILIARY


@pytest.mark.parametrize("name", ["lg-fedavg", "fedktl"])
def test_a_dry_run_foretells_the_same(store, pairs, name):
    previewed = preview(planned(store, name))
    assert (previewed["upload_floats_per_round"], previewed["download_floats_per_round"]) == formulas(pairs)[name]


def test_bytes_are_all_that_is_sent(store, pairs):
    _, (up, down) = second_round(planned(store, "fedktl"))
    assert up == pairs * (4 * C + 8)  # float32 prototypes, int64 labels
    assert down == K * C * (4 * W + PIXELS + 8)  # float32 latents, a byte a pixel, int64 labels


def test_half_precision_halves_the_bytes_of_floats_and_nothing_else(store, pairs):
    floats, (up, down) = second_round(planned(store, "fedktl", wire="fp16"))
    assert floats == formulas(pairs)["fedktl"]
    assert up == pairs * (2 * C + 8) and down == K * C * (2 * W + PIXELS + 8)


def test_what_travels_in_half_precision_arrives_rounded():
    one = torch.tensor([1.0, 1 / 3, 1e-9])
    download = Download(torch.tensor([7]), torch.full((1, 3, 2, 2), 255, dtype=torch.uint8), one[None])
    arrived = sent(download, "fp16")
    assert arrived.latents.dtype == torch.float32
    assert arrived.latents.tolist() == [[1.0, 0.333251953125, 0.0]]  # 11 bits of 1/3: 1365 / 4096
    assert arrived.labels.tolist() == [7] and torch.equal(arrived.images, download.images)
    nested = sent(Upload({"weight": one, "bias": one}, torch.tensor(2**24 + 1)), "fp16")
    assert nested.weights["bias"][1] == 0.333251953125 and nested.count == 2**24 + 1
    assert sent(download, "fp32") is download and sent(None, "fp16") is None
    assert cost(None, "fp16") == (0, 0) and cost(nested, "fp16") == (6, 6 * 2 + 8)


def test_a_run_in_half_precision_works_on_what_arrived(store):
    federation, state = assemble(planned(store, "fedproto", wire="fp16"))
    rounds.play_round(federation, state, InProcess(federation, state.clients))
    floats = [tensor for tensor in tensors(state.download).values() if tensor.is_floating_point()]
    assert floats and all(torch.equal(tensor, tensor.half().float()) for tensor in floats)
