"""KTL: FedKTL's loop for one client."""

import dataclasses

import pytest

from stages.algorithms import fedktl, ktl
from stages.algorithms.common.records import cost
from stages.engines.assembly import assemble
from stages.errors import UserError
from tests.helpers.toy_runs import planned, played


def test_a_federation_is_refused(toy_store):
    plan = dataclasses.replace(planned(toy_store, "ktl"), data=toy_store.open("toy"))
    with pytest.raises(UserError, match=r"one client, and the data has 4; use fedktl"):
        assemble(plan)


def test_it_is_fedktls_step_with_fedktls_messages(toy_store):
    federation, state = played(planned(toy_store, "ktl"))
    assert ktl.ALGORITHM.client_update is fedktl.ALGORITHM.client_update
    present = len(federation.shares["train"][0].labels.unique())
    assert state.history["rounds/upload_floats"].tolist() == [[present * 5]] * 3
    assert cost(state.download)[0] == 5 * (8 + 3 * 16 * 16)


def test_its_centroids_stay_among_the_latents(toy_store):
    _, state = played(planned(toy_store, "ktl", rounds=10, lr=0.1))
    assert state.server.centroids.abs().max() < 10 * state.download.latents.abs().max()
    assert (state.history["server_metrics/mse"] < 10).all()


def test_it_needs_latents_as_fedktl_does():
    assert ktl.Hyper().needs_latents() and not ktl.Hyper(transfer=False).needs_latents()
