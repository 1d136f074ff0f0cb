"""One round among three clients in the shape of CIFAR-100, to count what an algorithm sends."""

from dataclasses import dataclass

import torch

from stages import algorithms
from stages.algorithms.common.batches import Batches
from stages.algorithms.common.records import cost
from stages.algorithms.contract import ClientState, Task
from stages.models.split import SplitModel
from stages.randomness import Rng
from tests.helpers.toys import tiny

CLASSES, WIDTH, HEAD = 100, 512, 51_300
CLIENTS, PAIRS = 3, 120  # each client has 40 classes, one image of each; together they have all
TASK = Task(CLIENTS, CLASSES, WIDTH, latent_dim=0, lr=0.01, batch_size=20, device=torch.device("cpu"))


@dataclass
class Exchange:
    uploads: dict
    download: object

    @property
    def up(self) -> int:
        """Floats that all clients sent."""
        return sum(cost(upload)[0] for upload in self.uploads.values())

    @property
    def down(self) -> int:
        """Floats that one client gets."""
        return cost(self.download)[0]


def exchanged(name: str, **hyper) -> Exchange:
    algorithm = algorithms.get(name)
    chosen = algorithm.Hyper(**hyper)
    state, shared = algorithm.init(chosen, TASK, Rng(0))
    uploads = {}
    for number in range(CLIENTS):
        torch.manual_seed(number)
        client = ClientState(SplitModel(tiny(3, 32, CLASSES), WIDTH, CLASSES))
        images = torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8)
        batches = Batches(images, torch.arange(40) + 30 * number, 20)
        uploads[number], _ = algorithm.client_update(chosen, shared, client, None, batches, Rng(number))
    _, download, _ = algorithm.server_update(chosen, shared, state, uploads, Rng(0))
    return Exchange(uploads, download)
