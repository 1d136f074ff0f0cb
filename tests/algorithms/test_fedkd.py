"""FedKD by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.algorithms import fedkd
from stages.algorithms.common.batches import Batches
from stages.algorithms.common.records import cost
from stages.algorithms.contract import ClientState, Task
from stages.models.split import SplitModel
from stages.randomness import Rng
from tests.helpers.messages import CLIENTS, exchanged
from tests.helpers.toys import tiny

TASK = Task(
    2, 3, feature_dim=4, latent_dim=0, lr=0.1, batch_size=4, device=torch.device("cpu"), image_shape=(3, 16, 16)
)
HYPER = fedkd.Hyper(auxiliary="tests.helpers.toys:tiny")


@pytest.mark.parametrize(("part", "rank"), [(0.6, 1), (0.9, 2), (0.95, 3), (1.0, 3)])
def test_the_smallest_rank_that_keeps_enough(part, rank):
    assert fedkd.rank(torch.tensor([3.0, 2.0, 1.0]), part) == rank  # squares 9, 4, 1: 0.64, 0.93 and all of 14


def test_a_matrix_of_zeros_has_rank_one():
    assert fedkd.rank(torch.zeros(3), 0.95) == 1


def test_the_kept_energy_rises_evenly():
    hyper = fedkd.Hyper(energy_start=0.9, energy_end=1.0, energy_rounds=10)
    assert [fedkd.energy(hyper, rounds) for rounds in (0, 5, 10, 99)] == pytest.approx([0.9, 0.95, 1.0, 1.0])


def test_a_kernel_is_one_matrix_and_what_would_not_shrink_travels_whole():
    outer = torch.arange(1.0, 9.0)[:, None] * torch.arange(1.0, 28.0)
    change = {"conv": outer.view(8, 3, 3, 3), "bias": torch.ones(8), "full": torch.eye(4)}
    parts = fedkd.compressed(change, 0.95)
    assert {name: tuple(tensor.shape) for name, tensor in parts.items()} == {
        "conv:u": (8, 1), "conv:s": (1,), "conv:v": (1, 27), "bias": (8,), "full": (4, 4),
    }  # fmt: skip
    back = fedkd.expanded(parts, change)
    torch.testing.assert_close(back, change)


@given(st.floats(0.5, 1.0), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_messages_never_grow_and_lose_no_more_than_allowed(part, seed):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(12, 3, generator=generator) @ torch.randn(3, 20, generator=generator)
    change = {"w": matrix + 0.05 * torch.randn(12, 20, generator=generator)}
    parts = fedkd.compressed(change, part)
    lost = (fedkd.expanded(parts, change)["w"] - change["w"]).square().sum() / change["w"].square().sum()
    assert float(lost) <= 1 - part + 1e-5
    assert sum(tensor.numel() for tensor in parts.values()) <= 240


def test_a_change_that_is_no_number_travels_to_where_it_is_noticed():
    assert fedkd.compressed({"w": torch.full((4, 4), torch.nan)}, 0.95)["w"].isnan().all()


def test_mutual_losses_weigh_more_the_better_both_classify():
    mentor, mentee = torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3), 0.0]])
    there = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    back = 0.5 * math.log(2 / 3) + 0.5 * math.log(2)
    loss = fedkd.mutual_loss(mentor, mentee, torch.tensor(0.3), torch.tensor(0.5))
    assert float(loss) == pytest.approx((there + back + 0.3) / 0.5)
    assert fedkd.mutual_loss(mentor, mentee, torch.tensor(0.3), torch.tensor(0.0)).isfinite()


def client():
    torch.manual_seed(0)
    return ClientState(SplitModel(tiny(3, 16, 3), 4, 3))


def batches():
    images = torch.randint(0, 256, (6, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Batches(images, torch.tensor([0, 1, 2, 0, 1, 2]), 4)


def test_the_server_adds_the_mean_change_and_tells_what_changed_since_the_start():
    state, shared = fedkd.init(HYPER, TASK, Rng(0))
    start = {name: tensor.clone() for name, tensor in shared.start.state_dict().items()}
    ones = {name: torch.ones_like(tensor) for name, tensor in start.items()}
    uploads = {k: fedkd.Upload(fedkd.compressed({n: (1 + 2 * k) * t for n, t in ones.items()}, 0.95)) for k in (0, 1)}
    for rounds in (1, 2):  # each adds the mean of 1 and 3
        state, download, _ = fedkd.server_update(HYPER, shared, state, uploads, Rng(0))
        change = fedkd.expanded(download.change, start)
        assert int(download.rounds) == rounds
        for name, tensor in change.items():
            torch.testing.assert_close(tensor, torch.full_like(tensor, 2.0 * rounds))
            torch.testing.assert_close(state.mentee.state_dict()[name], start[name] + 2 * rounds)
    torch.testing.assert_close(dict(shared.start.state_dict()), start)


def test_a_client_sends_what_it_changed_and_keeps_its_projection():
    _, shared = fedkd.init(HYPER, TASK, Rng(0))
    one = client()
    upload, metrics = fedkd.client_update(HYPER, shared, one, None, batches(), Rng(0))
    change = fedkd.expanded(upload.change, shared.start.state_dict())
    assert 0 < max(float(tensor.abs().max()) for tensor in change.values()) < 1
    assert not torch.equal(one.private["weight"], shared.projection.weight)
    assert set(metrics) == {"loss", "auxiliary"}


def test_messages_are_smaller_than_the_auxiliary_model():
    exchange = exchanged("fedkd")
    assert 0 < exchange.up < CLIENTS * 924_708 / 2 and 0 < exchange.down < 924_708 / 2
    assert cost(exchange.download)[0] == sum(tensor.numel() for tensor in exchange.download.change.values())


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (5, 5), (1, 7)])
def test_a_decomposition_is_that_of_lapack(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, s, v = fedkd.decomposed(matrix)
    torch.testing.assert_close(s, torch.linalg.svdvals(matrix))
    torch.testing.assert_close((u * s) @ v, matrix)
    for k in range(1, min(shape)):
        best = torch.linalg.svdvals(matrix)[k:].square().sum()
        torch.testing.assert_close((matrix - (u[:, :k] * s[:k]) @ v[:k]).square().sum(), best)
