import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.data.partitions import (
    class_holders,
    consecutive,
    consecutive_holders,
    deal,
    dirichlet,
    extended_dirichlet,
    iid,
    label_counts,
    pathological,
    proportional,
    shared_out,
)
from stages.errors import UserError
from stages.settings import Prepare

RULES = ("dirichlet", "pathological", "extended-dirichlet", "iid")


def rng(seed=0):
    return np.random.default_rng(seed)


class FixedDraws:
    """A generator whose Dirichlet draws are the rows written down here."""

    def __init__(self, *rows):
        self.rows = np.array(rows, float)

    def dirichlet(self, alpha, size):
        assert self.rows.shape == (size, len(alpha))
        return self.rows


def test_shares_are_cut_at_the_floor_of_the_running_sum():
    # running sums 0.25, 0.75, 1 of 10 images: cuts at 2, 7, 10
    assert shared_out(10, np.array([1, 2, 1.0])).tolist() == [2, 5, 3]
    assert shared_out(7, np.array([0, 1, 0.0])).tolist() == [0, 7, 0]
    assert shared_out(7, np.zeros(3)).tolist() == [0, 0, 0]


def test_dirichlet_gives_nothing_more_to_a_full_client():
    # Two clients, 20 images, so a client is full at 10. Class 0: 12 to client 0; class 1 then all to client 1.
    draws = FixedDraws([1, 0], [0.9, 0.1])
    assert dirichlet(np.array([12, 8]), 2, 0.1, draws).tolist() == [[12, 0], [0, 8]]


def test_dirichlet_gives_up_a_draw_whose_weight_falls_on_full_clients_only():
    assert dirichlet(np.array([12, 8]), 2, 0.1, FixedDraws([1, 0], [1, 0])) is None


def test_iid_sizes_differ_by_one_at_most():
    counts = iid(np.array([7, 0, 4]), 3, rng())
    assert sorted(counts.sum(1).tolist()) == [3, 4, 4]
    assert counts.sum(0).tolist() == [7, 0, 4]


@given(st.integers(2, 12), st.integers(1, 15), st.integers(1, 12), st.integers(0, 99))
def test_classes_are_held_evenly(classes, clients, each, seed):
    each = min(each, classes)
    holders = class_holders(classes, clients, each, rng(seed))
    assert (holders.sum(1) == each).all()
    assert np.ptp(holders.sum(0)) <= 1
    assert holders.any(0).all() or clients * each < classes


def test_pathological_parts_are_unequal_and_bounded():
    counts = pathological(np.array([1000]), np.ones((4, 1), bool), rng())[:, 0]
    *parts, rest = sorted(counts)
    assert sum(counts) == 1000 and len(set(counts)) == 4
    assert all(25 <= part < 250 for part in parts) and rest >= 250  # 0.1 to 1 times the mean, and the rest


def test_pathological_as_in_pfllib():
    """Its published CIFAR-10 partition: 20 clients, 2 of 10 classes each, so four in a row share two classes."""
    chosen = Prepare(partition="pathological", class_holders="consecutive", classes_per_client=2)
    counts = label_counts(chosen, np.full(10, 6000), rng())
    held = [np.flatnonzero(row).tolist() for row in counts]
    assert held == [[2 * block, 2 * block + 1] for block in range(5) for _ in range(4)]
    assert (counts.sum(0) == 6000).all()
    for block in range(5):
        parts = counts[4 * block : 4 * block + 4, 2 * block]
        assert (parts[:3] >= 150).all() and (parts[:3] < 1500).all() and parts[3] == 6000 - parts[:3].sum() > 1500


@pytest.mark.parametrize(
    ("classes", "clients", "each", "holders"),
    [
        (3, 2, 2, [[0, 1], [0, 1]]),  # ceil(4 / 3) = 2 hold class 0, two class 1, nobody is left for class 2
        (3, 4, 1, [[0], [0], [1], [1]]),
        (4, 3, 2, [[0, 1], [0, 1], [2, 3]]),
        (2, 3, 1, [[0], [0], [1]]),
    ],
)
def test_consecutive_holders(classes, clients, each, holders):
    assert [np.flatnonzero(row).tolist() for row in consecutive_holders(classes, clients, each)] == holders


@given(st.lists(st.integers(0, 40), min_size=1, max_size=5), st.integers(1, 6), st.integers(1, 90), st.integers(0, 9))
def test_consecutive_parts_are_whole_and_all(totals, clients, enough, seed):
    holders = np.ones((clients, len(totals)), bool)
    counts = consecutive(np.array(totals), holders, enough, rng(seed))
    assert (counts >= 0).all() and counts.sum(0).tolist() == totals


def test_extended_dirichlet_gives_nothing_more_to_a_full_holder():
    # Three clients, 30 images, so a holder is full at 10. Class 0: 12 to client 0; then it gets none of class 1.
    holders = np.array([[1, 1, 1], [1, 1, 0], [0, 1, 1]], bool)
    draws = OneByOne([1, 0], [0.8, 0.1, 0.1], [0.5, 0.5])
    counts = extended_dirichlet(np.array([12, 10, 8]), holders, 0.1, draws)
    assert counts.tolist() == [[12, 0, 0], [0, 5, 0], [0, 5, 8]]
    full = extended_dirichlet(np.array([12, 8, 0]), np.array([[1, 1, 0], [0, 0, 0]], bool), 0.1, OneByOne([1], [1]))
    assert full.tolist() == [[12, 8, 0], [0, 0, 0]]  # nobody else may have it


class OneByOne:
    """A generator whose Dirichlet draws are these, one after the other."""

    def __init__(self, *draws):
        self.draws = [np.array(draw, float) for draw in draws]

    def dirichlet(self, alpha):
        assert len(self.draws[0]) == len(alpha)
        return self.draws.pop(0)


def test_test_images_follow_the_training_shares():
    counts, totals = np.array([[3, 0], [1, 5]]), np.array([4, 10])  # half of class 1 goes to nobody
    assert proportional(counts, totals, np.array([8, 4])).tolist() == [[6, 0], [2, 2]]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 60), min_size=2, max_size=6), st.integers(1, 6), st.sampled_from(RULES),
    st.floats(0.05, 5), st.integers(1, 2), st.integers(0, 99),
)  # fmt: skip
def test_no_image_is_dealt_twice(totals, clients, rule, beta, each, seed):
    totals = np.array(totals)
    chosen = Prepare(partition=rule, clients=clients, beta=beta, classes_per_client=each, min_samples=1)
    labels = rng(seed).permutation(np.repeat(np.arange(len(totals)), totals))
    try:
        counts = label_counts(chosen, totals, rng(seed))
    except UserError:
        return
    piles = deal(labels, counts, rng(seed))
    everything = np.concatenate(piles)
    assert len(np.unique(everything)) == len(everything)
    assert [np.bincount(labels[pile], minlength=len(totals)).tolist() for pile in piles] == counts.tolist()
    assert counts.sum(1).min() >= 1
    held = class_holders(len(totals), clients, each, rng(seed)).any(0)  # the same draw: the rule's first
    dealt = np.full(len(totals), True) if rule in ("dirichlet", "iid") else held
    assert counts.sum(0).tolist() == (totals * dealt).tolist()


@pytest.mark.parametrize("rule", RULES)
def test_same_seed_same_partition(rule):
    def draw(seed):
        return label_counts(Prepare(partition=rule, clients=5, beta=1.0), np.full(4, 250), rng(seed)).tolist()

    assert draw(1) == draw(1) != draw(2)


def test_smaller_beta_is_more_skewed():
    def largest_share(beta):
        counts = label_counts(Prepare(beta=beta, min_samples=1), np.full(10, 600), rng())
        return (counts.max(0) / counts.sum(0)).mean()

    assert largest_share(0.1) > 0.4 > 0.1 > largest_share(100)


def test_an_impossible_partition_ends_with_its_numbers(monkeypatch):
    monkeypatch.setattr("stages.data.partitions.ATTEMPTS", 50)
    with pytest.raises(
        UserError, match=r"100 images are not enough for 20 clients with 6 each; lower `clients` or `min_samples`"
    ):
        label_counts(Prepare(min_samples=6), np.full(4, 25), rng())
    with pytest.raises(
        UserError, match=r"beta 0.01 of 100 images .* 20 clients 5 images; the best left one client with 0\. L"
    ):
        label_counts(Prepare(min_samples=5, beta=0.01), np.full(4, 25), rng())


def test_more_classes_per_client_than_classes():
    chosen = Prepare(partition="pathological", classes_per_client=5)
    with pytest.raises(UserError, match="can't hold 5 of 4 classes; lower `classes_per_client`"):
        label_counts(chosen, np.full(4, 1000), rng())


def counts_file(tmp_path, content, name="config.json"):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return Prepare(partition="counts", counts=str(path))


def test_counts_of_a_config_and_of_a_table(tmp_path):
    totals = np.array([5, 9])
    config = counts_file(tmp_path, {"num_clients": 2, "Size of samples for labels in clients": [[[1, 4]], [[0, 2]]]})
    assert label_counts(config, totals, rng()).tolist() == [[0, 4], [2, 0]]
    table = counts_file(tmp_path, "0,4\n2,0\n", "counts.csv")
    assert label_counts(table, totals, rng()).tolist() == [[0, 4], [2, 0]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "3,4\n3,0\n", "asks for 6 images of class 0, but there are 5; lower its counts"),
        ("a.csv", "1,2,3\n", "counts 3 classes, but the images have 2"),
        ("a.csv", "1,-2\n", "holds the count -2"),
        ("a.csv", "1,two\n", "can't be read as a table of whole numbers"),
        ("a.csv", "1,1.5\n", "can't be read as a table of whole numbers"),
        ("a.csv", "", "is empty"),
        ("a.json", "{", "can't be read as a PFLlib config.json"),
        ("a.json", "[1]", "is not a table of names and values"),
        ("a.json", "[" * 100_000, "it is nested too deeply"),
        ("a.csv", "\xff", "can't be read as a table of whole numbers"),
        ("a.json", "9" * 5000, "can't be read as a PFLlib config.json"),
        ("a.json", {"num_clients": 2}, "has no list 'Size of samples for labels in clients'"),
        ("a.json", {"Size of samples for labels in clients": [[[0, 1]], [[2, 1]]]}, "entry of client 1"),
        ("a.json", {"Size of samples for labels in clients": [[[0, 1.5]]]}, "entry of client 0"),
        ("a.json", {"Size of samples for labels in clients": [7]}, "entry of client 0"),
    ],
)
def test_counts_that_can_not_be_used(tmp_path, name, content, message):
    with pytest.raises(UserError, match=message):
        label_counts(counts_file(tmp_path, content, name), np.array([5, 9]), rng())


def test_counts_and_its_partition_go_together(tmp_path):
    with pytest.raises(UserError, match="needs `counts`"):
        label_counts(Prepare(partition="counts"), np.array([5, 9]), rng())
    with pytest.raises(UserError, match="or give `partition=counts`"):
        label_counts(Prepare(counts="counts.csv"), np.array([5, 9]), rng())
    with pytest.raises(UserError, match="can't be read"):
        label_counts(Prepare(partition="counts", counts=str(tmp_path / "none.csv")), np.array([5, 9]), rng())
