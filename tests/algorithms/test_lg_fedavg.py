"""LG-FedAvg by hand."""

import torch

from stages.algorithms import lg_fedavg
from stages.algorithms.common.batches import Batches
from stages.algorithms.contract import ClientState, Task
from stages.models.split import SplitModel
from stages.randomness import Rng
from tests.helpers.messages import CLIENTS, HEAD, exchanged
from tests.helpers.toys import tiny

TASK = Task(clients=2, classes=3, feature_dim=2, latent_dim=0, lr=1e-12, batch_size=4, device=torch.device("cpu"))
_, SHARED = lg_fedavg.init(lg_fedavg.Hyper(), TASK, Rng(0))


def test_heads_count_by_their_training_images():
    uploads = {
        1: lg_fedavg.Upload({"weight": torch.tensor([[4.0]])}, torch.tensor(1)),
        0: lg_fedavg.Upload({"weight": torch.tensor([[1.0]])}, torch.tensor(3)),
    }
    _, download, _ = lg_fedavg.server_update(lg_fedavg.Hyper(), SHARED, None, uploads, Rng(0))
    assert download.head["weight"].tolist() == [[1.75]]  # (3 * 1 + 4) / 4


def test_a_client_starts_from_the_average_head_and_keeps_its_features():
    torch.manual_seed(0)
    client = ClientState(SplitModel(tiny(3, 16, 3), 2, 3))
    base = {name: tensor.clone() for name, tensor in client.model.base.state_dict().items()}
    download = lg_fedavg.Download({"weight": torch.full((3, 2), 2.0), "bias": torch.zeros(3)})
    batches = Batches(torch.zeros(4, 3, 16, 16, dtype=torch.uint8), torch.tensor([0, 1, 2, 0]), 4)
    upload, _ = lg_fedavg.client_update(lg_fedavg.Hyper(), SHARED, client, download, batches, Rng(0))
    torch.testing.assert_close(upload.weights["weight"], torch.full((3, 2), 2.0))  # a learning rate of nearly nothing
    torch.testing.assert_close(dict(client.model.base.state_dict()), base)
    assert upload.count == 4


def test_images_that_training_drops_count_too():
    client = ClientState(SplitModel(tiny(3, 16, 3), 2, 3))
    images, labels = torch.zeros(5, 3, 16, 16, dtype=torch.uint8), torch.tensor([0, 1, 2, 0, 1])
    batches = Batches(images, labels, 4, shuffle=False, drop_last=True)
    upload, _ = lg_fedavg.client_update(lg_fedavg.Hyper(), SHARED, client, None, batches, Rng(0))
    assert upload.count == 5


def test_messages_are_heads():
    exchange = exchanged("lg-fedavg")
    assert exchange.up == CLIENTS * HEAD and exchange.down == HEAD
