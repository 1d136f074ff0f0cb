"""Matching, pair sources, the built-in and the stand-in generator."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from stages.errors import UserError
from stages.generators import registry
from stages.generators.matching import match
from stages.generators.pairs import BankPairs, LivePairs
from stages.pixels import resized, to_uint8
from stages.settings import Generate
from tests.helpers.standin import Standin
from tests.helpers.toys import LinearGenerator

CPU = torch.device("cpu")


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 9), st.integers(0, 1000), st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_match_takes_no_column_twice_and_is_the_cheapest(rows, each, spare, seed, ties):
    distances = torch.rand(rows, rows * each + spare, generator=torch.Generator().manual_seed(seed))
    if ties:
        distances = (3 * distances).round()
    chosen = match(distances, each)
    assert len(set(chosen.tolist())) == rows * each
    found = distances.gather(1, chosen.view(rows, each))
    assert torch.equal(found, found.sort().values)  # nearest first
    single = distances.repeat_interleave(each, 0).numpy()
    assert float(found.sum()) == pytest.approx(single[linear_sum_assignment(single)].sum(), abs=1e-5)


@pytest.mark.parametrize("unknown", [torch.nan, torch.inf])
def test_distances_that_are_no_numbers_are_the_largest(unknown):
    distances = torch.tensor([[unknown, 1.0, 2.0], [0.0, unknown, 3.0]])
    assert match(distances).tolist() == [1, 0]


def test_a_hundred_each_of_ten_classes_take_a_moment():
    draw = torch.Generator().manual_seed(0)
    centroids, latents = torch.randn(10, 64, generator=draw) / 10, torch.randn(5000, 64, generator=draw)
    begun = time.thread_time()
    match(torch.cdist(centroids, latents), 100)
    assert time.thread_time() - begun < 1  # 0.1 to 0.3; a linear assignment takes 2 to 5


def test_a_bank_pair_is_a_latent_with_its_own_image():
    latents = torch.tensor([[0.0], [1.0], [10.0]])
    images = torch.arange(3, dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 4, 4).contiguous()
    found_images, found_latents = BankPairs(latents, images, 4, 2).pairs(torch.tensor([[9.0], [0.9]]))
    assert found_latents.tolist() == [[10.0], [1.0]]
    assert found_images[:, 0, 0, 0].tolist() == [2, 1]


def test_two_equal_centroids_get_two_different_latents():
    bank = BankPairs(torch.tensor([[0.0], [1.0], [10.0]]), torch.zeros(3, 3, 4, 4, dtype=torch.uint8), 4, 2)
    assert sorted(bank.pairs(torch.zeros(2, 1))[1].flatten().tolist()) == [0.0, 1.0]


def test_several_pairs_a_class_are_its_nearest_latents_and_none_twice():
    latents = torch.tensor([[0.0], [1.0], [4.0], [9.0], [10.0], [20.0]])
    bank = BankPairs(latents, torch.zeros(6, 3, 4, 4, dtype=torch.uint8), 4, 2, per_class=2)
    found = bank.pairs(torch.tensor([[9.6], [0.4]]))[1].flatten().tolist()
    assert sorted(found[:2]) == [9.0, 10.0] and sorted(found[2:]) == [0.0, 1.0]
    with pytest.raises(UserError, match="2 classes need 4 each"):
        BankPairs(latents, torch.zeros(6, 3, 4, 4, dtype=torch.uint8), 4, 2, per_class=4)


def test_a_bank_smaller_than_the_classes_is_refused():
    with pytest.raises(UserError, match="3 latents and 4 classes"):
        BankPairs(torch.zeros(3, 1), torch.zeros(3, 3, 4, 4, dtype=torch.uint8), 4, 4)


def test_live_pairs_render_the_centroids_themselves():
    generator, centroids = LinearGenerator(CPU), torch.randn(2, 8)
    images, latents = LivePairs(generator, 8, CPU).pairs(centroids)
    assert torch.equal(latents, centroids) and images.shape == (2, 3, 8, 8)
    assert torch.equal(images, resized(generator.render(centroids), 8))


def test_live_pairs_as_the_reference_makes_them_are_floats_from_four_pixels():
    class Columns(LinearGenerator):
        """Every picture has in each column the column's number squared, and a half."""

        def pixels(self, latents):
            return (torch.arange(16.0).square() + 0.5).expand(len(latents), 3, 16, 16)

    centroids = torch.randn(2, 8)
    images, _ = LivePairs(Columns(CPU), 4, CPU, floats=True, antialias=False).pairs(centroids)
    # between columns 4i + 1 and 4i + 2, whatever lies beside them
    assert images[1, 2, 3].tolist() == [3.0, 31.0, 91.0, 183.0]
    soft, _ = LivePairs(Columns(CPU), 4, CPU, floats=True).pairs(centroids)
    assert soft.dtype == torch.float32 and (soft - images).abs().min() > 0.1
    bytes_alone, _ = LivePairs(LinearGenerator(CPU), 16, CPU, floats=True).pairs(centroids)
    assert torch.equal(bytes_alone, LinearGenerator(CPU).render(centroids).float())


def test_pixels_are_rounded_and_clamped_once():
    assert to_uint8(torch.tensor([-2.0, -1.0, 0.0, 0.002, 1.0, 2.0])).tolist() == [0, 0, 128, 128, 255, 255]


def test_resizing_keeps_flat_colour_and_crops_the_middle():
    wide = torch.zeros(1, 3, 4, 8, dtype=torch.uint8)
    wide[..., 2:6] = 200
    assert resized(wide, 4).eq(200).all()
    assert resized(torch.full((1, 3, 16, 16), 77, dtype=torch.uint8), 32).eq(77).all()


def test_the_stand_in_renders_what_was_recorded():
    generator, folder = Standin(CPU), Path(__file__).parents[1] / "fixtures" / "standin"
    with np.load(folder / "standin-generator-check.npz") as check:
        z, w, images = (torch.from_numpy(check[name]) for name in ("z", "w", "images"))
    torch.testing.assert_close(generator.mapping(z.float()), w.float(), atol=1e-5, rtol=0)
    torch.testing.assert_close(generator.synthesis(w.float()), images.float(), atol=1e-5, rtol=0)


def test_the_built_in_generator_is_the_same_every_time():
    one, other = registry.make(Generate(), CPU), registry.make(Generate(generator="builtin"), CPU)
    latents = one.sample_latents(5, torch.Generator().manual_seed(0))
    images = one.render(latents)
    assert torch.equal(images, other.render(other.sample_latents(5, torch.Generator().manual_seed(0))))
    assert images.shape == (5, 3, 32, 32) and images.dtype == torch.uint8 and images.float().std(0).mean() > 20
    alone = one.render(latents[2:3]).int() - images[2:3].int()  # another batch size may round another way
    assert alone.abs().max() <= 1
    assert one.descriptor["training"].endswith("on 48005 images")


def again(descriptor, allowed=None, weights=None, **settings):
    return registry.again(Generate.make(settings).as_dict(), descriptor, {}, allowed, weights, CPU)


def test_a_generator_is_made_again_from_its_descriptor():
    made = registry.make(Generate(generator="tests.helpers.toys:linear"), CPU)
    assert made.descriptor == {"version": 1, "family": "factory", "factory": "tests.helpers.toys:linear"}
    latents = made.sample_latents(2, torch.Generator().manual_seed(0))
    assert torch.equal(again(made.descriptor, "tests.helpers.toys:linear").render(latents), made.render(latents))
    builtin = registry.make(Generate(), CPU)
    assert again(builtin.descriptor).descriptor == builtin.descriptor


def test_another_generator_is_not_taken_for_the_one_of_the_bank():
    descriptor = {**registry.make(Generate(), CPU).descriptor, "sha256": "0" * 64}
    with pytest.raises(UserError, match="not the one that made this bank"):
        again(descriptor)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"generator": "buildin"}, "did you mean builtin"),
        ({"generator": "nowhere:x"}, "can't be loaded"),
        ({"generator": "tests.helpers.toys:absent"}, "can't be loaded"),
        ({"generator": "stylegan3"}, "give them as `weights`"),
        ({"generator": "builtin", "weights": "x.pkl"}, "no weights at x.pkl"),
        ({"weights": "absent.pkl"}, "no weights at absent.pkl"),
        ({"weights": "./absent"}, "no weights at ./absent"),
        ({"prompt": "a cat"}, "without a prompt"),
        ({"negative_prompt": "a dog"}, "without a negative prompt; leave out `negative_prompt`"),
        ({"scheduler": "ddim"}, "without a scheduler"),
    ],
)
def test_generators_that_can_not_be(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        registry.make(Generate.make(settings), CPU)
