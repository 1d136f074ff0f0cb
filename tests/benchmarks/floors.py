"""What a round must cost: FLOPs and bytes of each phase over the device's rates, and the bytes it must hold."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from stages.algorithms.common.records import tensors
from stages.algorithms.contract import ClientState
from stages.engines import checkpoint, clients
from stages.engines.federation import Federation, State
from tests.benchmarks import machine

CHECKPOINT_EVERY = 10  # rounds among which the cost of one is divided


def frozen_copy(client: ClientState) -> ClientState:
    return ClientState(copy.deepcopy(client.model), dict(client.private))


def flops(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def per_image(model: nn.Module, shape: tuple[int, ...]) -> tuple[int, int]:
    """FLOPs of one image: forward alone, and forward with backward."""
    outline, x = copy.deepcopy(model).to("meta").train(), torch.empty(2, *shape, device="meta")
    forward = flops(lambda: outline(x))
    return forward // 2, flops(lambda: outline(x).sum().backward()) // 2


def steps(federation: Federation) -> int:
    """Steps of local training in a round in which every client takes part."""
    return sum(len(clients.batches(federation, share)) for share in federation.shares["train"])


def seconds(federation: Federation, state: State) -> dict[str, float]:
    """Least seconds of each phase of a FedKTL round in which every client takes part and there are pairs."""
    device, hyper, server = federation.device, federation.hyper, state.server
    costs: dict[str, tuple[int, int]] = {}
    training = prototypes = evaluation = 0
    for number, client in enumerate(state.clients):
        seen = clients.batches(federation, federation.shares["train"][number])
        key = str(client.model)
        if key not in costs:
            costs[key] = per_image(client.model, tuple(seen.images.shape[1:]))
        forward, both = costs[key]
        training += 2 * both * len(seen) * seen.size  # own images and pairs
        prototypes += forward * len(seen.labels)
        evaluation += forward * sum(int(federation.sizes[split][number]) for split in ("test", "validation"))
    uploads = int(state.history.last("rounds/upload_floats").sum()) // federation.classes
    rate = machine.flops_rate(device)
    saved = sum(tensor.numel() * tensor.element_size() for tensor in checkpoint.pack(state).values())
    return {
        "local training": training / rate, "prototypes": prototypes / rate, "evaluation": evaluation / rate,
        "alignment": hyper.server_epochs * alignment_flops(server, uploads) / rate,
        "checkpoint": saved / machine.disk_rate() / CHECKPOINT_EVERY,
    }  # fmt: skip


def alignment_flops(server, uploads: int) -> int:
    """FLOPs of an epoch over the prototypes: the transformer both ways, distances of 2 x 2 batches and their gradient."""
    transformer = copy.deepcopy(server.transformer).train()
    width, classes = server.centroids.shape[1], len(server.centroids)
    x = torch.rand(max(2, min(uploads, 100)), classes, device=server.centroids.device)

    def step() -> None:
        mapped = transformer(x)
        F.mse_loss(mapped @ mapped.T, mapped @ torch.rand(width, len(x), device=x.device)).backward()

    return flops(step) * uploads // len(x)


def held(federation: Federation, state: State) -> dict[str, int]:
    """Bytes of the data, of all models, and of one worker's activations and gradients at their largest."""

    def size(parts) -> int:
        return sum(part.numel() * part.element_size() for part in parts)

    shares = [share for split in federation.shares.values() for share in split]
    source = federation.pairs
    bank = [value for value in vars(source).values() if isinstance(value, torch.Tensor)]
    models = [tensors(client.model).values() for client in state.clients]
    unique = {str(client.model): number for number, client in enumerate(state.clients)}
    work = max(activations(federation, state, number) for number in unique.values())
    return {
        "data": size([t for share in shares for t in (share.images, share.labels)] + bank),
        "models": sum(size(model) for model in models), "activations": work,
    }  # fmt: skip


def activations(federation: Federation, state: State, number: int) -> int:
    """Bytes that autograd keeps of one step's own images and pairs, and the gradients that come of it."""
    model, kept = copy.deepcopy(state.clients[number].model).train(), {}
    ours = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in ours:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    x = torch.rand(
        federation.settings.batch_size, *federation.shares["train"][number].images.shape[1:], device=federation.device
    )
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(x).sum() + model(x).sum()
    gradients = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    del loss
    return sum(kept.values()) + gradients
