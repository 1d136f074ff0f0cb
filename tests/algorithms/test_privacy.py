"""Clipping and noise on uploaded prototypes: their size by hand, what is off changes nothing, what a run says of it."""

import math
from dataclasses import dataclass, replace

import pytest
import torch

from stages import algorithms
from stages.algorithms.common import privacy
from stages.algorithms.common.privacy import Protected, epsilon, sensitivity
from stages.algorithms.contract import Hyperparameters
from stages.engines import clients, playing
from stages.engines.assembly import assemble
from stages.errors import UserError
from stages.randomness import Rng
from tests.helpers.cli import TINY, run
from tests.helpers.toy_runs import planned

PROTECTING = ["fedktl", "ktl", "fedproto", "fedtgp", "fedgh"]
ROWS = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0], [0.6, -0.8]])


@dataclass(frozen=True)
class Upload:
    labels: torch.Tensor
    prototypes: torch.Tensor


@dataclass(frozen=True)
class More:
    prototypes: torch.Tensor
    head: torch.Tensor


def uploaded(hyper, rows=ROWS, rng=None, unit_rows=()):
    return hyper.released(Upload(torch.arange(len(rows)), rows), unit_rows, rng or Rng(0)).prototypes


def test_off_is_off_bit_for_bit():
    assert uploaded(Protected()) is ROWS
    assert uploaded(Protected(clip=10.0)).equal(ROWS)


def test_a_row_longer_than_clip_is_shortened_to_it():
    expected = torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0], [0.6, -0.8]])
    torch.testing.assert_close(uploaded(Protected(clip=1.0)), expected)


def test_the_noise_has_the_size_that_arithmetic_gives():
    # Four rows of length 0.5 at most move by 2 x 0.5 x sqrt(4) = 2 together; 1.5 times that is a deviation of 3.
    assert sensitivity(0.5, 4) == 2.0
    rows = torch.zeros(4, 50_000)
    noise = uploaded(Protected(clip=0.5, noise=1.5), rows)
    assert abs(float(noise.std()) - 3.0) < 0.02 and abs(float(noise.mean())) < 0.03
    assert float(noise.std(1).max() - noise.std(1).min()) < 0.06  # in every row alike


def test_rows_that_a_method_wants_of_length_one_have_it_after_the_noise():
    torch.testing.assert_close(
        uploaded(Protected(clip=1.0, noise=2.0), unit_rows=["prototypes"]).norm(dim=1), torch.ones(4)
    )


def test_noise_is_of_the_seed_and_of_a_secret_that_the_server_does_not_have():
    hyper = Protected(clip=1.0, noise=1.0)
    plain, again = uploaded(hyper, rng=Rng(0).at("round", 1)), uploaded(hyper, rng=Rng(0).at("round", 1))
    hidden, other = (uploaded(hyper, rng=Rng(0, secret=secret).at("round", 1)) for secret in ("a", "b"))
    assert plain.equal(again) and not plain.equal(hidden) and not hidden.equal(other)
    assert Rng(0, secret="a").at("x").seed("batches") == Rng(0).at("x").seed("batches")  # nothing else depends on it


def test_epsilon_is_the_accountants():
    pytest.importorskip("opacus")
    # The exact one of a Gaussian mechanism of multiplier 1 at delta 1e-5 is 4.377 (Balle and Wang, 2018).
    assert 4.377 <= epsilon(1.0, 1) <= 4.377 * 1.15
    assert math.isclose(epsilon(2.0, 4), epsilon(1.0, 1))  # four of multiplier 2 are one of 2 / sqrt(4)
    assert epsilon(1.0, 10) > epsilon(1.0, 1) > epsilon(2.0, 1)


def test_the_algorithms_that_have_the_settings_are_those_that_protect():
    found = {name: algorithms.get(name) for name in algorithms.NAMES}
    assert {name for name, algorithm in found.items() if issubclass(algorithm.Hyper, Protected)} >= set(PROTECTING)
    assert Hyperparameters().privacy(3) is None and Protected(clip=1.0).privacy(3) is None
    assert Hyperparameters().released(ROWS, (), Rng(0)) is ROWS


@pytest.mark.parametrize("name", [*PROTECTING, "tests.helpers.toys:OWN"])
def test_the_engine_adds_the_noise_whatever_an_algorithm_does(toy_store, name):
    """So an algorithm that has the settings can't claim an epsilon without it: a client that learns nothing shows it alone."""

    def upload(**hyper):
        federation, state = assemble(planned(toy_store, name, hyper={**hyper, "clip": 0.5}, lr=1e-12))
        share = federation.shares["train"][0]
        return clients.train(federation, 0, state.clients[0], share, 0, None).upload.prototypes

    clipped, noisy = upload(), upload(noise=2.0)
    assert float(clipped.norm(dim=1).max()) <= 0.5 + 1e-6
    unit = "prototypes" in algorithms.get(name).unit_rows
    size = float((noisy - clipped).std())
    assert size > 0.1 if unit else abs(size / (2.0 * sensitivity(0.5, len(clipped))) - 1) < 0.25


def test_other_floats_do_not_leave_beside_protected_prototypes(toy_store):
    with pytest.raises(UserError, match="only floats are prototypes; this algorithm's are head, prototypes"):
        Protected(clip=1.0, noise=1.0).released(More(ROWS, ROWS), (), Rng(0))
    assert Protected().released(Upload(ROWS, ROWS), (), Rng(0)).labels is ROWS  # not asked for


@pytest.mark.parametrize(
    ("hyper", "said"), [({"noise": 1}, "noise needs a clip"), ({"noise": 1e-9, "clip": 1}, "at least")]
)
def test_noise_that_promises_nothing_is_refused(hyper, said):
    with pytest.raises(UserError, match=said):
        Protected(**hyper)


def test_a_run_says_what_its_noise_promises(toy_store, monkeypatch):
    monkeypatch.setattr(privacy, "epsilon", lambda noise, releases: 100 * noise + releases)
    told = run(
        toy_store.root,
        "train",
        *TINY[:4],
        "--algorithm",
        "fedproto",
        "--rounds",
        "3",
        "--set",
        "noise=0.5",
        "--set",
        "clip=1",
    )
    assert (
        "3 uploads of prototypes are (53, 1e-05)-differentially private; the unit is all images of a client"
        in " ".join(told.stderr.split())
    )
    facts = toy_store.newest("run").attributes["facts"]
    assert facts["privacy"] == {
        "protects": "prototypes", "unit": "all images of a client, with the same classes", "noise": 0.5, "clip": 1.0,
        "releases": 3, "delta": 1e-5, "epsilon": 53.0,
    }  # fmt: skip


def test_without_the_accountant_the_run_says_that_epsilon_is_not_computed(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "opacus.accountants", None)
    promise = replace(Protected(), clip=1.0, noise=1.0).privacy(5)
    assert promise["epsilon"] is None
    assert "epsilon is not computed; `pip install 'fedktl[privacy]'`" in playing.private(promise)


def test_a_node_draws_its_secret_once_for_its_own_user(tmp_path):
    pytest.importorskip("flwr")
    from stages.engines.flower.node import secret_in

    secret = secret_in(tmp_path / "clients")
    assert len(bytes.fromhex(secret)) == 16 and secret_in(tmp_path / "clients") == secret
    assert secret_in(tmp_path / "others") != secret
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "clients").iterdir()] == [0o600]
