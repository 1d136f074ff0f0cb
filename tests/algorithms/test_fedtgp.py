"""FedTGP by hand."""

import math

import pytest
import torch

from stages.algorithms import fedtgp
from stages.algorithms.contract import Task
from stages.algorithms.fedproto import Upload
from stages.randomness import Rng
from tests.helpers.messages import CLASSES, PAIRS, WIDTH, exchanged

TASK = Task(clients=2, classes=4, feature_dim=2, latent_dim=0, lr=0.1, batch_size=4, device=torch.device("cpu"))


def margin(uploaded, labels, **hyper):
    return float(fedtgp.adaptive_margin(fedtgp.Hyper(**hyper), uploaded, labels, 4))


def test_the_margin_is_the_largest_distance_between_class_centres():
    uploaded = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [3.0, 4.0], [0.0, 1.0]])  # centres (0, 0), (3, 4), (0, 1)
    labels = torch.tensor([0, 0, 1, 3])
    assert margin(uploaded, labels) == pytest.approx(5)
    assert margin(uploaded, labels, tau=4) == 4
    assert margin(uploaded[:2], labels[:2]) == 0
    # to their nearest: (0, 0) and (0, 1) 1, (3, 4) the square root of 18
    assert margin(uploaded, labels, margin="nearest") == pytest.approx(18**0.5)
    assert margin(uploaded[:2], labels[:2], margin="nearest") == 100  # there is none


def test_the_margin_lengthens_the_distance_to_the_own_prototype():
    prototypes = torch.tensor([[0.0, 0.0], [0.0, 3.0]])
    loss = fedtgp.contrast(torch.tensor([[0.0, 1.0]]), torch.tensor([0]), prototypes, torch.tensor(0.5))
    assert float(loss) == pytest.approx(-math.log(math.exp(-1.5) / (math.exp(-1.5) + math.exp(-2))))


def test_a_prototype_on_its_upload_has_a_finite_gradient():
    prototypes = torch.zeros(2, 2, requires_grad=True)
    fedtgp.contrast(torch.zeros(1, 2), torch.tensor([0]), prototypes, torch.tensor(1.0)).backward()
    assert prototypes.grad.isfinite().all()


def test_trained_prototypes_lie_nearest_to_the_uploads_of_their_class():
    uploads = {
        1: Upload(torch.tensor([0, 1]), torch.tensor([[4.0, 0.5], [0.0, 4.0]]), torch.tensor([1, 1])),
        0: Upload(torch.tensor([0, 3]), torch.tensor([[4.0, -0.5], [-4.0, 0.0]]), torch.tensor([1, 1])),
    }
    hyper = fedtgp.Hyper(server_epochs=300, server_lr=0.05)
    state, shared = fedtgp.init(hyper, TASK, Rng(0))
    state, download, metrics = fedtgp.server_update(hyper, shared, state, uploads, Rng(0))
    assert download.labels.tolist() == [0, 1, 3]  # nobody has sent class 2
    assert float(metrics["margin"]) == pytest.approx(8)
    centres = torch.tensor([[4.0, 0.0], [0.0, 4.0], [-4.0, 0.0]])
    assert torch.cdist(centres, download.prototypes).argmin(1).tolist() == [0, 1, 2]


def test_messages_are_a_feature_per_class():
    exchange = exchanged("fedtgp", server_epochs=1)
    assert exchange.up == PAIRS * WIDTH and exchange.down == CLASSES * WIDTH
