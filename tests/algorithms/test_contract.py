"""Batches, message costs and hyperparameters given by name."""

import pytest
import torch
from torch import nn

from stages import torch_private
from stages.algorithms import NAMES, assigned, fedgen, fedktl
from stages.algorithms.common.batches import Batches, eval_batch
from stages.algorithms.common.records import rebuilt, tensors
from stages.errors import UserError
from stages.models import split
from stages.pixels import normalised
from stages.randomness import Rng
from tests.helpers.messages import exchanged


def batches(n, size, **how):
    labels = torch.arange(n)
    return Batches(labels.view(n, 1, 1, 1).to(torch.uint8), labels, size, **how)


def sizes(found):
    return [len(y) for _, y in found.steps(Rng(0))]


def test_every_image_once_an_epoch_in_an_order_of_its_own():
    found = batches(10, 4, epochs=2)
    labels = torch.cat([y for _, y in found.steps(Rng(0))]).tolist()
    assert sorted(labels[:10]) == sorted(labels[10:]) == list(range(10)) and labels[:10] != labels[10:]
    assert len(found) == 6 and sizes(found) == [4, 4, 2] * 2


def test_images_travel_with_their_labels():
    for x, y in batches(10, 3).steps(Rng(1)):
        torch.testing.assert_close((x.flatten() + 1) * 127.5, y.float(), atol=1e-4, rtol=0)


def test_a_last_batch_of_one_joins_the_batch_before_it():
    assert sizes(batches(9, 4)) == [4, 5]
    assert sizes(batches(1, 4)) == [1]


def test_the_references_loader_keeps_one_order_and_never_sees_the_tail():
    found = batches(10, 4, shuffle=False, drop_last=True)
    assert [y.tolist() for _, y in found.steps(Rng(0))] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert torch.cat([y for _, y in found.once(nn.Identity())]).tolist() == list(range(8))


def test_some_of_the_images_make_the_same_steps():
    some = batches(10, 4, epochs=2).only(torch.tensor([1, 3, 5, 7, 9]))
    assert sizes(some) == [5, 5] and {int(label) for _, y in some.steps(Rng(0)) for label in y} == {1, 3, 5, 7, 9}
    few = batches(10, 4, shuffle=False, drop_last=True).only(torch.tensor([2, 6]))
    assert [y.tolist() for _, y in few.steps(Rng(0))] == [[2, 6]]


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [("FedAvgCNN", 32, 40), ("resnet8", 32, 40), ("mobilenet_v2", 32, 68), ("resnet18", 32, 128), ("resnet18", 99, 40)],
)
def test_without_a_gradient_heavy_models_take_more_images_at_once(name, size, expected):
    model, few = split.meta_model(name, (3, size, size), 10, 512), torch.zeros(300, 1, 1, 1, dtype=torch.uint8)
    found = Batches(few.expand(-1, 3, size, size), torch.arange(300), 10)
    assert [len(y) for _, y in found.once(model)] == [expected] * (300 // expected) + [300 % expected]


def test_a_gpu_takes_its_images_at_once():
    assert eval_batch(torch.empty(5, 3, 32, 32, device="meta")) == 2048


def test_pixels_become_minus_one_to_one():
    assert normalised(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1.0, 1.0]
    floats = torch.tensor([0.0, 127.5, 255.0])
    assert normalised(floats).tolist() == [-1.0, 0.0, 1.0] and floats[2] == 255  # they are used again


def test_tensors_of_a_record_have_dotted_names():
    record = fedktl.ServerState(torch.nn.Sequential(torch.nn.Linear(1, 1)), torch.zeros(2), torch.zeros(2))
    assert list(tensors(record)) == ["transformer.0.weight", "transformer.0.bias", "centroids", "seen"]


def test_a_message_is_rebuilt_from_its_tensors():
    message = fedgen.Download(
        {"weight": torch.ones(2)}, {"0.weight": torch.ones(1), "0.bias": torch.zeros(1)}, torch.ones(3)
    )
    assert vars(rebuilt(fedgen.Download, tensors(message))) == vars(message)  # the very same tensors
    nothing = fedgen.Download({}, {}, message.counts)
    assert vars(rebuilt(fedgen.Download, tensors(nothing))) == vars(nothing)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "ktl"])
def test_gradients_are_clipped_where_the_public_library_does(name, monkeypatch):
    norms = []
    monkeypatch.setattr(torch_private, "clip", lambda gradients, max_norm: norms.append(max_norm))
    alone = {"transfer": False}
    quick = {"fedktl": alone, "fedktl-gated": alone, "fedtgp": {"server_epochs": 2}, "fedgen": {"server_epochs": 2}}
    exchanged(name, **quick.get(name, {}))
    limits = {"fedktl": {100}, "fedktl-gated": {100}, "fedl2g": {100}, "fml": {10}, "fedkd": {10}}
    assert set(norms) == limits.get(name, set())


def test_assignments_go_to_the_algorithms_that_know_them():
    found = assigned(["fedktl", "fedproto", "local"], ["lambda=2", "fedktl.mu=7"], {"fedktl": {"scale": 32}})
    assert found == {"fedktl": {"scale": 32, "lambda": "2", "mu": "7"}, "fedproto": {"lambda": "2"}, "local": {}}


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [("margn=1", "did you mean margin"), ("mu", "KEY=VALUE"), ("fedprto.mu=1", "fedproto"), ("local.mu=1", "local")],
)
def test_assignments_that_mean_nothing_are_refused(assignment, sentence):
    with pytest.raises(UserError, match=sentence):
        assigned(["fedktl", "fedproto", "local"], [assignment], {})


@pytest.mark.parametrize(
    "bad", [{"mu": -1}, {"centroids": "median"}, {"etf": "maybe"}, {"server_epochs": "1.5"}, {"mu": "nan"}]
)
def test_hyperparameters_are_checked(bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        fedktl.Hyper.make(bad)
