"""One head for all clients."""

import pytest
import torch
from torch import nn

from stages import algorithms
from stages.algorithms.common import one_head
from stages.algorithms.common.batches import Batches
from stages.algorithms.contract import ClientState, Task
from stages.algorithms.lg_fedavg import Download
from stages.errors import UserError
from stages.models.split import SplitModel
from stages.randomness import Rng
from tests.helpers.toys import tiny

TASK = Task(clients=2, classes=3, feature_dim=8, latent_dim=0, lr=1e-12, batch_size=4, device=torch.device("cpu"))
OWN = one_head.Shared(TASK, None)


def model():
    return SplitModel(tiny(3, 32, 3), 8, 3)


def test_equal_linear_heads_pass_and_any_other_is_refused_with_the_reason():
    one_head.check(one_head.Hyper(), TASK, [model(), model()])
    odd = model()
    odd.head = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))
    with pytest.raises(UserError, match=r"All clients share one head, .* 8 -> 3, and client 1's is another"):
        one_head.check(one_head.Hyper(), TASK, [model(), odd])


def test_prediction_uses_the_head_that_was_sent_last():
    client, x = ClientState(model()), torch.randn(5, 3, 32, 32)
    assert torch.equal(one_head.predict(one_head.Hyper(), OWN, client, None, x), client.model(x))
    first, sent = ({"weight": torch.zeros(3, 8), "bias": torch.arange(3.0) + start} for start in (1, 4))
    common = one_head.Shared(TASK, first)
    assert one_head.predict(one_head.Hyper(), common, client, None, x).tolist() == [[1.0, 2.0, 3.0]] * 5
    assert one_head.predict(one_head.Hyper(), common, client, Download(sent), x).tolist() == [[4.0, 5.0, 6.0]] * 5


@pytest.mark.parametrize("name", ["lg-fedavg", "fedgen", "fedgh"])
@pytest.mark.parametrize("first", ["common", "own"])
def test_clients_start_from_one_head_unless_told(name, first):
    algorithm = algorithms.get(name)
    hyper = algorithm.Hyper.make({"first_head": first})
    _, shared = algorithm.init(hyper, TASK, Rng(0))
    clients = [ClientState(model()) for _ in range(2)]
    before = [client.model.head.weight.clone() for client in clients]
    batches = Batches(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.tensor([0, 1, 2, 0]), 4)
    for client, own in zip(clients, before, strict=True):
        algorithm.client_update(hyper, shared, client, None, batches, Rng(0))
        expected = own if first == "own" else shared.head["weight"]
        torch.testing.assert_close(client.model.head.weight, expected)  # a learning rate of nearly nothing
    assert torch.equal(*(client.model.head.weight for client in clients)) == (first == "common")


def test_the_servers_first_head_is_the_one_that_all_start_from():
    algorithm = algorithms.get("fedgh")
    state, shared = algorithm.init(algorithm.Hyper(), TASK, Rng(0))
    assert torch.equal(state.head.weight, shared.head["weight"])
    assert not torch.equal(shared.head["weight"], algorithm.init(algorithm.Hyper(), TASK, Rng(1))[1].head["weight"])
