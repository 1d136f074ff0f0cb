"""The yardstick of the round benchmark: the same steps with nothing around them."""

from __future__ import annotations

import copy
import time
from itertools import islice

import torch
from torch import nn
from torch.nn import functional as F

from stages.algorithms.common.batches import endless
from stages.algorithms.common.losses import arcface
from stages.models.convolution import Conv2d
from stages.pixels import normalised


def bare_seconds(hyper, shared, client, download, batches, rng) -> float:
    """Seconds of a FedKTL client's local training as a plain loop over batches that lie ready on the device.

    Forward, backward, clip, SGD step on a copy of the client's model in PyTorch's usual memory format: the arithmetic of
    `fedktl.client_update`.
    """
    task, model = shared.task, plain(client.model).train()
    projection = nn.Linear(task.feature_dim, task.latent_dim)
    projection.load_state_dict(shared.projection)
    projection.to(task.device)
    ready = [(x.contiguous(), y.clone()) for x, y in batches.steps(rng)]
    pairs: list = [None] * len(ready)
    if download:
        steps = endless((normalised(download.images), download.latents), task.batch_size, rng.torch("pairs"))
        pairs = [(images.contiguous(), latents) for images, latents in islice(steps, len(ready))]
    optimizer = torch.optim.SGD([*model.parameters(), *projection.parameters()], lr=task.lr)
    begun = time.perf_counter()
    for (x, y), pair in zip(ready, pairs, strict=True):
        loss = arcface(model(x), y, shared.etf, hyper.margin, hyper.scale)
        if pair:
            images, latents = pair
            loss = loss + hyper.mu * F.mse_loss(projection(model.base(images)), latents)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 100)
        nn.utils.clip_grad_norm_(projection.parameters(), 100)
        optimizer.step()
    if task.device.type == "cuda":
        torch.cuda.synchronize(task.device)
    return time.perf_counter() - begun


def plain(model: nn.Module, memory_format: torch.memory_format = torch.contiguous_format) -> nn.Module:
    """A copy that convolves as PyTorch does, by default in its usual memory format."""
    model = copy.deepcopy(model).to(memory_format=memory_format)
    for layer in model.modules():
        if isinstance(layer, Conv2d):
            layer.__class__ = nn.Conv2d
    return model
