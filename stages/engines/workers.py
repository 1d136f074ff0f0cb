"""Clients trained side by side by processes of this machine, with models and images in shared memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pickle import PicklingError
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from stages import processes
from stages.algorithms.common.records import rebuilt, tensors
from stages.algorithms.contract import ClientState
from stages.artifacts.schemas import EVALUATED
from stages.clock import TURN, Clock, collecting, side_by_side
from stages.devices import set_up
from stages.engines import clients
from stages.engines.clients import Answer
from stages.engines.federation import Federation
from stages.engines.shared_memory import SharedMemory
from stages.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class PackedRecord:
    """A record as it goes through a pipe: as arrays, because torch would open shared memory for every tensor."""

    kind: type | None
    arrays: dict[str, np.ndarray]

    @classmethod
    def of(cls, record: Any) -> PackedRecord:
        return cls(None if record is None else type(record), arrays_of(tensors(record)))

    def opened(self) -> Any:
        return None if self.kind is None else rebuilt(self.kind, tensors_of(self.arrays))


@dataclass(frozen=True)
class Job:
    """What a worker does next: train or evaluate one client."""

    client: int
    rounds: int
    download: PackedRecord
    private: dict[str, np.ndarray]  # sent along, so that any worker can take the client
    evaluate: bool = False


@dataclass(frozen=True)
class Done:
    result: Any  # what `clients.evaluated` measured, or an Answer whose upload is a PackedRecord
    private: dict[str, np.ndarray]
    seconds: dict[str, float]  # by phase


class Workers:
    """A pool of processes. Their number does not change a bit of the result, since each client trains in one of them.

    Raises UserError for models that can't be sent to other processes.
    """

    def __init__(self, federation: Federation, states: list[ClientState], count: int):
        self.federation, self.states = federation, states
        self._cost = federation.sizes["train"].tolist()  # of each client's job: its images, later the seconds it took
        try:
            memory = SharedMemory.of((replace(federation, pairs=None), states))
        except (PicklingError, AttributeError, TypeError) as error:
            raise UserError(f"A model can't be handed to worker processes ({error}); use `workers=1`.") from error
        mine, shared = memory.load()
        federation.shares = mine.shares
        for state, moved in zip(states, shared, strict=True):
            state.model = moved.model
        self._workers = []
        for _ in range(min(count, len(states))):
            ours, theirs = connection.Pipe()
            process = processes.started(work, theirs, memory, daemon=True)
            theirs.close()
            self._workers.append((process, ours))

    def train(self, rounds: int, joined: list[int], download: Any) -> dict[int, Answer]:
        """Raises Diverged for the lowest client whose loss is not finite."""
        packed = PackedRecord.of(download)
        with side_by_side("local training") as turns:
            done = self._all([Job(client, rounds, packed, arrays_of(self.states[client].private)) for client in joined])
            turns += [each.seconds for each in done.values()]
        for client in joined:
            self.states[client].private = tensors_of(done[client].private)
            self._cost[client] = sum(done[client].seconds.values())
            clients.check_finite(done[client].result.metrics, f"Client {client}", rounds)
        results = {client: done[client].result for client in joined}
        return {client: Answer(result.upload.opened(), result.metrics) for client, result in results.items()}

    def evaluate(self, rounds: int, chosen: list[int], download: Any) -> dict[str, Tensor]:
        packed = PackedRecord.of(download)
        done = self._all(
            [Job(client, rounds, packed, arrays_of(self.states[client].private), True) for client in chosen]
        )
        results = [done[client].result for client in sorted(done)]
        return {name: torch.from_numpy(np.array([result[name] for result in results])) for name in results[0]}

    def traffic(self) -> dict[str, list[int]]:
        return {}

    def collect(self) -> None:
        """Nothing to do: workers change the weights in memory shared with this process."""

    def close(self) -> None:
        """Kill the workers; unfinished work is lost."""
        for process, pipe in self._workers:
            process.kill()
            process.join()
            pipe.close()
        self._workers = []

    def _all(self, jobs: list[Job]) -> dict[int, Done]:
        """Do all jobs, the longest first, each on the next free worker."""
        waiting = sorted(jobs, key=lambda job: self._cost[job.client])
        idle, done = list(self._workers), {}
        busy: dict[Any, tuple[BaseProcess, connection.Connection, Job]] = {}  # by its pipe
        while waiting or busy:
            while waiting and idle:
                process, pipe = idle.pop()
                job = waiting.pop()
                self._reach(lambda: pipe.send(job), job)  # noqa: B023
                busy[pipe] = process, pipe, job
            for ready in connection.wait(list(busy)):
                process, pipe, job = busy.pop(ready)
                outcome = self._reach(pipe.recv, job)
                if isinstance(outcome, Exception):
                    raise outcome
                done[job.client] = outcome
                idle.append((process, pipe))
        return done

    def _reach(self, talk: Callable[[], T], job: Job) -> T:
        try:
            return talk()
        except (EOFError, OSError) as error:
            raise UserError(
                f"The worker process of client {job.client} died in round {job.rounds + 1}; if memory ran out, "
                "resume with fewer `workers`."
            ) from error


def work(pipe: connection.Connection, memory: SharedMemory) -> None:
    """What a worker process runs: job after job, until the pipe is closed."""
    federation, states = memory.load()
    set_up(federation.settings)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        try:
            outcome: Done | Exception = do(federation, states[job.client], job)
        except UserError as error:
            outcome = error
        except Exception as error:
            outcome = RuntimeError(f"client {job.client}: {type(error).__name__}: {error}")
        pipe.send(outcome)


def do(federation: Federation, state: ClientState, job: Job) -> Done:
    state.private, download = tensors_of(job.private), job.download.opened()
    clock = Clock()
    with collecting(clock), clock.phase(TURN):
        if job.evaluate:
            shares = {split: federation.shares[split][job.client] for split in EVALUATED}
            measured = clients.evaluated(federation, state, shares, download)
            result: Any = arrays_of(measured)
        else:
            share = federation.shares["train"][job.client]
            answer = clients.train(federation, job.client, state, share, job.rounds, download)
            result = replace(answer, upload=PackedRecord.of(answer.upload))
    return Done(result, arrays_of(state.private), clock.seconds)


def arrays_of(values: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in values.items()}


def tensors_of(values: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(value) for name, value in values.items()}
