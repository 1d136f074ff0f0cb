"""Local training: every client on its own images alone, the yardstick that a federation must beat."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from stages.algorithms.common.batches import Batches
from stages.algorithms.common.sgd import SGD, LossAndMetrics
from stages.algorithms.contract import ClientState, Hyperparameters, Metrics, Stateless, Task
from stages.randomness import Rng


def client_update(
    hyper: Hyperparameters, shared: Task, client: ClientState, download: None, batches: Batches, rng: Rng
) -> tuple[None, Metrics]:
    model = client.model.train()

    def objective(x: Tensor, y: Tensor) -> LossAndMetrics:
        loss = F.cross_entropy(model(x), y)
        return loss, {"loss": loss}

    return None, SGD(shared.lr, model).minimise(objective, batches.steps(rng))


ALGORITHM: Stateless[Hyperparameters, None, None] = Stateless("local", "no federation", client_update=client_update)
