"""Clients on a real GPU: replayed steps are the eager ones, and any number of clients in flight computes the same."""

from itertools import islice

import pytest
import torch
from torch import nn

from stages import algorithms, devices
from stages.algorithms.common import cuda_graphs, one_pass
from stages.algorithms.common.batches import endless
from stages.algorithms.common.cuda_graphs import Baton, CudaLane, Refused
from stages.engines import checkpoint, rounds
from stages.engines.assembly import assemble
from stages.engines.local import InProcess, in_process
from stages.engines.preview import preview
from stages.engines.slots import Slots
from stages.models import zoo
from stages.observer import SILENT
from stages.settings import Train
from tests.benchmarks.cases import Case, make_bank, make_data
from tests.helpers.toy_runs import planned, same, weights

pytestmark = pytest.mark.gpu
GPU = torch.device("cuda", 0)
ARCHITECTURES = sorted({part for group in ("HtFE8", "small") for part in zoo.GROUPS[group]})


class Eager(CudaLane):
    def capture(self, work):
        raise Refused("so that steps stay eager")


@pytest.fixture(autouse=True)
def reproducible(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "_refused", set())
    devices.set_up(Train(deterministic=True))
    yield
    devices.set_up(Train())


def played(plan, count=1, lane=CudaLane, start=None):
    """The state after all rounds, on `count` slots, from the checkpoint `start` if there is one."""
    federation, state = assemble(plan)
    if start:
        checkpoint.unpack(state, checkpoint.read(start), plan.algorithm, federation.device)
    baton = Baton()
    pool = InProcess(federation, state.clients, Slots([lane(GPU, baton) for _ in range(count)]))
    try:
        rounds.run(federation, state, pool, SILENT, lambda s: None)
    finally:
        pool.close()
    return state


def on_gpu(store, algorithm="fedktl", **settings):
    return planned(store, algorithm, device="cuda:0", deterministic=True, **settings)


@pytest.fixture
def pictures(toy_store):
    """A store whose images are of CIFAR-10's size."""
    make_data(toy_store, Case("", 2, 60))
    make_bank(toy_store)
    return toy_store


def pictured(store, models, algorithm="fedktl", **settings):
    settings = {"models": models, "feature_dim": 512, "batch_size": 10, "rounds": 2} | settings
    plan = on_gpu(store, algorithm, **settings)
    object.__setattr__(plan, "data", store.open("made-up", "data"))
    object.__setattr__(plan, "latents", store.open("made-up", "latents"))
    return plan


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_replayed_steps_are_the_eager_ones(pictures, name):
    plan = pictured(pictures, name)
    assert same(weights(played(plan)), weights(played(plan, lane=Eager)))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_pairs_go_with_the_own_images_in_tf32_too(pictures, name, monkeypatch):
    monkeypatch.setattr(one_pass, "_known", {})
    played(pictured(pictures, name, precision="tf32", hyper={"statistics": "both"}))
    assert list(one_pass._known.values()) == [True]


@pytest.mark.parametrize("algorithm", algorithms.NAMES)
def test_every_algorithm_can_be_captured(toy_store, algorithm):
    plan = on_gpu(toy_store, algorithm)
    captured = played(plan)
    assert not cuda_graphs._refused
    assert same(weights(captured), weights(played(plan, lane=Eager)))


def test_the_median_bandwidth_can_be_captured(toy_store):
    played(on_gpu(toy_store, hyper={"mmd_bandwidth": "median"}))
    assert not cuda_graphs._refused


@pytest.mark.parametrize("algorithm", ["fedktl", "fedkd", "fedproto", "fedl2g"])
def test_eight_slots_compute_what_one_does(toy_store, algorithm):
    """Half of the clients draw dropout."""
    plan = on_gpu(toy_store, algorithm, rounds=3)
    assert same(weights(played(plan)), weights(played(plan, 8)))


def test_a_run_resumed_equals_one_in_one_go(toy_store, tmp_path):
    whole, half = played(on_gpu(toy_store, rounds=4), 4), played(on_gpu(toy_store, rounds=2), 4)
    checkpoint.write(half, tmp_path / "c.safetensors")
    resumed = played(on_gpu(toy_store, rounds=4), 4, start=tmp_path / "c.safetensors")
    assert same(weights(whole), weights(resumed))


def test_a_dry_run_tries_models_that_wait_on_the_host(toy_store):
    assert preview(on_gpu(toy_store, offload="on"))["device_memory"] > 0


def test_pairs_come_in_the_order_in_which_a_cpu_takes_them():
    def rows(device):
        given = endless((torch.zeros(7, device=device),), 3, torch.Generator().manual_seed(0)).given
        return [each[0].tolist() for each in islice(given, 1000)]

    assert rows("cuda:0") == rows("cpu")


def test_off_loaded_models_compute_the_same(toy_store):
    here, there = (played(on_gpu(toy_store, offload=offload), 2) for offload in ("off", "on"))
    assert next(there.clients[0].model.parameters()).device.type == "cpu"
    assert same(weights(here), weights(there))


def test_reserved_memory_is_flat_from_the_third_round_on(pictures):
    plan = pictured(pictures, "FedAvgCNN,googlenet,resnet18")
    federation, state = assemble(plan)
    baton = Baton()
    pool, reserved = InProcess(federation, state.clients, Slots([CudaLane(GPU, baton) for _ in range(2)])), []
    for _ in range(7):
        rounds.play_round(federation, state, pool)
        rounds.evaluate(federation, state, pool)
        reserved.append(torch.cuda.memory_reserved())
    pool.close()
    assert max(reserved[3:]) <= 1.02 * reserved[2], reserved


class Waiting(nn.Module):
    """Reads a value back in the middle of a step, which no capture can hold."""

    def forward(self, x):
        return x * (1.0 if float(x.detach().abs().max()) >= 0 else 2.0)


def waiting(channels, size, classes):
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.2), Waiting(), nn.Linear(channels * size * size, classes))


def test_a_refused_capture_changes_nothing(toy_store):
    """Dropout's numbers included; and clients whose steps can be captured are not slowed down."""
    plan = on_gpu(toy_store, models="tests.gpu.test_training:waiting,tests.helpers.toys:narrow")
    refused = played(plan, 3)
    assert len(cuda_graphs._refused) == 1
    assert same(weights(refused), weights(played(plan, lane=Eager)))


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_two_deterministic_runs_are_equal(pictures, precision):
    def run():
        federation, state = assemble(pictured(pictures, "resnet4,mobilenet_v2", precision=precision))
        pool = in_process(federation, state.clients)
        rounds.run(federation, state, pool, SILENT, lambda s: None)
        pool.close()
        return weights(state)

    assert same(run(), run())


def test_accuracy_is_that_of_a_cpu(toy_store):
    gpu = played(on_gpu(toy_store, "local", rounds=8, lr=0.05, models="tests.helpers.toys:tiny"), 4)
    federation, state = assemble(
        planned(toy_store, "local", rounds=8, lr=0.05, models="tests.helpers.toys:tiny", device="cpu")
    )
    rounds.run(federation, state, InProcess(federation, state.clients), SILENT, lambda s: None)
    one, other = (run.history["rounds/test_accuracy"] for run in (gpu, state))
    torch.testing.assert_close(one, other, rtol=0, atol=0.1)
