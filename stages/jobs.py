"""Runs of a study side by side: processes that are dealt one run after the other, with the cores divided among them."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from typing import Any

from stages import plugins, processes
from stages.artifacts.store import Store
from stages.errors import UserError
from stages.observer import Observer
from stages.settings import Train

LOOK = 0.2  # seconds between two looks whether to stop
PAUSE = 1.0  # seconds before runs that other processes hold are tried again
ADVICE = "if memory ran out, use fewer `jobs`"


@dataclass(frozen=True)
class Plan:
    """A study, as every process gets it."""

    store: Store
    name: str | None
    settings: Train
    hyper: Mapping[str, Mapping[str, Any]]
    grid: Mapping[str, Any] | None
    again: bool
    named: frozenset[str] | None  # code that may be loaded; None: all


@dataclass(frozen=True)
class Result:
    """The outcome of a run, as it passes between processes."""

    state: str
    ref: str = ""
    reason: str = ""


def places(settings: Train) -> list[str]:
    """The device of each process; one process is this one. UserError for an engine that can't be divided."""
    devices = [device.strip() for device in settings.device.split(",")]
    count = max(settings.jobs, len(devices))
    if count > 1 and settings.engine != "local":
        raise UserError("`jobs` and several devices are for `engine=local`; Flower divides a run by itself.")
    return [devices[number % len(devices)] for number in range(count)]


def shares_of(cores: Sequence[int], count: int) -> list[list[int]]:
    """The cores dealt to so many processes; where there are fewer cores than processes, they share.

    >>> shares_of([0, 1, 2, 3, 4], 2)
    [[0, 2, 4], [1, 3]]
    """
    return [list(cores[number::count]) or [cores[number % len(cores)]] for number in range(count)]


Member = Callable[[Plan, Observer], AbstractContextManager[Callable[[str, bool], Result]]]


class Crew:
    """The processes, each with a lane of the observer. A `member` is what makes runs in one of them."""

    def __init__(self, member: Member, plan: Plan, devices: Sequence[str], observer: Observer):
        self._member_of, self._plan, self._devices = member, plan, devices
        self._stop = processes.context().Event()
        self._lanes = [observer.lane(number) for number in range(len(devices))]
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self._cores = shares_of(cores, len(devices)) if cores else [[]] * len(devices)
        self._members: dict[int, tuple[BaseProcess, connection.Connection]] = {}

    def run(
        self, names: Sequence[str], observer: Observer, held: str, over: Callable[[Result], bool],
        tell: Callable[[Sequence[str]], None],
    ) -> dict[str, Result]:  # fmt: skip
        """Deal the runs; those that other processes hold (`held`) are dealt again until they are free. None begins once it is `over`.

        The run of a process that died is dealt once more.
        """
        waiting, busy = deque(names), dict[int, str]()
        results, died = dict[str, Result](), set[str]()
        while waiting or busy:
            if observer.stop_requested():
                self._stop.set()
                waiting.clear()
            for number in sorted(set(range(len(self._lanes))) - busy.keys())[: len(waiting)]:
                busy[number] = name = waiting.popleft()
                self._lanes[number].next_run(names.index(name) + 1, len(names), len(waiting))
                tell(list(waiting))
                self._member(number)[1].send((name, self._plan.again and name not in results))
            for number, result in self._heard(list(busy)):
                name = busy.pop(number)
                if result is None and name not in died and not self._stop.is_set():
                    died.add(name)
                    waiting.appendleft(name)
                    continue
                results[name] = result or Result("failed", reason=f"The process of {name} was killed twice; {ADVICE}.")
                if over(results[name]):
                    waiting.clear()
                elif results[name].state == held and not self._stop.is_set():
                    waiting.append(name)
                    time.sleep(0 if busy else PAUSE)
        return results

    def _heard(self, busy: Sequence[int]) -> Iterator[tuple[int, Result | None]]:
        """The processes that are done with their run, or dead (None). What they tell the observer is passed on."""
        numbers = {self._members[number][1]: number for number in busy}
        for pipe in [pipe for pipe in connection.wait(list(numbers), LOOK) if isinstance(pipe, connection.Connection)]:
            number = numbers[pipe]
            try:
                message = pipe.recv()
            except (EOFError, OSError):
                self._members.pop(number)[0].join()
                self._lanes[number].finish()
                yield number, None
                continue
            if isinstance(message, Result):
                yield number, message
            else:
                message(self._lanes[number])

    def _member(self, number: int) -> tuple[BaseProcess, connection.Connection]:
        if number not in self._members:
            ours, theirs = connection.Pipe()
            plan = replace(self._plan, settings=replace(self._plan.settings, jobs=1, device=self._devices[number]))
            process = processes.started(work, theirs, self._stop, self._member_of, plan, self._cores[number])
            theirs.close()
            self._members[number] = process, ours
        return self._members[number]

    def close(self) -> None:
        """End the processes at once; what they were doing is lost since its last checkpoint."""
        for process, pipe in self._members.values():
            process.kill()
            process.join()
            pipe.close()
        self._members = {}


@dataclass(frozen=True)
class Call:
    """What an observer is told, as it passes between processes."""

    method: str
    values: tuple[object, ...]
    facts: Mapping[str, Any]

    def __call__(self, observer: Observer) -> None:
        getattr(observer, self.method)(*self.values, **self.facts)


class Told(Observer):
    """Passes on what it is told to the process that deals the runs."""

    def __init__(self, pipe: connection.Connection, stop: Event):
        self._pipe, self._stop, self._lock = pipe, stop, threading.Lock()

    def send(self, message: Call | Result) -> None:
        with self._lock:
            self._pipe.send(message)

    def stop_requested(self) -> bool:
        return bool(self._stop.is_set())

    def start(self, task: str, total: int, done: int = 0) -> None:
        self.send(Call("start", (task, total, done), {}))

    def advance(self, steps: int = 1, **facts: object) -> None:
        self.send(Call("advance", (steps,), facts))

    def finish(self) -> None:
        self.send(Call("finish", (), {}))

    def note(self, message: str) -> None:
        self.send(Call("note", (message,), {}))

    def begin_run(self, run: str, facts: Mapping[str, Any], rounds: int) -> None:
        self.send(Call("begin_run", (run, facts, rounds), {}))

    def end_round(self, line: Mapping[str, Any]) -> None:
        self.send(Call("end_round", (line,), {}))

    def end_run(self, state: str) -> None:
        self.send(Call("end_run", (state,), {}))


def work(pipe: connection.Connection, stop: Event, member: Member, plan: Plan, cores: list[int]) -> None:
    """A process's life: run after run, until the pipe is closed."""
    if cores:
        os.sched_setaffinity(0, cores)
    told = Told(pipe, stop)
    with plugins.only(*plan.named) if plan.named is not None else nullcontext(), member(plan, told) as run:
        while True:
            try:
                name, again = pipe.recv()
            except EOFError:
                return
            told.send(run(name, again))
