"""FedKTL's own behaviour beyond the recorded numbers."""

import copy
import dataclasses
from itertools import islice

import pytest
import torch

from stages.algorithms import fedktl, fedktl_reference
from stages.algorithms.common.batches import Batches, endless, slices
from stages.algorithms.common.records import cost
from stages.algorithms.contract import ClientState, Task
from stages.generators.pairs import BankPairs
from stages.models.split import SplitModel
from stages.randomness import Rng
from tests.helpers.toys import narrow, tiny

TASK = Task(clients=3, classes=4, feature_dim=8, latent_dim=5, lr=0.1, batch_size=4, device=torch.device("cpu"))


def bank(count=30, per_class=1):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 16, 16), generator=generator, dtype=torch.uint8)
    return BankPairs(torch.randn(count, 5, generator=generator), images, 16, 4, per_class)


def upload(*labels, seed=0):
    protos = torch.randn(len(labels), 4, generator=torch.Generator().manual_seed(seed))
    return fedktl.Upload(torch.tensor(labels), torch.nn.functional.normalize(protos))


def quick(**changes):
    return fedktl_reference.Hyper(server_epochs=3, **changes)


def client():
    torch.manual_seed(1)
    return ClientState(SplitModel(tiny(3, 16, 4), 8, 4))


def images():
    generator = torch.Generator().manual_seed(2)
    return Batches(
        torch.randint(0, 256, (10, 3, 16, 16), generator=generator, dtype=torch.uint8), torch.arange(10) % 3, 4
    )


def served(hyper, uploads):
    state, shared = fedktl.init(hyper, TASK, Rng(0))
    return fedktl_reference.server_update(hyper, shared, state, uploads, bank(), Rng(0))


def test_upload_and_download_cost_what_the_paper_counts():
    _, download, _ = served(quick(), {0: upload(0, 1, 3), 1: upload(2)})
    assert cost(upload(0, 1, 3))[0] == 3 * 4
    assert cost(download)[0] == 4 * (5 + 3 * 16 * 16)
    assert cost(download)[1] == 4 * (5 * 4 + 3 * 16 * 16 + 8)  # float32 latents, a byte a pixel, int64 labels


def test_several_pairs_a_class_are_labelled_and_counted():
    state, shared = fedktl.init(quick(), TASK, Rng(0))
    _, download, _ = fedktl.server_update(quick(), shared, state, {0: upload(1, 3)}, bank(per_class=3), Rng(0))
    assert download.labels.tolist() == [1, 1, 1, 3, 3, 3]
    assert cost(download)[0] == 6 * (5 + 3 * 16 * 16)


def test_only_classes_that_were_uploaded_get_a_pair_and_they_keep_it():
    state, download, _ = served(quick(), {0: upload(0, 3)})
    assert download.labels.tolist() == [0, 3]
    _, shared = fedktl.init(quick(), TASK, Rng(0))
    _, download, _ = fedktl.server_update(quick(), shared, state, {1: upload(1)}, bank(), Rng(1))
    assert download.labels.tolist() == [0, 1, 3]


def test_a_trained_table_makes_a_pair_for_every_row_as_the_reference_does():
    _, download, _ = served(quick(centroids="trained"), {0: upload(0, 3)})
    assert download.labels.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("labels", [[0], [0, 1, 2]])
def test_a_last_batch_of_one_prototype_does_not_fail(labels):
    state, _, metrics = served(quick(server_batch_size=2), {0: upload(*labels)})
    assert state.centroids.isfinite().all() and all(value.isfinite() for value in metrics.values())


def test_a_single_row_left_over_joins_the_batch_before_it():
    assert [len(range(7)[part]) for part in slices(7, 3)] == [3, 4]
    assert [len(range(6)[part]) for part in slices(6, 3)] == [3, 3]
    assert [len(range(1)[part]) for part in slices(1, 3)] == [1]


def test_centroids_are_the_means_of_transformed_prototypes():
    state, _, _ = served(quick(), {0: upload(0, seed=1), 1: upload(0, seed=2)})
    protos = torch.cat([upload(0, seed=1).prototypes, upload(0, seed=2).prototypes])
    expected = state.transformer.eval()(protos).mean(0)
    torch.testing.assert_close(state.centroids[0], expected)


def test_a_client_without_pairs_uploads_prototypes_of_its_own_classes():
    hyper, (_, shared) = quick(), fedktl.init(quick(), TASK, Rng(0))
    sent, metrics = fedktl.client_update(hyper, shared, client(), None, images(), Rng(0))
    assert sent.labels.tolist() == [0, 1, 2] and sent.prototypes.shape == (3, 4)
    assert float(metrics["transfer"]) == 0


@pytest.mark.parametrize(("count", "sizes"), [(1, [2, 2]), (5, [5, 5]), (6, [4, 2]), (9, [4, 5])])
def test_no_batch_of_pairs_is_a_single_one(count, sizes):
    pairs = endless((torch.zeros(count, 3, 16, 16), torch.zeros(count, 5)), 4, torch.Generator())
    assert [len(images) for images, _ in islice(pairs, len(sizes))] == sizes


def test_pairs_change_training_and_shared_state_stays():
    hyper, (_, shared) = quick(), fedktl.init(quick(), TASK, Rng(0))
    before = copy.deepcopy(shared.projection)
    _, download, _ = served(hyper, {0: upload(0, 1, 2, 3)})
    alone, taught = client(), client()
    fedktl.client_update(hyper, shared, alone, None, images(), Rng(0))
    _, metrics = fedktl.client_update(hyper, shared, taught, download, images(), Rng(0))
    assert float(metrics["transfer"]) > 0
    assert not torch.equal(alone.model.base[2].weight, taught.model.base[2].weight)
    assert all(torch.equal(before[name], shared.projection[name]) for name in before)


def test_pairs_move_running_statistics_only_where_that_is_asked_for():
    task = dataclasses.replace(TASK, lr=0.0)  # so that nothing but the statistics can move
    _, download, _ = served(quick(), {0: upload(0, 1, 2, 3)})

    def after(hyper, download):
        _, shared = fedktl.init(hyper, task, Rng(0))
        torch.manual_seed(1)
        one = ClientState(SplitModel(narrow(3, 16, 4), 8, 4))
        fedktl.client_update(hyper, shared, one, download, images(), Rng(0))
        return {name: value for name, value in one.model.state_dict().items() if "running" in name}

    alone, own, both = after(quick(), None), after(quick(), download), after(quick(statistics="both"), download)
    assert alone and all(torch.equal(alone[name], own[name]) for name in alone)
    assert not any(torch.equal(alone[name], both[name]) for name in alone)


def test_each_ablation_switches_its_part_off():
    assert quick().needs_latents() and not quick(transfer=False).needs_latents()
    _, shared = fedktl.init(quick(), TASK, Rng(0))
    x, one = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0)), client()
    logits = fedktl.predict(quick(etf=False), shared, one, None, x)
    assert torch.equal(logits, one.model(x))
    scores = fedktl.predict(quick(scale=2.0), shared, one, None, x)
    cosines = torch.nn.functional.cosine_similarity(one.model(x)[:, None], shared.etf[None], dim=2)
    torch.testing.assert_close(scores, 2 * cosines)
    both = [served(quick(**part), {0: upload(0, 1, 2)})[0].centroids for part in ({"mmd": False}, {"lambda_": 0.0})]
    assert not torch.equal(*both)


def test_the_shared_start_depends_on_the_seed():
    (_, one), (_, other) = fedktl.init(quick(), TASK, Rng(0)), fedktl.init(quick(), TASK, Rng(1))
    assert not torch.equal(one.projection["weight"], other.projection["weight"])
