"""The price of a run, with a clock that counts what is asked of the clients."""

import os
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch

from stages import memory
from stages.clock import phase
from stages.engines import clients
from stages.engines.assembly import assemble
from stages.engines.local import InProcess
from stages.engines.preview import preview
from stages.engines.trials import largest
from stages.models.split import parameters
from stages.prepare import prepare
from stages.settings import Prepare
from tests.helpers.toy_runs import planned

TURN, STEP, IMAGE, KERNELS = 0.03, 0.002, 0.0005, 0.6


@pytest.fixture
def counted(monkeypatch):
    """Clients' turns and evaluations take the seconds above, the first turn with batches of a size more, and nothing else any.

    Gives a function that lets more seconds pass.
    """
    now, known = [0.0], set()
    train, evaluated = clients.train, clients.evaluated

    def timed_train(federation, client, state, share, *rest):
        now[0] += TURN + STEP * len(clients.batches(federation, share))
        batch = id(state.model), min(len(share.labels), federation.settings.batch_size)
        now[0] += KERNELS * (batch not in known)
        known.add(batch)
        return train(federation, client, state, share, *rest)

    def timed_evaluation(federation, state, shares, download):
        now[0] += IMAGE * sum(len(share.labels) for share in shares.values())
        return evaluated(federation, state, shares, download)

    clock = SimpleNamespace(process_time=lambda: now[0])  # what else the machine does costs nothing
    monkeypatch.setattr(clients, "train", timed_train)
    monkeypatch.setattr(clients, "evaluated", timed_evaluation)
    monkeypatch.setattr("stages.engines.trials.time", clock)
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


@pytest.mark.parametrize(
    ("settings", "joined", "evaluations", "epochs"),
    [
        ({}, 1, 1, 1),
        ({"local_epochs": 3}, 1, 1, 3),
        ({"join_ratio": 0.5, "eval_every": 4}, 0.5, 0.25, 1),
        ({"join_ratio": 0.5, "random_join": True}, 0.75, 1, 1),
        ({"join_ratio": 0.5, "eval_clients": "joined"}, 0.5, 0.5, 1),
    ],
)
def test_a_round_costs_its_turns_and_evaluations(toy_store, counted, settings, joined, evaluations, epochs):
    found = preview(planned(toy_store, "local", rounds=10, workers=1, **settings))
    turns = 4 * (TURN + epochs * 3 * STEP)  # 4 clients with 24 images, in batches of 8
    images = 4 * (10 + 6)
    assert found["seconds_per_round"] == pytest.approx(joined * turns + evaluations * images * IMAGE)
    first = evaluations * settings.get("eval_every", 1) * images * IMAGE  # before the first round
    assert found["seconds"] == pytest.approx(10 * found["seconds_per_round"] + first)


def test_a_phase_of_the_clients_is_not_the_servers_whatever_its_name(toy_store, counted):
    spec = planned(toy_store, "local", rounds=10, workers=1)

    def client_update(*given):
        with phase("thinking"):
            counted(0.1)
            return spec.algorithm.client_update(*given)

    thoughtful = replace(spec, algorithm=replace(spec.algorithm, client_update=client_update))
    without, found = (preview(one)["seconds_per_round"] for one in (spec, thoughtful))
    assert found == pytest.approx(without + 4 * 0.1)  # 4 clients


@pytest.mark.parametrize(("workers", "rounds", "expected"), [(3, 10, 3), (9, 10, 4), (None, 100_000, 2), (None, 2, 1)])
def test_clients_are_divided_among_the_processes_that_the_run_would_have(
    toy_store, counted, monkeypatch, workers, rounds, expected
):
    monkeypatch.setattr("stages.engines.growing.cores", lambda: 2)
    alone = preview(planned(toy_store, "local", rounds=rounds, workers=1))
    found = preview(planned(toy_store, "local", rounds=rounds, workers=workers))
    assert found["workers"] == expected
    assert found["seconds_per_round"] == pytest.approx(alone["seconds_per_round"] / expected)


def test_jobs_leave_each_other_cores(toy_store, counted, monkeypatch):
    monkeypatch.setattr("stages.engines.growing.cores", lambda: 4)
    found = [preview(planned(toy_store, "local", rounds=100_000, jobs=jobs))["workers"] for jobs in (1, 2, 4)]
    assert found == [4, 2, 1]


def test_memory_and_disk_count_every_client_and_hold_one_of_each_architecture(toy_store):
    plan = planned(toy_store, "local", workers=1)
    found, (_, state) = preview(plan), assemble(plan)
    models = sum(tensor.nbytes for client in state.clients for tensor in client.model.state_dict().values())
    assert models <= found["weights_bytes"]["last"] < 1.1 * models
    assert found["disk"] == sum(found["weights_bytes"].values()) and found["most_disk"] > 3 * models
    assert 50e6 < found["host_memory"] < 8e9 and found["device_memory"] == 0
    alike = assemble(plan, alike=True)[1].clients
    assert len(alike) == 4 and len({id(client.model) for client in alike}) == 2


def test_the_client_with_most_images_is_timed_for_its_architecture():
    sizes = [30, 10, 20, 40, 50]
    shares = {"train": [SimpleNamespace(labels=range(size)) for size in sizes]}
    assert largest(SimpleNamespace(shares=shares), ["CNN", "resnet4", "CNN", "resnet4", "resnet6"]) == [0, 3, 4]


@pytest.mark.parametrize("name", ["fd", "fedkd", "fedl2g", "fedmrl"])
def test_what_a_client_keeps_to_itself_is_not_taken_for_that_of_another_of_its_architecture(toy_store, name):
    """It may be about its images, of which the others have more or fewer."""
    uneven = prepare(toy_store, "uneven", Prepare(clients=6, beta=0.2, min_samples=20, image_size=16))
    assert preview(replace(planned(toy_store, name, batch_size=1, workers=1), data=uneven))["seconds_per_round"] > 0


@dataclass(frozen=True)
class Everything:
    weights: torch.Tensor


def test_one_model_stands_for_all_in_the_small_round_only_if_all_send_the_same(toy_store):
    """Two clients of either architecture: what they send is counted right even if it depends on their model."""
    plan = planned(toy_store, "local", workers=1)
    models = [client.model for client in assemble(plan)[1].clients]

    def client_update(hyper, shared, client, *given):
        _, metrics = plan.algorithm.client_update(hyper, shared, client, *given)
        trained.append(parameters(client.model))
        return Everything(torch.cat([p.detach().flatten() for p in client.model.parameters()])), metrics

    trained = []
    found = preview(replace(plan, algorithm=replace(plan.algorithm, client_update=client_update)))
    assert found["upload_floats_per_round"] == sum(parameters(model) for model in models)
    small, large = sorted(set(map(parameters, models)))
    assert trained[:6] == [small, large, *map(parameters, models)]

    def silent(*given):
        client_update(*given)
        return plan.algorithm.client_update(*given)

    trained = []
    preview(replace(plan, algorithm=replace(plan.algorithm, client_update=silent)))
    assert trained[:6] == [small, large, *[small] * 4]


def test_a_client_trains_only_where_its_model_was_brought(toy_store, monkeypatch):
    """Where models wait in the memory of the host, the pool brings each to the GPU for its turn."""
    present, train, here = InProcess._present, clients.train, []

    @contextmanager
    def noted(self, *given):
        with present(self, *given) as state:
            here.append(state.model)
            yield state
            here.remove(state.model)

    def checked(federation, client, state, *rest):
        assert any(state.model is model for model in here)
        return train(federation, client, state, *rest)

    monkeypatch.setattr(InProcess, "_present", noted)
    monkeypatch.setattr(clients, "train", checked)
    preview(planned(toy_store, "fedproto", workers=1))


def test_peak_memory_is_that_since_the_watch_began():
    memory.watch()
    before = memory.peak()
    block = bytearray(os.urandom(1 << 20) * 64)
    assert memory.peak() >= before + len(block) // 2
    del block
