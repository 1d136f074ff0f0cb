"""The round loop on a toy federation."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from stages import algorithms
from stages.algorithms import fedktl
from stages.engines import checkpoint, recording, rounds
from stages.engines.assembly import assemble
from stages.engines.clients import micro_auc
from stages.engines.federation import Diverged, Missing
from stages.engines.local import InProcess
from stages.errors import UserError
from tests.helpers.toy_runs import planned, play, played, same, weights
from tests.helpers.toy_store import CLIENTS


@pytest.mark.parametrize("algorithm", algorithms.NAMES)
def test_every_algorithm_learns_the_toy_classes(toy_store, algorithm):
    _, state = played(planned(toy_store, algorithm, rounds=8, lr=0.05))
    accuracy = state.history["rounds/test_accuracy"].mean(1)
    assert accuracy[-1] > accuracy[0] + 0.15


@pytest.mark.parametrize("algorithm", algorithms.NAMES)
def test_another_seed_is_another_result_and_the_same_one_the_same_even_from_a_checkpoint(
    toy_store, algorithm, tmp_path
):
    spec = planned(toy_store, algorithm, rounds=3, join_ratio=0.5, drop_rate=0.3)
    _, whole = played(spec)
    brief = dataclasses.replace(spec, settings=dataclasses.replace(spec.settings, rounds=1))
    (_, half), (_, another) = played(brief), played(dataclasses.replace(brief, seed=1))
    assert not same(weights(half), weights(another))
    checkpoint.write(half, tmp_path / "c.safetensors")
    federation, resumed = assemble(spec)
    checkpoint.unpack(resumed, checkpoint.read(tmp_path / "c.safetensors"), spec.algorithm, federation.device)
    play(federation, resumed)
    one, other = checkpoint.pack(whole), checkpoint.pack(resumed)
    timed = ("history/seconds", "history/rounds/peak_memory", "history/pairs")
    for name in one:
        if not name.startswith(timed):
            assert torch.equal(one[name].nan_to_num(), other[name].nan_to_num()), name


def test_a_clients_training_does_not_depend_on_who_else_joins(toy_store):
    everyone, some = (
        played(planned(toy_store, "local", rounds=1))[1],
        played(planned(toy_store, "local", rounds=1, join_ratio=0.5))[1],
    )
    joined = some.history["rounds/joined"][0].nonzero().flatten().tolist()
    assert len(joined) == CLIENTS // 2
    for client in joined:
        one, other = everyone.clients[client].model.state_dict(), some.clients[client].model.state_dict()
        assert same(one, other)


def test_joining_and_dropping_out(toy_store):
    _, state = played(planned(toy_store, rounds=6, join_ratio=0.75, drop_rate=0.5))
    joined, uploaded = state.history["rounds/joined"], state.history["rounds/uploaded"]
    assert joined.sum(1).tolist() == [3] * 6 and uploaded.sum(1).tolist() == [1] * 6
    assert not (uploaded & ~joined).any() and len(joined.unique(dim=0)) > 1
    losses = state.history["client_metrics/loss"]
    assert torch.equal(losses.isnan(), ~joined)


class Deaf(InProcess):
    """In some rounds nothing comes from any client whose upload would have arrived."""

    def __init__(self, federation, states, deaf):
        super().__init__(federation, states)
        self.deaf = deaf

    def train(self, done, joined, download):
        answers = super().train(done, joined, download)
        _, delivered = rounds.participants(self.federation, self.federation.rng.at("round", done))
        return answers | dict.fromkeys(delivered, Missing.LATE) if done in self.deaf else answers


@pytest.mark.parametrize("algorithm", [name for name in algorithms.NAMES if name != "ktl"])
def test_a_round_in_which_no_upload_arrives_leaves_the_server_as_it_was(toy_store, algorithm):
    federation, state = assemble(planned(toy_store, algorithm, rounds=3, drop_rate=0.5))
    pool, sent = Deaf(federation, state.clients, deaf={0, 2}), []
    for _ in range(3):
        rounds.play_round(federation, state, pool)
        sent.append(state.download)
    assert sent[0] is None and sent[2] is sent[1]
    for name in state.history:
        if name.startswith("server_metrics/"):
            assert state.history[name].isnan().nonzero().flatten().tolist() == [0, 2]


class Hasty(InProcess):
    """The last client answers first."""

    def train(self, done, joined, download):
        return dict(reversed(super().train(done, joined, download).items()))


def test_uploads_come_to_the_server_by_client_whoever_answered_first(toy_store):
    federation, state = assemble(planned(toy_store, "fedavg"))
    met, update = [], federation.algorithm.server_update

    def met_by(hyper, shared, state, uploads, rng):
        met.extend(uploads)
        return update(hyper, shared, state, uploads, rng)

    watched = dataclasses.replace(federation, algorithm=dataclasses.replace(federation.algorithm, server_update=met_by))
    rounds.play_round(watched, state, Hasty(federation, state.clients))
    assert met == list(range(CLIENTS))


@pytest.mark.parametrize(("number", "count"), [(0.29 * 100, 29), (0.2, 1), (2.9, 2), ((1 - 0.9) * 10, 1), (4.0, 4)])
def test_parts_of_the_clients_are_rounded_down_to_at_least_one(number, count):
    assert rounds.at_least_one(number) == count


def test_random_joining_varies_how_many_take_part(toy_store):
    _, state = played(planned(toy_store, "local", rounds=12, join_ratio=0.25, random_join=True))
    counts = state.history["rounds/joined"].sum(1)
    assert counts.min() >= 1 and len(counts.unique()) > 1


def test_traffic_is_counted_from_the_messages(toy_store):
    federation, state = played(planned(toy_store, rounds=2))
    classes, latent_dim, image = 5, 8, 3 * 16 * 16
    present = [len(share.labels.unique()) for share in federation.shares["train"]]
    assert state.history["rounds/upload_floats"].tolist() == [[count * classes for count in present]] * 2
    download = classes * (latent_dim + image)
    assert state.history["rounds/download_floats"].tolist() == [[0] * CLIENTS, [download] * CLIENTS]
    expected = classes * (4 * latent_dim + image + 8)
    assert state.history["rounds/download_bytes"][1].tolist() == [expected] * CLIENTS


def test_local_training_sends_nothing(toy_store):
    _, state = played(planned(toy_store, "local"))
    assert state.history["rounds/upload_bytes"].sum() == state.history["rounds/download_bytes"].sum() == 0
    assert not state.history["rounds/uploaded"].any()


def test_accuracy_is_what_predict_says(toy_store):
    federation, state = played(planned(toy_store, rounds=2))
    share, client = federation.shares["test"][1], state.clients[1]
    client.model.eval()
    x = share.images.float() / 127.5 - 1
    scores = fedktl.predict(federation.hyper, federation.shared, client, state.download, x)
    expected = float((scores.argmax(1) == share.labels).double().mean())
    assert float(state.history["rounds/test_accuracy"][-1][1]) == expected


def test_auc_is_scikit_learns_over_all_scores(toy_store):
    from sklearn.metrics import roc_auc_score

    scores = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)).round(decimals=1)  # with ties
    labels = torch.arange(40) % 4
    expected = roc_auc_score(F.one_hot(labels, 5).numpy(), scores.numpy(), average="micro")
    assert float(micro_auc(scores, labels)) == pytest.approx(expected)
    assert micro_auc(scores[:0], labels[:0]).isnan()
    _, state = played(planned(toy_store, "fedproto", rounds=2))  # which has classes of score minus infinity
    aucs = state.history["rounds/test_auc"]
    assert aucs.shape == (3, CLIENTS) and ((aucs >= 0) & (aucs <= 1)).all() and aucs.dtype == torch.float64


def test_confusion_is_that_of_the_last_evaluation(toy_store):
    federation, state = played(planned(toy_store, rounds=2))
    (confusion,) = state.history["rounds/test_confusion"]
    labels = torch.cat([share.labels for share in federation.shares["test"]])
    assert confusion.sum(1).tolist() == labels.bincount(minlength=5).tolist()  # rows are the classes
    right = state.history["rounds/test_accuracy"][-1] * federation.sizes["test"]
    assert int(confusion.trace()) == round(float(right.sum()))


def test_evaluation_every_few_rounds_and_after_the_last(toy_store):
    _, state = played(planned(toy_store, "local", rounds=5, eval_every=2))
    assert state.history["rounds/evaluated"].tolist() == [0, 2, 4, 5]


def test_patience_ends_a_run_that_gets_no_better(toy_store):
    federation, state = played(planned(toy_store, "local", rounds=50, patience=2, lr=1e-9))
    assert state.rounds == 2 and rounds.finished(federation, state)


@pytest.mark.parametrize(("pairs", "generator"), [("bank", None), ("live", "tests.helpers.toys:linear")])
def test_both_kinds_of_pairs(toy_store, pairs, generator):
    _, state = played(planned(toy_store, pairs=pairs, generator=generator))
    assert state.history["server_metrics/mmd"].isfinite().all()
    assert len(state.download.images) == 5
    assert (state.download.latents == state.server.centroids).all() == (pairs == "live")


def test_live_pairs_of_floats_travel_as_such_and_are_kept_as_pictures(toy_store):
    live = {"pairs": "live", "generator": "tests.helpers.toys:linear"}
    (_, floats), (_, pictures) = (
        played(planned(toy_store, rounds=2, pair_pixels=kind, **live)) for kind in ("floats", "bytes")
    )
    assert floats.download.images.dtype == torch.float32 and pictures.download.images.dtype == torch.uint8
    assert torch.equal(floats.history["pairs/images"], pictures.history["pairs/images"])
    assert torch.equal(floats.history["rounds/download_floats"], pictures.history["rounds/download_floats"])
    assert (floats.history["rounds/download_bytes"] >= pictures.history["rounds/download_bytes"]).all()


def test_several_pairs_a_class_are_downloaded_and_one_is_kept_as_a_picture(toy_store):
    _, one = played(planned(toy_store))
    _, three = played(planned(toy_store, pairs_per_class=3))
    assert three.download.labels.tolist() == [label for label in range(5) for _ in range(3)]
    assert torch.equal(three.history["rounds/download_floats"], 3 * one.history["rounds/download_floats"])
    assert three.history["pairs/labels"].tolist() == one.history["pairs/labels"].tolist()
    assert torch.equal(three.history["pairs/images"][-1], three.download.images[::3])


def test_a_loss_that_is_no_number_names_client_and_round(toy_store):
    with pytest.raises(Diverged, match=r"Client \d diverged in round \d"):
        played(planned(toy_store, "local", models="tests.helpers.toys:wild", rounds=5))


def test_phases_add_up_to_the_round(toy_store):
    federation, state = played(planned(toy_store))
    seconds = {name: state.history[f"seconds/{name}"] for name in recording.phases(federation)}
    assert all(len(values) == 3 and (values >= 0).all() for values in seconds.values())
    assert seconds["local training"].min() > 0 and seconds["prototypes"].min() > 0


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"drop_last": True, "batch_size": 25}, "less than one batch"),
        ({"models": "tests.helpers.toys:headless"}, "Client 0's model 'tests.helpers.toys:headless'"),
        (
            {"models": "resnet10", "feature_dim": 512, "batch_size": 1},
            "Client 0's model 'resnet10'.*raise `batch_size`",
        ),
        ({"device": "cuda:7"}, "not available here"),
        ({"device": "abacus"}, "not available here"),
        ({"pairs": "live"}, "`generator=tests.helpers.toys:linear`"),
        ({"pairs": "live", "pairs_per_class": 2}, "`pairs=bank`"),
        ({"pairs_per_class": 1000}, "classes need 1000 each"),
    ],
)
def test_what_does_not_fit_is_named_before_the_first_round(toy_store, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        assemble(planned(toy_store, **settings))


@pytest.mark.parametrize("live", [{"generator": "tests.helpers.toys:linear"}, {"weights": "weights.pkl"}])
def test_what_live_pairs_alone_need_is_not_passed_over_without_them(toy_store, live):
    with pytest.raises(UserError, match="for live pairs; add `pairs=live`"):
        assemble(planned(toy_store, **live))


@pytest.mark.parametrize(
    "settings",
    [
        {"models": "FedAvgCNN,resnet4", "feature_dim": 512, "batch_size": 4},
        {"models": "tests.helpers.toys:tiny", "batch_size": 1},
        {"drop_last": True, "batch_size": 24},
    ],
)
def test_what_just_fits_trains(toy_store, settings):
    _, state = played(planned(toy_store, "local", rounds=1, **settings))
    assert state.history["client_metrics/loss"].isfinite().all()
