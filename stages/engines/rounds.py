"""The round loop, the same for all engines: a pool of clients trains, the server learns, the history records."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from stages import memory
from stages.algorithms.common.cuda_graphs import refusals
from stages.algorithms.common.records import sent, tensors
from stages.artifacts.schemas import EVALUATED
from stages.clock import Clock, collecting, phase
from stages.engines import recording, selection
from stages.engines.clients import Answer, check_finite, scalars
from stages.engines.federation import Diverged, Federation, Missing, State
from stages.engines.pace import Pace
from stages.means import over_clients
from stages.observer import Observer
from stages.randomness import Rng


class ClientPool(Protocol):
    """Where the clients are: in this process, in others, or on other machines."""

    def train(self, rounds: int, joined: list[int], download: Any) -> Mapping[int, Answer | Missing]:
        """What each joined client sends in the round that follows `rounds` finished ones, or why nothing came from it.

        `download` is what the server sent last, None if it has not sent anything yet. At least one client answers. Raises
        Diverged for a loss that is not finite, if that ends the run.
        """

    def evaluate(self, rounds: int, chosen: list[int], download: Any) -> dict[str, Tensor]:
        """By split (test, validation), how many images each chosen client classifies correctly after `rounds`, and `test_auc`.

        int64 [chosen] with -1 for a missing client; float64 [chosen] with NaN for one. `test_confusion`, int64
        [chosen, C, C], is left out where the clients are elsewhere.
        """

    def traffic(self) -> Mapping[str, list[int]]:
        """Bytes actually sent in the last round, per client, by name; empty if nothing leaves the process."""

    def collect(self) -> None:
        """Bring the client states in State up to date for a checkpoint, as far as this process keeps them."""

    def close(self) -> None:
        """Stop what was started for the clients."""


def run(
    federation: Federation, state: State, pool: ClientPool, observer: Observer, checkpoint: Callable[[State], None]
) -> None:
    """Run rounds until `settings.rounds`, patience or a request to stop; the last state is always checkpointed.

    Raises Diverged, without a checkpoint, if a loss is not finite.
    """
    settings, device = federation.settings, federation.device
    pace = Pace(settings.checkpoint_every)

    def save() -> None:
        with pace.saving():
            pool.collect()
            checkpoint(state)

    with collecting(clock_of(device)) as clock:
        if "rounds/evaluated" not in state.history:
            evaluate(federation, state, pool)
            observer.end_round(recording.line(federation, state.history, 0))
            save()
        clock.seconds = {}
        ended, stopping = finished(federation, state), observer.stop_requested()
        while not (ended or stopping):
            with phase("checkpoint"):
                selection.keep(federation, state, pool.collect)
            play_round(federation, state, pool)
            for reason in refusals():
                observer.note(
                    f"A training step can't be captured as a CUDA graph, so it runs more slowly without one: {reason}"
                )
            if state.rounds % settings.eval_every == 0 or state.rounds == settings.rounds:
                evaluate(federation, state, pool)
            recording.seconds(federation, state, clock.seconds)  # those of a checkpoint count towards the next round
            clock.seconds = {}
            state.history.add("rounds/peak_memory", recording.peak_memory(device))
            observer.end_round(recording.line(federation, state.history, state.rounds))
            observer.advance(1, **recording.highlights(federation, state))
            ended, stopping = finished(federation, state), observer.stop_requested()
            if pace.due(state.rounds) or ended or stopping:
                with phase("checkpoint"):
                    save()


def clock_of(device: torch.device, now: Callable[[], float] = time.perf_counter) -> Clock:
    return Clock(lambda: torch.cuda.synchronize(device) if device.type == "cuda" else None, now)


def finished(federation: Federation, state: State) -> bool:
    return state.rounds >= federation.settings.rounds or out_of_patience(federation, state)


def play_round(federation: Federation, state: State, pool: ClientPool) -> None:
    """One round: the joined clients train and upload, the server makes what they download next."""
    rng, wire = federation.rng.at("round", state.rounds), federation.settings.wire
    joined, delivered = participants(federation, rng)
    with phase("local training"):
        came = pool.train(state.rounds, joined, state.download)
    answers = {client: answer for client, answer in came.items() if isinstance(answer, Answer)}
    for client, reason in came.items():
        if isinstance(reason, Missing):
            state.history.add("faults/missing", torch.tensor([state.rounds + 1, client, reason]))
    for name, row in pool.traffic().items():
        state.history.add(f"rounds/{name}", row)
    uploads = {client: sent(answers[client].upload, wire) for client in delivered if client in answers}
    recording.traffic(federation, state, joined, uploads)
    recording.slowness(federation, state, joined)
    server_metrics = serve(federation, state, {c: upload for c, upload in uploads.items() if upload is not None}, rng)
    recording.metrics(federation, state, {client: answer.metrics for client, answer in answers.items()}, server_metrics)
    recording.pairs(federation, state)
    state.rounds += 1


def serve(federation: Federation, state: State, uploads: Mapping[int, Any], rng: Rng) -> dict[str, float]:
    """The server learns from the uploads that arrived; returns its metrics. Without uploads its last download stays valid."""
    if not uploads:
        return {}
    algorithm, given = federation.algorithm, (federation.hyper, federation.shared, state.server, uploads)
    if algorithm.paired_server_update is not None and federation.pairs is not None:
        found = algorithm.paired_server_update(*given, federation.pairs, rng.at("server"))
    else:
        found = algorithm.server_update(*given, rng.at("server"))
    state.server, download, metrics = found
    state.download = sent(download, federation.settings.wire)
    server_metrics = scalars(metrics)
    check_server(server_metrics, download, uploads, state.rounds)
    return server_metrics


def check_server(metrics: Mapping[str, float], download: Any, uploads: Mapping[int, Any], rounds: int) -> None:
    """Raises Diverged for a loss or a download that is not finite, naming the client that sent the largest number."""
    floats = [tensor.isfinite().all() for tensor in tensors(download).values() if tensor.is_floating_point()]
    sound = not floats or bool(torch.stack(floats).all())
    try:
        check_finite({**metrics, "download": 0.0 if sound else float("nan")}, "The server", rounds)
    except Diverged as error:
        if not uploads:
            raise
        number, client = max((largest(upload), client) for client, upload in uploads.items())
        raise Diverged(f"{error}; the largest number it received, {number:.3g}, came from client {client}") from None


def largest(record: Any) -> float:
    """The largest absolute value among a record's floats."""
    floats = [tensor for tensor in tensors(record).values() if tensor.is_floating_point() and tensor.numel()]
    return max((float(tensor.abs().max()) for tensor in floats), default=0.0)


def participants(federation: Federation, rng: Rng) -> tuple[list[int], list[int]]:
    """Clients that train this round, ascending, and those of them whose upload arrives; at least one each."""
    settings, count = federation.settings, federation.clients
    draw = rng.numpy("participants")
    ratio = draw.uniform(settings.join_ratio, 1) if settings.random_join else settings.join_ratio
    joined = draw.permutation(count)[: at_least_one(ratio * count)]
    delivered = joined[: at_least_one((1 - settings.drop_rate) * len(joined))]
    return sorted(joined.tolist()), sorted(delivered.tolist())


def at_least_one(number: float) -> int:
    """Rounded down, with room for the error of floats: 0.29 of 100 clients is 29."""
    return max(1, int(number + 1e-9))


def evaluate(federation: Federation, state: State, pool: ClientPool) -> None:
    """Accuracy of clients on their own test and validation images, and AUC on their test images; NaN of the others."""
    chosen = to_evaluate(federation, state.rounds)

    def of_all(measured: Tensor) -> Tensor:
        row = torch.full([federation.clients], torch.nan, dtype=torch.float64)
        row[chosen] = measured.double()
        return row

    with phase("evaluation"):
        state.history.add("rounds/evaluated", state.rounds)
        measured = pool.evaluate(state.rounds, chosen, state.download)
        for split in EVALUATED:
            correct = of_all(measured[split].double().masked_fill(measured[split] < 0, float("nan")))
            state.history.add(f"rounds/{split}_accuracy", correct / federation.sizes[split])  # no images: NaN
        place = len(state.history["rounds/evaluated"]) - 1  # a resumed run of an earlier version has no AUC so far
        state.history.add_at(place, "rounds/test_auc", of_all(measured["test_auc"]))
        confusion = measured.get("test_confusion")
        state.history.replace("rounds/test_confusion", None if confusion is None else confusion.sum(0))
        if selection.is_selected(federation, state):
            state.selected = {}
        memory.give_back()


def to_evaluate(federation: Federation, rounds: int) -> list[int]:
    """The clients to evaluate after so many rounds, ascending: all, or those that joined the last one.

    Before the first one these are those that will join it.
    """
    if federation.settings.eval_clients == "joined":
        return participants(federation, federation.rng.at("round", max(0, rounds - 1)))[0]
    return list(range(federation.clients))


def out_of_patience(federation: Federation, state: State) -> bool:
    """True once `patience` evaluations in a row have not improved the accuracy."""
    patience = federation.settings.patience
    if not patience:
        return False
    judged = "validation" if federation.sizes["validation"].any() else "test"
    curve = over_clients(state.history[f"rounds/{judged}_accuracy"].numpy(), federation.sizes[judged].numpy())
    return len(curve) - 1 - int(np.nan_to_num(curve, nan=-1).argmax()) >= patience
