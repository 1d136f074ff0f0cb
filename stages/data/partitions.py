"""How many images of each class every client gets, and which ones.

A rule is a function of the class sizes `totals` int64 [classes]; it returns counts int64 [clients, classes] that never
exceed them. `deal` then picks the images, so no image can be dealt twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from stages.data.counts import read_counts
from stages.errors import UserError
from stages.settings import Prepare

ATTEMPTS = 10_000  # one takes a fraction of a millisecond for ten classes


def label_counts(settings: Prepare, totals: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Counts int64 [clients, classes] by the rule that the settings name; UserError if it can't be satisfied."""
    clients = settings.clients
    if settings.partition == "counts":
        if settings.counts is None:
            raise UserError("The partition 'counts' needs `counts`, a PFLlib config.json or a clients x classes CSV.")
        return listed(Path(settings.counts), totals)
    if settings.counts is not None:
        raise UserError(
            f"The partition '{settings.partition}' does not use counts; leave out `counts`, or give `partition=counts`."
        )
    if settings.partition == "dirichlet":
        return redrawn(lambda: dirichlet(totals, clients, settings.beta, rng), totals, settings)
    if settings.partition == "iid":
        return redrawn(lambda: iid(totals, clients, rng), totals, settings)
    if settings.classes_per_client > len(totals):
        raise UserError(
            f"A client can't hold {settings.classes_per_client} of {len(totals)} classes; lower `classes_per_client`."
        )
    if settings.partition == "pathological" and settings.class_holders == "consecutive":
        holders = consecutive_holders(len(totals), clients, settings.classes_per_client)
        return redrawn(lambda: consecutive(totals, holders, settings.min_samples, rng), totals, settings)
    holders = class_holders(len(totals), clients, settings.classes_per_client, rng)
    if settings.partition == "pathological":
        return redrawn(lambda: pathological(totals, holders, rng), totals, settings)
    return redrawn(lambda: extended_dirichlet(totals, holders, settings.beta, rng), totals, settings)


def redrawn(draw: Callable[[], np.ndarray | None], totals: np.ndarray, settings: Prepare) -> np.ndarray:
    """The first of at most ATTEMPTS draws that gives each client `min_samples` images; UserError if none does."""
    images, clients, enough = int(totals.sum()), settings.clients, settings.min_samples
    if images < clients * enough:
        raise UserError(
            f"{images} images are not enough for {clients} clients with {enough} each; lower `clients` or `min_samples`."
        )
    best = 0
    for _ in range(ATTEMPTS):
        counts = draw()
        fewest = 0 if counts is None else int(counts.sum(1).min())
        if counts is not None and fewest >= enough:
            return counts
        best = max(best, fewest)
    beta = f" with beta {settings.beta:g}" if "dirichlet" in settings.partition else ""
    raise UserError(
        f"None of {ATTEMPTS} {settings.partition} partitions{beta} of {images} images gave each of {clients} clients "
        f"{enough} images; the best left one client with {best}. Lower `min_samples` or `clients`"
        + (", or raise `beta`." if beta else ", or raise `classes_per_client`.")
    )


def dirichlet(totals: np.ndarray, clients: int, beta: float, rng: np.random.Generator) -> np.ndarray | None:
    """PFLlib's rule: class by class, shares ~ Dir(beta), with nothing for a client that already has its N / clients images.

    None if a class has no client to go to (at a tiny beta all weight may fall on full clients).
    """
    counts = np.zeros((clients, len(totals)), np.int64)
    held = np.zeros(clients, np.int64)
    cap = totals.sum() / clients
    for label, weights in enumerate(rng.dirichlet(np.full(clients, beta), len(totals))):
        weights = weights * (held < cap)
        if totals[label] and not weights.sum() > 0:
            return None
        counts[:, label] = shared_out(totals[label], weights)
        held += counts[:, label]
    return counts


def iid(totals: np.ndarray, clients: int, rng: np.random.Generator) -> np.ndarray:
    """Every client draws from the same pool; the clients' sizes differ by at most one image."""
    owner = rng.permutation(np.arange(totals.sum()) % clients)
    label = np.repeat(np.arange(len(totals)), totals)
    return np.bincount(owner * len(totals) + label, minlength=clients * len(totals)).reshape(clients, -1)


def class_holders(classes: int, clients: int, per_client: int, rng: np.random.Generator) -> np.ndarray:
    """bool [clients, classes]: each client holds `per_client` classes, and each class is held about equally often.

    A client takes the classes with the fewest holders so far, so the numbers of holders differ by at most one.
    """
    holders = np.zeros((clients, classes), bool)
    for client in holders:
        order = np.lexsort((rng.random(classes), holders.sum(0)))
        client[order[:per_client]] = True
    return holders


def pathological(totals: np.ndarray, holders: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """PFLlib's unequal parts: each holder of a class except the last gets 0.1 to 1 times the mean, the last the rest."""
    counts = np.zeros(holders.shape, np.int64)
    for label, total in enumerate(totals.tolist()):
        clients = rng.permutation(np.flatnonzero(holders[:, label]))
        if len(clients):
            mean = total / len(clients)
            parts = np.floor(mean * rng.uniform(0.1, 1.0, len(clients) - 1)).astype(np.int64)
            counts[clients, label] = [*parts, total - parts.sum()]
    return counts


def consecutive_holders(classes: int, clients: int, per_client: int) -> np.ndarray:
    """bool [clients, classes] by PFLlib's rule: class by class, the first few clients that still lack classes hold it.

    "Few" is the number that would divide the classes evenly, so neighbouring clients share the same classes, and the last
    clients may get fewer.
    """
    holders = np.zeros((clients, classes), bool)
    few = math.ceil(clients / classes * per_client)  # in floats, as in PFLlib
    for label in range(classes):
        holders[np.flatnonzero(holders.sum(1) < per_client)[:few], label] = True
    return holders


def consecutive(totals: np.ndarray, holders: np.ndarray, enough: int, rng: np.random.Generator) -> np.ndarray:
    """PFLlib's unequal parts: each client with a class except the last gets at least a tenth of the mean, or its part of
    `enough` images, and less than the mean; the last gets the rest."""
    counts = np.zeros(holders.shape, np.int64)
    for label, total in enumerate(totals.tolist()):
        clients = np.flatnonzero(holders[:, label])
        if len(clients):
            mean = total / len(clients)
            low, high = int(max(mean / 10, enough / len(totals))), max(1, int(mean))
            parts = rng.integers(min(low, high - 1), high, len(clients) - 1)
            counts[clients, label] = [*parts, total - parts.sum()]
    return counts


def extended_dirichlet(
    totals: np.ndarray, holders: np.ndarray, beta: float, rng: np.random.Generator
) -> np.ndarray | None:
    """Li & Wu 2023 (Convergence Analysis of Sequential Federated Learning): Dir(beta) among the holders of a class.

    As in PFLlib, a holder that already has its N / clients images gets nothing, and if all have theirs, the last gets all.
    None if a share is not a number (at an extreme beta).
    """
    counts = np.zeros(holders.shape, np.int64)
    cap = totals.sum() / len(holders)
    for label in np.flatnonzero(holders.any(0)):
        clients = np.flatnonzero(holders[:, label])
        weights = rng.dirichlet(np.full(len(clients), beta))
        if not weights.sum() > 0:
            return None
        weights *= counts[clients].sum(1) < cap
        if not weights.any():
            weights[-1] = 1
        counts[clients, label] = shared_out(totals[label], weights)
    return counts


def listed(path: Path, totals: np.ndarray) -> np.ndarray:
    """The counts in a file; UserError names the first class without enough images."""
    counts = read_counts(path, len(totals))
    for label, wanted in enumerate(counts.sum(0).tolist()):
        if wanted > totals[label]:
            raise UserError(
                f"{path} asks for {wanted} images of class {label}, but there are {totals[label]}; lower its counts."
            )
    return counts


def shared_out(total: int, weights: np.ndarray) -> np.ndarray:
    """`total` divided in proportion to weights float [clients] into whole numbers that sum to it; 0 for weight 0."""
    edges = np.cumsum(weights)
    if not edges[-1] > 0:
        return np.zeros(len(weights), np.int64)
    return np.diff(np.floor(total * (edges / edges[-1])).astype(np.int64), prepend=0)


def proportional(counts: np.ndarray, totals: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Counts for `others` int64 [classes], where every client gets the same part of a class as `counts` give it of `totals`."""
    edges = np.cumsum(counts, 0) / np.maximum(totals, 1)
    return np.diff(np.rint(edges * others).astype(np.int64), axis=0, prepend=0)


def deal(labels: np.ndarray, counts: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Row numbers int64 per client, drawn without replacement within each class; the rest goes to nobody."""
    piles: list[list[np.ndarray]] = [[] for _ in counts]
    for label, column in enumerate(counts.T):
        rows = rng.permutation(np.flatnonzero(labels == label))
        for pile, part in zip(piles, np.split(rows, np.cumsum(column))[:-1], strict=True):
            pile.append(part)
    return [np.concatenate(pile) for pile in piles]
