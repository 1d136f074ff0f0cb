"""Federated distillation by hand."""

import math

import pytest
import torch

from stages.algorithms import fd
from stages.algorithms.common.batches import Batches
from stages.algorithms.contract import ClientState, Task
from stages.models.split import SplitModel
from stages.randomness import Rng
from tests.helpers.messages import CLASSES, PAIRS, exchanged
from tests.helpers.toys import tiny

TASK = Task(clients=2, classes=3, feature_dim=2, latent_dim=0, lr=0.1, batch_size=4, device=torch.device("cpu"))


def upload(labels, outputs, receipt):
    return fd.Upload(torch.tensor(labels), torch.tensor(outputs), torch.tensor(receipt))


UPLOADS = {
    0: upload([0], [[1.0, 0.0, 0.0]], 10),
    1: upload([0, 1], [[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]], 11),
}


def served(uploads=UPLOADS):
    return fd.server_update(fd.Hyper(), TASK, None, uploads, Rng(0))[1]


def client(private=None):
    torch.manual_seed(0)
    return ClientState(SplitModel(tiny(3, 16, 3), 2, 3), private or {})


def batches(labels):
    images = torch.randint(
        0, 256, (len(labels), 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    return Batches(images, torch.tensor(labels), 4, shuffle=False)


def kept(upload):
    return {"labels": upload.labels, "outputs": upload.outputs, "receipt": upload.receipt}


def test_the_average_counts_every_sender_alike():
    download = served()
    assert download.labels.tolist() == [0, 1] and download.senders.tolist() == [2, 1]
    assert download.outputs.tolist() == [[0.75, 0.125, 0.125], [0.0, 1.0, 0.0]]
    assert download.receipts.tolist() == [10, 11]


def test_a_client_learns_from_the_others_alone():
    teachers, known = fd.teachers_of(fd.Hyper(), TASK, client(kept(UPLOADS[1])), served())
    assert known.tolist() == [True, False, False]  # class 1 it had sent alone
    assert teachers[0].tolist() == [1.0, 0.0, 0.0]


def test_the_own_part_is_left_in_where_wanted():
    teachers, known = fd.teachers_of(fd.Hyper(own_part=True), TASK, client(kept(UPLOADS[1])), served())
    assert known.tolist() == [True, True, False]
    assert teachers[0].tolist() == [0.75, 0.125, 0.125]


def test_a_client_whose_upload_was_lost_learns_from_all_that_arrived():
    teachers, known = fd.teachers_of(
        fd.Hyper(), TASK, client(kept(UPLOADS[1]) | {"receipt": torch.tensor(9)}), served()
    )
    assert known.tolist() == [True, True, False]
    assert teachers[0].tolist() == [0.75, 0.125, 0.125]


def test_distillation_is_the_cross_entropy_with_the_teacher():
    one = client()
    for parameter in one.model.head.parameters():
        torch.nn.init.zeros_(parameter)  # every class has probability 1/3
    _, metrics = fd.client_update(fd.Hyper(), TASK, one, served(), batches([0, 2]), Rng(0))
    assert float(metrics["loss"]) == pytest.approx(math.log(3))
    assert float(metrics["distillation"]) == pytest.approx(math.log(3) / 2)  # class 2 has no teacher


def test_the_upload_is_the_mean_output_during_training():
    one = client()
    found = batches([0, 0, 2, 2])
    with torch.no_grad():
        expected = one.model(next(found.once(one.model))[0]).softmax(1)  # of the only batch, before its step
    sent, _ = fd.client_update(fd.Hyper(), TASK, one, None, found, Rng(0))
    assert sent.labels.tolist() == [0, 2]
    torch.testing.assert_close(sent.outputs, torch.stack([expected[:2].mean(0), expected[2:].mean(0)]))
    assert one.private["receipt"] == sent.receipt


def test_gamma_weighs_the_distillation():
    models = [client(), client()]
    for one, gamma in zip(models, (0.0, 5.0), strict=True):
        fd.client_update(fd.Hyper(gamma=gamma), TASK, one, served(), batches([0, 1]), Rng(0))
    assert not torch.equal(models[0].model.head.weight, models[1].model.head.weight)


def test_messages_are_probabilities_per_class():
    exchange = exchanged("fd")
    assert exchange.up == PAIRS * CLASSES and exchange.down == CLASSES * CLASSES
    torch.testing.assert_close(exchange.download.outputs.sum(1), torch.ones(CLASSES))
