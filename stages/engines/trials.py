"""Trials of a few real steps: what a client's turn and an evaluation take, by its architecture."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from stages.algorithms.common.batches import Batches, eval_batch
from stages.algorithms.contract import ClientState
from stages.engines.clients import batches
from stages.engines.federation import ClientData, Federation, State
from stages.engines.local import in_process
from stages.models.split import parameters

LONG = 0.25  # seconds; longer steps are timed once, quicker ones as often as they fit
MOST_STEPS = 64
FEW_IMAGES = 10  # to evaluate; where they are quick, as many as fit and the model takes at once
IMAGE_PASSES = 6  # that an image costs in a step: forward and back, the latter twice as long, and as much for a pair


@dataclass(frozen=True)
class Pace:
    """Seconds of a client's turn besides its steps, of a step, and of an image evaluated."""

    turn: float
    step: float
    image: float


def pace(federation: Federation, state: State, client: int) -> Pace:
    with closing(Trial(federation, state, [client])) as trial:
        trial.train(1)  # no measure: libraries choose their kernels in it
        few, steps = trial.train(1)
        turn, step = 0.0, few / steps
        if step < LONG or federation.device.type != "cpu":
            many, more = trial.train(min(MOST_STEPS, 2 + int(LONG / few)))
            if more > steps:
                step = max(0.0, many - few) / (more - steps)
                turn = max(0.0, few - steps * step)
        image = step / (IMAGE_PASSES * federation.settings.batch_size)
        most = eval_batch(federation.shares["test"][client].images, parameters(state.clients[client].model))
        return Pace(turn, step, trial.evaluate(max(FEW_IMAGES, min(most, int(LONG / max(image, 1e-9))))))


def largest(federation: Federation, names: Sequence[str]) -> list[int]:
    """The client of each architecture that has most images, so that most steps can be timed."""
    sizes = [len(share.labels) for share in federation.shares["train"]]
    by_size = sorted(range(len(names)), key=sizes.__getitem__)
    return sorted({names[client]: client for client in by_size}.values())


def watch(federation: Federation) -> Callable[[], float]:
    """What tells the time: on one core that of this process, so that the price is the same whatever else the machine does."""
    one_core = federation.device.type == "cpu" and federation.settings.threads == 1
    return time.process_time if one_core else time.perf_counter


def overlap(federation: Federation, state: State, paces: Mapping[int, Pace]) -> float:
    """How much quicker clients in flight together are than one after the other."""
    with closing(Trial(federation, state, list(paces))) as trial:
        trial.train(1)
        seconds, _ = trial.train(MOST_STEPS)
        alone = sum(
            pace.turn + pace.step * len(steps) for pace, steps in zip(paces.values(), trial.steps(), strict=True)
        )
    return max(1.0, alone / seconds)


class Trial:
    """Turns of some clients on some of their images. Nothing they learn counts."""

    def __init__(self, federation: Federation, state: State, some: Sequence[int]):
        shares = {split: [each[client] for client in some] for split, each in federation.shares.items()}
        self._all, self._state, self._joined = replace(federation, shares=shares), state, list(range(len(some)))
        self._clients = [ClientState(state.clients[client].model) for client in some]
        self._pool, self._now = in_process(self._all, self._clients), watch(federation)

    def train(self, steps: int) -> tuple[float, int]:
        """Seconds for about so many steps of each epoch, and how many steps they were in all."""
        self._cut(train=max(2, steps * self._all.settings.batch_size))
        for client in self._clients:
            client.private = {}  # it may be about the images it had before
        begun = self._now()
        self._pool.train(self._state.rounds, self._joined, self._state.download)
        return self._now() - begun, sum(len(own) for own in self.steps())

    def steps(self) -> list[Batches]:
        """The steps of each client's last turn."""
        return [batches(self._pool.federation, share) for share in self._pool.federation.shares["train"]]

    def evaluate(self, images: int) -> float:
        """Seconds for an image."""
        self._cut(test=images)
        count = sum(len(share.labels) for share in self._pool.federation.shares["test"])
        begun = self._now()
        self._pool.evaluate(self._state.rounds, self._joined, self._state.download)
        return (self._now() - begun) / max(1, count)

    def _cut(self, **images: int) -> None:
        shares = {
            split: [ClientData(own.images[: images.get(split, 0)], own.labels[: images.get(split, 0)]) for own in each]
            for split, each in self._all.shares.items()
        }
        self._pool.federation = replace(self._all, shares=shares)

    def close(self) -> None:
        self._pool.close()
