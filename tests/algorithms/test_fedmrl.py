"""FedMRL by hand."""

from dataclasses import replace

import torch
from torch import nn

from stages.algorithms import fedmrl
from stages.algorithms.common.batches import Batches
from stages.algorithms.contract import ClientState, Task
from stages.models.split import SplitModel
from stages.randomness import Rng
from tests.helpers.messages import CLIENTS, exchanged
from tests.helpers.toys import tiny

TASK = Task(
    2, 3, feature_dim=4, latent_dim=0, lr=0.1, batch_size=4, device=torch.device("cpu"), image_shape=(3, 16, 16)
)
HYPER = fedmrl.Hyper(sub_feature_dim=2, auxiliary="tests.helpers.toys:tiny")


class Parts(nn.Module):
    """A split model of given parts."""

    def __init__(self, features, head):
        super().__init__()
        self.features, self.head = features, head


def linear(weight):
    layer = nn.Linear(len(weight[0]), len(weight), bias=False)
    layer.weight.data = torch.tensor(weight)
    return layer


def test_the_auxiliary_head_gets_the_first_part_of_the_fused_features():
    model = Parts(linear([[1.0], [2.0]]), linear([[1.0, 10.0]]))  # features (x, 2x)
    small = Parts(linear([[3.0]]), linear([[100.0]]))  # feature 3x
    projection = linear([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])  # (3x + x, 2x)
    logits, small_logits = fedmrl.both(model, small, projection, torch.tensor([[1.0]]))
    assert logits.item() == 4 + 10 * 2 and small_logits.item() == 100 * 4


def trained():
    torch.manual_seed(0)
    client = ClientState(SplitModel(tiny(3, 16, 3), 4, 3))
    images = torch.randint(0, 256, (6, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    batches = Batches(images, torch.tensor([0, 1, 2, 0, 1, 2]), 4)
    _, shared = fedmrl.init(HYPER, TASK, Rng(0))
    upload, _ = fedmrl.client_update(HYPER, shared, client, None, batches, Rng(0))
    return client, shared, upload


def test_the_trained_projection_is_the_clients_own_and_predicts():
    client, shared, upload = trained()
    assert not torch.equal(client.private["weight"], shared.projection.weight)
    x = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    download = fedmrl.Download(upload.weights)
    one = fedmrl.predict(HYPER, shared, client, download, x)
    client.private["weight"] = client.private["weight"] + 1
    assert not torch.equal(one, fedmrl.predict(HYPER, shared, client, download, x))


def test_auxiliary_models_count_by_their_training_images():
    uploads = {k: fedmrl.Upload({"w": torch.tensor([w])}, torch.tensor(n)) for k, w, n in ((0, 1.0, 3), (1, 5.0, 1))}
    _, download, _ = fedmrl.server_update(HYPER, None, None, uploads, Rng(0))
    assert download.weights["w"].tolist() == [2.0]
    _, download, _ = fedmrl.server_update(replace(HYPER, weighting="uniform"), None, None, uploads, Rng(0))
    assert download.weights["w"].tolist() == [3.0]
    _, _, upload = trained()
    assert upload.count == 6


def test_the_auxiliary_features_are_never_wider_than_the_clients():
    _, shared = fedmrl.init(fedmrl.Hyper(auxiliary="tests.helpers.toys:tiny"), TASK, Rng(0))
    assert shared.projection.in_features == 8 and shared.start.head.in_features == 4


def test_messages_are_the_auxiliary_model():
    exchange = exchanged("fedmrl")
    size = 873_408 + 128 * 100 + 100  # FedAvgCNN with a head 128 -> 100
    assert exchange.up == CLIENTS * size and exchange.down == size
