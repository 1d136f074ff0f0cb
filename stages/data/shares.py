"""What each client gets: its images by the partition's rule, divided into training, validation and test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stages.data.images import Dataset
from stages.data.partitions import deal, label_counts, proportional
from stages.errors import UserError
from stages.randomness import Rng
from stages.settings import Prepare


@dataclass(frozen=True)
class ClientRows:
    """One client's images, as row numbers of the data set."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def dealt_out(dataset: Dataset, settings: Prepare, rng: Rng) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each client, the shuffled row numbers of its training and of its test images."""

    def shuffled(piles: list[np.ndarray], purpose: str) -> list[np.ndarray]:
        return [rng.numpy("order", purpose, client).permutation(rows) for client, rows in enumerate(piles)]

    def dealt(counts: np.ndarray, labels: np.ndarray, purpose: str) -> list[np.ndarray]:
        return shuffled(deal(labels, counts, rng.numpy("deal", purpose)), purpose)

    def each_cut(piles: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        return [cut(rows, settings.test_fraction, rng.at("test", client)) for client, rows in enumerate(piles)]

    train, test = np.split(dataset.labels, [dataset.train])
    if not settings.merge and not len(test):
        raise UserError(f"{dataset.origin} has no test set to keep; prepare it with `merge=on`.")
    if settings.partition == "domains":
        return each_cut(shuffled(by_domain(dataset, settings), "domains"))
    if settings.merge:
        totals = np.bincount(dataset.labels, minlength=dataset.classes)
        counts = label_counts(settings, totals, rng.numpy("partition"))
        return each_cut(dealt(counts, dataset.labels, "merged"))
    totals, others = (np.bincount(labels, minlength=dataset.classes) for labels in (train, test))
    counts = label_counts(settings, totals, rng.numpy("partition"))
    piles = dealt(proportional(counts, totals, others), test, "test")
    return list(zip(dealt(counts, train, "train"), [rows + dataset.train for rows in piles], strict=True))


def by_domain(dataset: Dataset, settings: Prepare) -> list[np.ndarray]:
    """The row numbers of each domain: client i gets domain i. UserError without domains, or if one is too small."""
    if not dataset.domains:
        raise UserError(
            f"{dataset.origin} has no domains; the partition 'domains' needs `dataset=folder` with one subfolder per domain."
        )
    for domain, size in enumerate(dataset.domains):
        if size < settings.min_samples:
            raise UserError(
                f"Domain {domain} of {dataset.origin} has {size} images, fewer than {settings.min_samples}; lower `min_samples`."
            )
    return np.split(np.arange(len(dataset.labels)), np.cumsum(dataset.domains)[:-1])


def split(
    dataset: Dataset, train: np.ndarray, test: np.ndarray, settings: Prepare, rng: Rng, client: int
) -> ClientRows:
    """The client's rows, with validation images taken from its training images before few-shot reduces those."""
    train, validation = cut(train, settings.validation_fraction, rng.at("validation", client))
    if settings.few_shot:
        train = train[rank_in_class(dataset.labels[train]) < settings.few_shot]
    for part, rows in (("training", train), ("test", test)):
        if not len(rows):
            raise UserError(
                f"Client {client} has no {part} images, of {len(train) + len(validation) + len(test)} in all; "
                "raise `min_samples`, lower `clients`, or change the fractions."
            )
    return ClientRows(train, validation, test)


def cut(rows: np.ndarray, fraction: float, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """Rows kept, and rows cut off: a random `fraction` of them, rounded up. Both stay in order."""
    chosen = np.zeros(len(rows), bool)
    chosen[: int(np.ceil(round(len(rows) * fraction, 6)))] = True
    chosen = rng.numpy("cut").permutation(chosen)
    return rows[~chosen], rows[chosen]


def rank_in_class(labels: np.ndarray) -> np.ndarray:
    """For each label, how many equal ones come before it: 3 1 3 3 -> 0 0 1 2."""
    order = np.argsort(labels, kind="stable")
    ranks = np.empty(len(labels), np.int64)
    ranks[order] = np.arange(len(labels)) - np.searchsorted(labels[order], labels[order])
    return ranks
