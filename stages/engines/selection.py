"""What the clients predicted with after the round that validation selects, kept while they train on."""

from __future__ import annotations

from collections.abc import Callable

import torch

from stages.engines.checkpoint import predicting
from stages.engines.federation import Federation, State
from stages.means import selected


def is_selected(federation: Federation, state: State) -> bool:
    """Whether the models as they are were evaluated, and are the best so far on validation images."""
    accuracy, samples = state.history["rounds/validation_accuracy"].numpy(), federation.sizes["validation"].numpy()
    best = selected(accuracy, samples)
    return best is not None and int(state.history["rounds/evaluated"][best]) == state.rounds


def keep(federation: Federation, state: State, collect: Callable[[], None]) -> None:
    """Copy what the clients predict with into host memory if their round is the selected one; they are about to train on.

    `collect` brings their states here; where they never come here, there is nothing to copy.
    """
    if (state.clients or state.shelf) and federation.settings.keep != "last" and is_selected(federation, state):
        collect()
        state.selected = {
            name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
            for name, tensor in predicting(state).items()
        }
