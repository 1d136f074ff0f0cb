"""FedKTL against numbers recorded from the public reference implementation (tests/fixtures/README.md)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stages.algorithms import fedktl, fedktl_reference
from stages.algorithms.common import batches
from stages.algorithms.common.batches import Batches, Steps
from stages.algorithms.common.losses import BANDWIDTHS, arcface, mmd, prototypes, simplex_etf
from stages.algorithms.contract import ClientState, Task
from stages.models.split import SplitModel
from stages.randomness import Rng

FIXTURES = Path(__file__).parents[1] / "fixtures" / "algorithm"
SHARED = fedktl.Shared(Task(1, 10, 16, 32, 0.1, 4, torch.device("cpu")), torch.eye(10), {})
BATCH_NORM_NOISE = (
    "0.bias",
    "1.running_mean",
)  # BatchNorm cancels this bias: its gradient is rounding, Adam makes it steps


def fixture(name: str) -> dict[str, torch.Tensor]:
    with np.load(FIXTURES / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files if arrays[key].dtype.kind in "fiu"}


def close(actual, expected, atol, rtol=0.0):
    torch.testing.assert_close(actual, expected, atol=atol, rtol=rtol, check_dtype=False)


@pytest.mark.parametrize("classes", [5, 10])
def test_etf_has_the_reference_gram_matrix(classes):
    expected = fixture("etf")[f"c{classes}_etf_normalized_T"]
    vectors = simplex_etf(classes, torch.Generator().manual_seed(3))
    close(vectors @ vectors.T, expected @ expected.T, 3e-7)


def test_arcface_loss_and_gradient():
    f = fixture("arcface")
    etf = fixture("etf")["c10_etf_normalized_T"]
    proj = f["proj"].requires_grad_()
    loss = arcface(proj, f["labels"].long(), etf, 0.5, 64)
    loss.backward()
    close(loss, f["loss"], 0, 2e-6)
    close(proj.grad[:7], f["grad_proj"][:7], 1e-6)
    close(proj.grad[7], f["grad_proj"][7], 2e-3)  # own-class cosine -0.99998: arccos is steep there


def test_arcface_is_finite_where_the_reference_is_nan():
    f = fixture("arcface")
    assert f["aligned_loss"].isnan()
    proj = f["aligned_proj"].requires_grad_()
    loss = arcface(proj, f["aligned_labels"].long(), fixture("etf")["c10_etf_normalized_T"], 0.5, 64)
    loss.backward()
    assert loss.isfinite() and proj.grad.isfinite().all()


def test_prototypes():
    f = fixture("prototypes")
    classes, protos = prototypes(f["proj"], f["labels"].long(), 10)
    assert classes.tolist() == f["classes"].tolist()
    close(protos, f["protos"], 2e-7)


def test_images_that_training_drops_make_no_prototype():
    f = fixture("prototypes")
    batches = Batches(torch.zeros(37, 1, 1, 1), f["labels"][:37].long(), 10, shuffle=False, drop_last=True)
    classes, protos = prototypes(f["proj"][: len(batches.labels)], batches.labels, 10)
    assert classes.tolist() == f["n37_classes"].tolist()
    close(protos, f["n37_protos"], 2e-7)


def test_mmd_value_and_gradient():
    f = fixture("mmd")
    x = f["x"].requires_grad_()
    value = mmd(x, f["y"], torch.tensor(BANDWIDTHS))
    value.backward()
    close(value, f["value"], 3e-7)
    close(x.grad, f["grad_x"], 2e-8)


class RecordedPairs:
    """Latents in the order in which the reference drew them."""

    def __init__(self, f):
        sizes = f["latent_batch_sizes"].tolist()
        self.latents = [batch[:size].float() for batch, size in zip(f["latent_batches"], sizes, strict=True)]
        self.latent_dim = self.latents[0].shape[1]

    def pairs(self, centroids):
        return torch.zeros(len(centroids), 3, 1, 1), centroids

    def sample_latents(self, n, rng):
        drawn = [self.latents.pop(0)]
        while sum(map(len, drawn)) < n:
            drawn.append(self.latents.pop(0))
        return torch.cat(drawn)


def aligned(name, monkeypatch, centroids, freeze_bias=False):
    f = fixture(name)
    width = f["centroids_before"].shape[1]
    classes = len(f["centroids_before"])
    transformer = nn.Sequential(
        nn.Linear(classes, classes), nn.BatchNorm1d(classes), nn.ReLU(), nn.Linear(classes, width)
    )
    transformer.load_state_dict({key.removeprefix("F_init.mlp."): f[key] for key in f if key.startswith("F_init.mlp.")})
    transformer[0].bias.requires_grad_(not freeze_bias)
    state = fedktl.ServerState(transformer, f["centroids_before"].float(), torch.zeros(classes, dtype=torch.bool))
    orders = iter(f["epoch_order"].long())
    monkeypatch.setattr(torch, "randperm", lambda n, generator: next(orders))
    hyper = fedktl_reference.Hyper(
        lambda_=float(f["lamda"]), server_lr=float(f["server_lr"]), server_epochs=len(f["epoch_order"]),
        server_batch_size=int(f["server_batch_size"]), centroids=centroids,
    )  # fmt: skip
    uploads = {0: fedktl.Upload(f["uploaded_labels"].long(), f["uploaded_protos"])}
    _, _, metrics = fedktl_reference.server_update(hyper, SHARED, state, uploads, RecordedPairs(f), Rng(0))
    return f, state, metrics


@pytest.mark.parametrize("name", ["server_align", "server_align_missing_class"])
def test_alignment_as_the_reference_behaves(name, monkeypatch):
    f, state, metrics = aligned(name, monkeypatch, "trained")
    steps = len(f["loss_per_step"]) // len(f["epoch_order"])
    sizes = f["latent_batch_sizes"][-steps:].float()
    close(metrics["mmd"], (f["mmd_per_step"][-steps:] * sizes).sum() / sizes.sum(), 2e-6)
    close(metrics["mse"], (f["mse_per_step"][-steps:] * sizes).sum() / sizes.sum(), 2e-6)
    close(state.centroids, f["latent_centroids"], 5e-6)
    for name, value in state.transformer.state_dict().items():
        if not name.endswith(BATCH_NORM_NOISE) and name != "1.num_batches_tracked":
            close(value, f[f"F_final.mlp.{name}"], 3e-6)


@pytest.mark.parametrize(
    ("name", "centroids"),
    [("server_align", "trained"), ("server_align_missing_class", "trained"), ("server_align_intended", "mean")],
)
def test_alignment_in_exact_arithmetic(name, centroids, monkeypatch):
    """With the one parameter frozen that rounding alone moves, against float64: also the paper's class means."""
    f, state, _ = aligned(name, monkeypatch, centroids, freeze_bias=True)
    close(state.centroids, f["latent_centroids_bias0_frozen_f64"], 1e-5)


class Tiny(nn.Module):
    """The base of the recorded client."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn, self.conv2 = nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 8, 3, 2, 1)
        self.fc = nn.Linear(32, 10)

    def forward(self, x):
        x = self.conv2(self.bn(self.conv1(x)).relu()).relu()
        return self.fc(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


class Recorded(Batches):
    """Images as the reference's client got them: float32, in stored order."""

    def __init__(self, f):
        size = int(f["batch_size"])
        super().__init__(f["x"], f["y"].long(), size, shuffle=False, drop_last=True)

    def steps(self, rng):
        return Steps(zip(self.images.split(4), self.labels.split(4), strict=True))


@pytest.mark.parametrize("name", ["client_train", "client_train_no_transfer", "client_train_clipped"])
def test_client_training(name, monkeypatch):
    f = fixture(name)
    client = ClientState(SplitModel(Tiny(), 16, 10))
    client.model.load_state_dict(
        {key.removeprefix("model_init."): f[key] for key in f if key.startswith("model_init.")}
    )
    has_pairs = "gen_images" in f
    start = {n: f[f"proj_fc_init.{n}"] for n in ("weight", "bias")} if has_pairs else nn.Linear(16, 32).state_dict()
    shared = fedktl.Shared(Task(1, 10, 16, 32, float(f["lr"]), 4, torch.device("cpu")), F.normalize(f["etf"].T), start)
    download = fedktl.Download(torch.arange(10), f["gen_images"], f["gen_vectors"]) if has_pairs else None
    orders = iter(f["gen_order"].long()) if has_pairs else None
    monkeypatch.setattr(torch, "randperm", lambda n, generator: next(orders))
    monkeypatch.setattr(fedktl, "normalised", lambda images: images)  # recorded as floats
    hyper = fedktl_reference.Hyper(mu=float(f["mu"]), statistics="both") if has_pairs else fedktl.Hyper()
    monkeypatch.setattr(batches, "normalised", lambda images: images)
    _, metrics = fedktl.client_update(hyper, shared, client, download, Recorded(f), Rng(0))
    close(metrics["loss"], f["arcface_per_step"].mean(), 0, 2e-6)
    if has_pairs:
        close(metrics["transfer"], f["mse_per_step"].mean(), 0, 2e-6)
    for key, value in client.model.state_dict().items():
        close(value, f[f"model_final.{key}"], 3e-6)
