"""FedAvg by hand."""

import pytest
import torch

from stages.algorithms import fedavg, local
from stages.algorithms.common.batches import Batches
from stages.algorithms.contract import ClientState, Hyperparameters, Task
from stages.engines.assembly import assemble
from stages.errors import UserError
from stages.models.split import SplitModel, parameters
from stages.randomness import Rng
from tests.helpers.messages import CLASSES, CLIENTS, WIDTH, exchanged
from tests.helpers.toy_runs import planned, played, same, weights
from tests.helpers.toy_store import write_toy_data
from tests.helpers.toys import narrow, tiny

TASK = Task(clients=2, classes=3, feature_dim=2, latent_dim=0, lr=0.1, batch_size=4, device=torch.device("cpu"))
HYPER = Hyperparameters()


def client(model=narrow, seed=0):
    torch.manual_seed(seed)
    return ClientState(SplitModel(model(3, 16, 3), 2, 3))


def batches(images=6):
    return Batches(torch.arange(images * 768).view(images, 3, 16, 16).to(torch.uint8), torch.arange(images) % 3, 4)


def test_models_count_by_their_training_images():
    uploads = {
        1: fedavg.Upload({"w": torch.tensor([4.0]), "steps": torch.tensor(6)}, torch.tensor(1)),
        0: fedavg.Upload({"w": torch.tensor([1.0]), "steps": torch.tensor(2)}, torch.tensor(3)),
    }
    _, download, _ = fedavg.server_update(HYPER, TASK, None, uploads, Rng(0))
    assert download.weights["w"].tolist() == [1.75]  # (3 * 1 + 4) / 4
    assert download.weights["steps"] == 3  # (3 * 2 + 6) / 4


def test_one_update_is_local_training_from_the_newest_average():
    alone, sent, one = client(seed=1), fedavg.Download(client(seed=1).model.state_dict()), client(seed=2)
    torch.manual_seed(5)  # of the dropout
    local.client_update(HYPER, TASK, alone, None, batches(), Rng(3))
    torch.manual_seed(5)
    upload, _ = fedavg.client_update(HYPER, TASK, one, sent, batches(), Rng(3))
    assert upload.count == 6 and same(upload.weights, alone.model.state_dict())
    assert upload.weights["base.1.running_mean"].any()


def test_one_client_alone_is_local_training_bit_for_bit(toy_store):
    write_toy_data(toy_store, clients=1)  # the newest `toy`
    (_, averaged), (_, alone) = (
        played(planned(toy_store, name, models="tests.helpers.toys:narrow", initial_weights="same"))
        for name in ("fedavg", "local")
    )
    assert len(alone.clients) == 1 and same(weights(averaged), weights(alone))
    assert torch.equal(averaged.history["rounds/test_accuracy"], alone.history["rounds/test_accuracy"])


def test_everyone_starts_alike_and_is_labelled_by_the_average(toy_store):
    _, state = assemble(planned(toy_store, "fedavg"))
    assert all(same(state.clients[0].model.state_dict(), other.model.state_dict()) for other in state.clients)
    one, other = (client(seed=seed) for seed in (1, 2))
    x, sent = torch.randn(5, 3, 16, 16), fedavg.Download(client(seed=3).model.state_dict())
    for each in (one, other):
        each.model.eval()
    before = fedavg.predict(HYPER, TASK, one, None, x)
    assert torch.equal(before, one.model(x))
    assert torch.equal(*(fedavg.predict(HYPER, TASK, each, sent, x) for each in (one, other)))
    assert torch.equal(before, one.model(x))  # whose own weights stay


def test_clients_of_different_architectures_are_refused(toy_store):
    fedavg.check(HYPER, TASK, [client(seed=1).model, client(seed=2).model])
    with pytest.raises(UserError, match=r"client 2's has another architecture than client 0's; choose one for all"):
        fedavg.check(HYPER, TASK, [client().model, client().model, client(tiny).model])
    with pytest.raises(UserError, match="client 1's has another architecture"):
        assemble(planned(toy_store, "fedavg", models="tests.helpers.toys:tiny,tests.helpers.toys:narrow"))


def test_messages_are_models():
    exchange = exchanged("fedavg")
    size = parameters(SplitModel(tiny(3, 32, CLASSES), WIDTH, CLASSES))
    assert exchange.up == CLIENTS * size and exchange.down == size
