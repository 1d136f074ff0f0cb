"""Federated Mutual Learning by hand."""

import math
from dataclasses import replace

import pytest
import torch

from stages.algorithms import fml
from stages.randomness import Rng
from tests.helpers.messages import CLIENTS, exchanged


def test_each_model_learns_from_labels_and_from_the_other():
    own, meme = torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3), 0.0]])  # probabilities 1/2 1/2 and 3/4 1/4
    loss, meme_loss = fml.mutual_losses(fml.Hyper(alpha=0.25, beta=0.5), own, meme, torch.tensor([0]))
    from_meme = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    from_own = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert float(loss) == pytest.approx(0.25 * math.log(2) + 0.75 * from_meme)
    assert float(meme_loss) == pytest.approx(0.5 * math.log(4 / 3) + 0.5 * from_own)


def test_no_gradient_reaches_a_teacher():
    own, meme = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    loss, meme_loss = fml.mutual_losses(fml.Hyper(), own, meme, torch.tensor([0, 1, 2, 0]))
    assert torch.autograd.grad(loss, meme, allow_unused=True) == (None,)
    assert torch.autograd.grad(meme_loss, own, allow_unused=True) == (None,)


def test_as_in_the_public_library_both_learn_from_both():
    own, meme = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    labels, hyper = torch.tensor([0, 1, 2, 0]), fml.Hyper(alpha=0, beta=0)
    loss, meme_loss = fml.mutual_losses(replace(hyper, divergence="mutual"), own, meme, labels)
    given, meme_given = fml.mutual_losses(hyper, own, meme, labels)
    torch.testing.assert_close((3 * loss, 3 * meme_loss), (given, meme_given))  # the mean over three classes, too
    assert torch.autograd.grad(loss, meme, retain_graph=True)[0].abs().sum() > 0
    assert torch.autograd.grad(meme_loss, own)[0].abs().sum() > 0


def test_the_server_averages_all_clients_alike():
    uploads = {1: fml.Upload({"w": torch.tensor([1.0])}), 0: fml.Upload({"w": torch.tensor([4.0])})}
    _, download, _ = fml.server_update(fml.Hyper(), None, None, uploads, Rng(0))
    assert download.weights["w"].tolist() == [2.5]


def test_messages_are_the_auxiliary_model():
    exchange = exchanged("fml")
    assert exchange.up == CLIENTS * 924_708 and exchange.down == 924_708
