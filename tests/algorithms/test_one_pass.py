"""Two batches in one pass: the numbers of two passes."""

import copy

import pytest
import torch
from torch import nn

from stages import devices
from stages.algorithms.common import one_pass
from stages.algorithms.common.one_pass import OnePass, joins
from stages.models import split, zoo
from stages.models.split import SplitModel
from stages.settings import Train

SHAPE = (3, 32, 32)


def images(count, seed):
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def outcome(model, way, track_both):
    own, seed = copy.deepcopy(model).train(), torch.random.get_rng_state()
    both = OnePass(own, track_both)
    features = getattr(both, way)(images(6, 0), images(4, 1) * 2 + 1)
    sum(part.square().sum() for part in features).backward()
    torch.random.set_rng_state(seed)
    gradients = [parameter.grad for parameter in own.parameters() if parameter.grad is not None]
    return [*features, *gradients, *own.buffers()]


@pytest.mark.parametrize("track_both", [False, True])
@pytest.mark.parametrize("name", ["FedAvgCNN", "resnet8", "resnet18", "mobilenet_v2", "googlenet"])
def test_one_pass_computes_what_two_do(name, track_both):
    """Features, gradients and running statistics; two of these draw dropout once."""
    model = split.build(name, SHAPE, 10, 512, seed=0)
    assert joins(model, torch.Size(SHAPE), track_both)
    one, two = (outcome(model, way, track_both) for way in ("_one_pass", "_two_passes"))
    for ours, theirs in zip(one, two, strict=True):
        scale = max(1e-6, float(theirs.abs().max()))
        assert float((ours - theirs).abs().max()) <= 2e-3 * scale, name


def test_running_statistics_are_of_the_first_batch_unless_both_count():
    model = SplitModel(nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * 32 * 32, 2)), 4, 2)
    for track_both, counted in ((False, 1), (True, 2)):
        own = copy.deepcopy(model).train()
        x = images(6, 0)
        OnePass(own, track_both)(x, x + 100)
        assert int(own.base[0].num_batches_tracked) == counted
        assert bool(own.base[0].running_mean.max() > 1) == track_both


class Sometimes(nn.Module):
    """One layer that is passed twice, and one that never is."""

    def __init__(self):
        super().__init__()
        self.often, self.never = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.often(self.often(x) + 1)


@pytest.mark.parametrize("track_both", [False, True])
def test_each_pass_through_a_layer_is_counted(track_both):
    model = SplitModel(nn.Sequential(Sometimes(), nn.Flatten(), nn.Linear(3 * 32 * 32, 2)), 4, 2)
    one, two = (outcome(model, way, track_both) for way in ("_one_pass", "_two_passes"))
    counts = [[int(value) for value in way if not value.is_floating_point()] for way in (one, two)]
    assert counts[0] == counts[1] == [4 if track_both else 2, 0]


@pytest.mark.parametrize("track_both", [False, True])
def test_a_layer_that_averages_over_all_batches_has_its_count_at_once(track_both):
    """Of two batches that count, the second must have less weight than the first: that takes two passes."""
    model = SplitModel(nn.Sequential(nn.BatchNorm2d(3, momentum=None), nn.Flatten(), nn.Linear(3072, 2)), 4, 2).train()
    assert joins(model, torch.Size(SHAPE), track_both) == (not track_both)
    own, apart = copy.deepcopy(model), copy.deepcopy(model)
    for _ in range(3):
        OnePass(own, track_both)(images(6, 0), images(4, 1) + 1)
        OnePass(apart, track_both)._two_passes(images(6, 0), images(4, 1) + 1)
    torch.testing.assert_close(own.state_dict(), apart.state_dict())


class Mixing(nn.Module):
    """Normalises by statistics of its own."""

    def forward(self, x):
        return (x - x.mean(0)) / (x.std(0) + 1e-3)


@pytest.mark.parametrize("layers", [[Mixing()], [nn.Dropout(0.5), nn.Dropout(0.5)]])
def test_a_model_that_cant_be_split_is_passed_twice(layers):
    base = nn.Sequential(*layers, nn.Flatten(), nn.Linear(3 * 32 * 32, 2))
    model = SplitModel(base, 4, 2).train()
    assert not joins(model, torch.Size(SHAPE), False)
    torch.manual_seed(0)
    expected = OnePass(model, False)._two_passes(images(6, 0), images(4, 1))
    torch.manual_seed(0)
    for ours, theirs in zip(OnePass(model, False)(images(6, 0), images(4, 1)), expected, strict=True):
        assert torch.equal(ours, theirs)


def test_it_is_tried_in_exact_numbers():
    """With TF32 deep networks would seem to mix their images: its rounding grows from layer to layer."""
    seen = set()

    class Noting(nn.Module):
        def forward(self, x):
            seen.add((torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32))
            return x

    model = SplitModel(nn.Sequential(Noting(), nn.Flatten(), nn.Linear(3 * 32 * 32, 2)), 4, 2)
    devices.set_up(Train(precision="tf32"))
    try:
        assert joins(model, torch.Size(SHAPE), True)
        assert torch.backends.cuda.matmul.allow_tf32 and torch.backends.cudnn.allow_tf32
    finally:
        devices.set_up(Train())
    assert seen == {(False, False)}


@pytest.mark.parametrize(("layers", "tries"), [([], 1), ([nn.Dropout(0.5)], 2)])
def test_each_architecture_is_tried_once_and_once_more_with_other_random_numbers_if_it_draws_any(
    monkeypatch, layers, tries
):
    monkeypatch.setattr(one_pass, "_known", {})
    seeds, tried = [], one_pass.tried

    def counted(model, shape, track_both, seed):
        seeds.append(seed)
        return tried(model, shape, track_both, seed)

    monkeypatch.setattr(one_pass, "tried", counted)
    for _ in range(3):
        base = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), *layers, nn.Flatten(), nn.Linear(4 * 30 * 30, 2))
        assert joins(SplitModel(base, 4, 2).train(), torch.Size(SHAPE), False)
    assert len(set(seeds)) == len(seeds) == tries


@pytest.mark.slow
@pytest.mark.parametrize("track_both", [False, True])
@pytest.mark.parametrize("name", sorted({part for group in zoo.GROUPS.values() for part in group}))
def test_one_pass_is_found_right_or_passed_over_for_every_model_of_the_zoo(name, track_both):
    model = split.build(name, SHAPE, 10, 512, seed=0)
    if joins(model, torch.Size(SHAPE), track_both):
        test_one_pass_computes_what_two_do(name, track_both)
