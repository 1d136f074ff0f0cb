"""FedGen by hand."""

from dataclasses import replace

import torch
from torch.nn import functional as F

from stages.algorithms import fedgen
from stages.algorithms.common.batches import Batches
from stages.algorithms.contract import ClientState, Task
from stages.models.split import SplitModel
from stages.randomness import Rng
from tests.helpers.messages import CLIENTS, HEAD, exchanged
from tests.helpers.toys import tiny

TASK = Task(clients=2, classes=3, feature_dim=4, latent_dim=0, lr=0.1, batch_size=4, device=torch.device("cpu"))
HYPER = fedgen.Hyper(noise_dim=2, hidden_dim=8)
HEADS = [
    {"weight": torch.eye(3, 4), "bias": torch.zeros(3)},
    {"weight": 3 * torch.eye(3, 4).roll(1, 1), "bias": torch.ones(3)},
]
UPLOADS = {  # a third of each client's images was never trained on
    1: fedgen.Upload(HEADS[1], torch.tensor([0, 10, 0]), torch.tensor(15)),
    0: fedgen.Upload(HEADS[0], torch.tensor([20, 10, 0]), torch.tensor(45)),
}


def served():
    state, shared = fedgen.init(HYPER, TASK, Rng(0))
    return shared, fedgen.server_update(HYPER, shared, state, UPLOADS, Rng(0))


def test_the_ensemble_is_the_average_head():
    features = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    _, (_, download, _) = served()
    ensemble = 0.75 * F.linear(features, **HEADS[0]) + 0.25 * F.linear(features, **HEADS[1])
    torch.testing.assert_close(F.linear(features, **download.head), ensemble)


def test_labels_are_drawn_as_often_as_clients_have_them():
    labels, inputs = fedgen.draws(HYPER, torch.tensor([20, 20, 0]), 100, 10, Rng(0))
    assert labels.shape == (100, 10) and inputs.shape == (100, 10, 2 + 3)
    assert set(labels.unique().tolist()) == {0, 1} and 400 < int(labels.sum()) < 600
    assert torch.equal(inputs[..., 2:], F.one_hot(labels, 3).float())
    assert inputs[..., :2].min() < -2 and abs(float(inputs[..., :2].std()) - 1) < 0.1  # Gaussian
    _, inputs = fedgen.draws(replace(HYPER, noise="uniform"), torch.tensor([20, 20, 0]), 100, 10, Rng(0))
    assert 0 <= inputs[..., :2].min() < 0.01 and 0.99 < inputs[..., :2].max() < 1


def test_the_trained_generator_is_what_is_sent_and_the_head_knows_its_features():
    shared, (state, download, _) = served()
    assert not torch.equal(download.generator["0.weight"], shared.start[0].weight)
    assert torch.equal(download.generator["0.weight"], state.generator[0].weight)
    labels, inputs = fedgen.draws(HYPER, download.counts, 1, 64, Rng(1))
    generator = fedgen.copied(shared.start, download.generator)
    logits = F.linear(generator(inputs[0]), **download.head)
    assert (logits.argmax(1) == labels[0]).float().mean() > 0.95
    assert download.counts.tolist() == [20, 20, 0]


def test_generated_features_teach_the_head():
    _, (_, download, _) = served()
    torch.manual_seed(0)
    client = ClientState(SplitModel(tiny(3, 16, 3), 4, 3))
    batches = Batches(torch.zeros(4, 3, 16, 16, dtype=torch.uint8), torch.tensor([0, 1, 1, 0]), 4)
    _, alone = fedgen.client_update(HYPER, fedgen.init(HYPER, TASK, Rng(0))[1], client, None, batches, Rng(0))
    upload, taught = fedgen.client_update(HYPER, fedgen.init(HYPER, TASK, Rng(0))[1], client, download, batches, Rng(0))
    assert float(alone["generated"]) == 0 < float(taught["generated"]) and upload.counts.tolist() == [2, 2, 0]


def test_messages_are_a_head_up_and_a_head_and_the_generator_down():
    exchange = exchanged("fedgen", server_epochs=2)
    assert exchange.up == CLIENTS * HEAD and exchange.down == HEAD + 331_776
