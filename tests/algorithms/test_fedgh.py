"""FedGH by hand."""

import torch
from torch import nn

from stages.algorithms import fedgh
from stages.algorithms.fedproto import Upload
from stages.randomness import Rng
from tests.helpers.messages import HEAD, PAIRS, TASK, WIDTH, exchanged


def test_a_step_of_the_global_head():
    head = nn.Linear(2, 2)
    for parameter in head.parameters():
        nn.init.zeros_(parameter)
    hyper = fedgh.Hyper(server_lr=1.0, server_epochs=1, server_batch_size=2)
    features = torch.tensor([[4.0, 0.0], [0.0, 8.0]])
    fedgh.train_head(hyper, head, features, torch.tensor([0, 1]), Rng(0))
    # both classes have probability 1/2; half of (one-hot - 1/2) times the feature, from each of the two
    assert head.weight.tolist() == [[1.0, -2.0], [-1.0, 2.0]]
    assert head.bias.tolist() == [0.0, 0.0]


def test_the_head_tells_the_uploaded_classes_apart():
    hyper = fedgh.Hyper(server_epochs=100)
    state, shared = fedgh.init(hyper, TASK, Rng(0))
    features = 5 * torch.eye(3, WIDTH)
    uploads = {
        0: Upload(torch.tensor([0, 2]), features[[0, 2]], torch.tensor([1, 1])),
        1: Upload(torch.tensor([1]), features[[1]], torch.tensor([1])),
    }
    _, download, _ = fedgh.server_update(hyper, shared, state, uploads, Rng(0))
    logits = nn.functional.linear(features, **download.head)
    assert logits.argmax(1).tolist() == [0, 1, 2]


def test_what_is_sent_does_not_change_with_the_servers_head():
    state, shared = fedgh.init(fedgh.Hyper(), TASK, Rng(0))
    uploads = {0: Upload(torch.tensor([0]), torch.ones(1, WIDTH), torch.tensor([1]))}
    state, first, _ = fedgh.server_update(fedgh.Hyper(), shared, state, uploads, Rng(0))
    before = first.head["weight"].clone()
    fedgh.server_update(fedgh.Hyper(), shared, state, uploads, Rng(1))
    assert torch.equal(before, first.head["weight"])


def test_messages_are_mean_features_up_and_a_head_down():
    exchange = exchanged("fedgh", server_epochs=1)
    assert exchange.up == PAIRS * WIDTH and exchange.down == HEAD
