"""FedProto by hand."""

import pytest
import torch

from stages.algorithms import fedproto
from stages.algorithms.common.batches import Batches
from stages.algorithms.common.records import cost
from stages.algorithms.contract import ClientState, Task
from stages.models.split import SplitModel
from stages.randomness import Rng
from tests.helpers.toys import tiny

TASK = Task(clients=2, classes=3, feature_dim=2, latent_dim=0, lr=0.1, batch_size=4, device=torch.device("cpu"))


def upload(labels, prototypes, counts):
    return fedproto.Upload(torch.tensor(labels), torch.tensor(prototypes), torch.tensor(counts))


def served(hyper, uploads):
    return fedproto.server_update(hyper, TASK, None, uploads, Rng(0))


UPLOADS = {1: upload([0, 1], [[4.0, 0.0], [1.0, 1.0]], [3, 5]), 0: upload([0], [[0.0, 4.0]], [1])}


def test_global_prototypes_weigh_clients_by_their_images():
    _, download, _ = served(fedproto.Hyper(), UPLOADS)
    assert download.labels.tolist() == [0, 1]
    assert download.prototypes.tolist() == [[3.0, 1.0], [1.0, 1.0]]  # (3 * 4, 1 * 4) / 4


def test_uniform_weighting_as_in_the_public_library():
    _, download, _ = served(fedproto.Hyper(weighting="uniform"), UPLOADS)
    assert download.prototypes[0].tolist() == [2.0, 2.0]


def test_a_class_that_nobody_sent_this_round_has_no_prototype():
    state, _, _ = served(fedproto.Hyper(), UPLOADS)
    _, download, _ = fedproto.server_update(fedproto.Hyper(), TASK, state, {0: upload([2], [[5.0, 5.0]], [1])}, Rng(0))
    assert download.labels.tolist() == [2] and download.prototypes.tolist() == [[5.0, 5.0]]


def test_messages_cost_a_feature_per_class():
    _, download, _ = served(fedproto.Hyper(), UPLOADS)
    assert cost(UPLOADS[1])[0] == 2 * 2 and cost(download)[0] == 2 * 2


def client():
    torch.manual_seed(0)
    return ClientState(SplitModel(tiny(3, 16, 3), 2, 3))


def test_prediction_is_the_nearest_known_prototype():
    one, x = client(), torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    features = one.model.base(x).detach()
    download = fedproto.Download(torch.tensor([0, 2]), torch.stack([features[0], features[1]]))
    scores = fedproto.predict(fedproto.Hyper(), TASK, one, download, x)
    assert scores[:2].argmax(1).tolist() == [0, 2]
    assert scores[:, 1].isneginf().all()  # class 1 has no prototype yet
    assert torch.equal(fedproto.predict(fedproto.Hyper(), TASK, one, None, x), one.model(x))


@pytest.mark.parametrize("collected", ["training", "after"])
def test_upload_is_the_mean_feature_during_training_or_after_it(collected):
    one = client()
    labels = torch.tensor([0, 0, 2, 2])
    images = torch.randint(0, 256, (4, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    batches = Batches(images, labels, 4, shuffle=False)
    x, _ = next(batches.once(one.model))  # the only batch
    before = one.model.base(x).detach()
    sent, _ = fedproto.client_update(fedproto.Hyper(collected=collected), TASK, one, None, batches, Rng(0))
    after = one.model.base(x).detach()
    features = before if collected == "training" else after
    assert sent.labels.tolist() == [0, 2] and sent.counts.tolist() == [2, 2]
    torch.testing.assert_close(sent.prototypes, torch.stack([features[:2].mean(0), features[2:].mean(0)]))


def test_the_pull_counts_only_classes_that_have_a_prototype():
    labels = torch.tensor([1, 1])
    batches = Batches(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), labels, 2, shuffle=False)
    download = fedproto.Download(torch.tensor([0]), torch.tensor([[9.0, 9.0]]))
    _, metrics = fedproto.client_update(fedproto.Hyper(), TASK, client(), download, batches, Rng(0))
    assert float(metrics["pull"]) == 0
