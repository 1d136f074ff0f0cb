"""Where models wait, and how numbers are computed."""

import pytest
import torch
from torch import nn

from stages import devices
from stages.engines.assembly import assemble
from stages.engines.local import InProcess
from stages.errors import UserError
from stages.settings import Train
from tests.helpers.toy_runs import planned, played, same, weights

GPU, HOST = torch.device("cuda"), torch.device("cpu")


@pytest.mark.parametrize(
    ("offload", "free", "where"),
    [("auto", 81, GPU), ("auto", 79, HOST), ("on", 10**9, HOST), ("off", 1, GPU)],
)
def test_models_that_would_fill_more_than_half_the_device_wait_in_host_memory(offload, free, where, monkeypatch):
    monkeypatch.setattr(devices, "free", lambda device: free)
    models = [nn.Linear(4, 1, bias=False), nn.Linear(6, 1, bias=False)]  # 40 bytes
    assert devices.home(offload, models, GPU) == where
    assert devices.home(offload, models, HOST) == HOST


def test_a_model_comes_to_the_device_for_its_turn_and_goes_back(toy_store, monkeypatch):
    federation, state = assemble(planned(toy_store, "local"))
    federation.device, moves = GPU, []
    monkeypatch.setattr(type(state.clients[0].model), "to", lambda self, device: moves.append(device))
    with InProcess(federation, state.clients)._present(0):
        assert moves == [GPU]
    assert moves == [GPU, HOST]


@pytest.mark.parametrize("settings", [{"precision": "tf32"}, {"deterministic": True}, {"offload": "on"}])
def test_what_concerns_a_gpu_changes_nothing_on_a_cpu(toy_store, settings):
    (_, plain), (_, other) = played(planned(toy_store)), played(planned(toy_store, **settings))
    devices.set_up(Train())
    assert same(weights(plain), weights(other))


def test_a_training_does_not_wait_for_the_compiler_that_it_has_no_use_for(monkeypatch):
    monkeypatch.setattr(torch, "use_deterministic_algorithms", pytest.fail)  # it imports the compiler, which takes 2 s
    for wanted in (True, False):
        devices.set_up(Train(deterministic=wanted))
        assert torch.are_deterministic_algorithms_enabled() == wanted
    assert not torch.is_deterministic_algorithms_warn_only_enabled()


def test_a_users_model_without_deterministic_algorithms_trains_all_the_same():
    devices.set_up(Train(deterministic=True))
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    devices.set_up(Train())


def test_bfloat16_learns_the_same_within_its_precision(toy_store):
    (_, full), (_, half) = played(planned(toy_store, rounds=2)), played(planned(toy_store, rounds=2, precision="bf16"))
    one, other = (state.history["client_metrics/loss"] for state in (full, half))
    assert not torch.equal(one, other)
    torch.testing.assert_close(one, other, rtol=0.1, atol=0.1)
    assert all(value.dtype != torch.bfloat16 for value in weights(half).values())


def test_a_run_that_a_gpu_has_no_room_for_is_refused_with_what_would_fit(monkeypatch):
    models = [nn.Linear(250, 1, bias=False) for _ in range(10)]  # 1000 bytes each
    for room, in_flight, advice in (
        (1000 + 10_000 + 24_000, 8, None),
        (1000 + 10_000 + 23_999, 8, "`offload=on in_flight=8` would fit"),
        (1000 + 4 * 4000, 8, "`offload=on in_flight=4` would fit"),
        (4999, 8, "use smaller models or `device=cpu`"),
    ):
        monkeypatch.setattr(devices, "free", lambda device, room=room: room)
        settings = Train(in_flight=in_flight, offload="off")
        if advice is None:
            devices.check_room(GPU, 1000, models, settings)
        else:
            with pytest.raises(UserError, match=advice):
                devices.check_room(GPU, 1000, models, settings)
    devices.check_room(HOST, 10**15, models, Train())
