"""Averages of weights, auxiliary models."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from stages.algorithms.common.weights import auxiliary, average, called_with, copied
from stages.algorithms.contract import Task
from stages.errors import UserError
from stages.models.split import parameters
from stages.randomness import Rng, seeded

TASK = Task(clients=2, classes=3, feature_dim=8, latent_dim=0, lr=0.1, batch_size=4, device=torch.device("cpu"))
STATES = [
    {"w": torch.tensor([1.0, 2.0]), "steps": torch.tensor(4)},
    {"w": torch.tensor([5.0, 4.0]), "steps": torch.tensor(8)},
]


def test_average_by_images():
    mean = average(STATES, [torch.tensor(3), torch.tensor(1)])
    assert mean["w"].tolist() == [2.0, 2.5]  # (3 * 1 + 5) / 4, (3 * 2 + 4) / 4
    assert mean["steps"] == 5 and mean["steps"].dtype == torch.int64


def test_whole_numbers_are_rounded_not_cut_off():
    states, counts = [{"steps": torch.tensor(3)}] * 3, [torch.tensor(count) for count in (7, 1, 2)]
    assert average(states, counts)["steps"] == 3  # 0.7 * 3 + 0.1 * 3 + 0.2 * 3 is a little less


def test_average_of_all_alike_leaves_its_inputs_alone():
    assert average(STATES)["w"].tolist() == [3.0, 3.0]
    assert STATES[0]["w"].tolist() == [1.0, 2.0]


def test_the_auxiliary_model_depends_on_the_seed_alone():
    one, other, third = (auxiliary("FedAvgCNN", TASK, Rng(seed), 8).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(one["head.weight"], third["head.weight"])


def test_the_auxiliary_model_of_the_published_table():
    task = Task(20, 100, 512, 0, 0.01, 10, torch.device("cpu"), (3, 32, 32))
    assert parameters(auxiliary("FedAvgCNN", task, Rng(0), 512)) == 924_708


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("FedAvgCN", "There is no model"),
        ("tests.helpers.toys:headless", "linear layer"),
        ("small", "one architecture, and 'small' is 4"),
        ("resnet4,CNN", "is 2"),
    ],
)
def test_an_auxiliary_model_that_is_none(name, sentence):
    with pytest.raises(UserError, match=sentence):
        auxiliary(name, TASK, Rng(0), 8)


def test_auxiliary_models_lie_in_memory_as_the_clients_models_do():
    last, first = (auxiliary("resnet4", replace(TASK, channels_last=last), Rng(0), 8) for last in (True, False))
    assert [weights.is_contiguous() for weights in (first.base.conv1.weight, last.base.conv1.weight)] == [True, False]


def test_weights_compute_the_same_however_they_lie_in_memory():
    layer = nn.Conv2d(8, 16, 3).to(memory_format=torch.channels_last)
    sent = {name: value.detach().contiguous() for name, value in layer.state_dict().items()}
    x = torch.randn(4, 8, 16, 16)
    with torch.no_grad():
        assert sent["weight"].stride() != layer.weight.stride() and torch.equal(called_with(layer, sent, x), layer(x))


def test_layers_may_share_weights():
    both = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    both[1].weight = both[0].weight
    x = torch.randn(2, 3)
    moved = {name: value + 1 for name, value in both.state_dict().items()}
    assert torch.equal(called_with(both, moved, x), copied(both, moved)(x))


def test_a_copy_is_trained_apart():
    layer = nn.Linear(1, 1)
    own = copied(layer, {"weight": torch.tensor([[7.0]]), "bias": torch.tensor([1.0])})
    assert own.weight.item() == 7 and layer.weight.item() != 7


class Keeping(nn.Linear):
    def forward(self, x):
        self.made = super().forward(x)
        return self.made


def test_a_copy_of_a_layer_that_keeps_what_it_computed():
    layer, x = Keeping(3, 3), torch.randn(2, 3)
    assert torch.equal(layer(x), copied(layer)(x))


def test_seeded_layers_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    with seeded(3):
        one = torch.rand(1)
    with seeded(3):
        assert torch.equal(one, torch.rand(1))
    assert torch.equal(before, torch.get_rng_state())
