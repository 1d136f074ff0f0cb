"""What is measured of one run. Accuracies are in percent, weighted over clients by their number of samples."""

from __future__ import annotations

import numpy as np

from stages.artifacts.schemas import Run
from stages.errors import UserError
from stages.means import over_clients, selected


def accuracy(run: Run) -> np.ndarray:
    """float64 [E]: correct over all test images of the clients that were there, at each evaluated round."""
    if not run.test_samples.sum():
        raise UserError(f"Run {run.artifact.ref} has no test images, so no accuracy; leave it out of the report.")
    return over_clients(run.test_accuracy, run.test_samples)


def validation_accuracy(run: Run) -> np.ndarray | None:
    """float64 [E], or None without validation images."""
    return over_clients(run.validation_accuracy, run.validation_samples) if run.validation_samples.sum() else None


def final(run: Run) -> int:
    """The last evaluation at which a client with test images was there."""
    known = np.flatnonzero(~np.isnan(accuracy(run)))
    if not len(known):
        raise UserError(f"No client with test images was evaluated in {run.artifact.ref}; leave it out of the report.")
    return int(known[-1])


def last(run: Run) -> float:
    return float(accuracy(run)[final(run)])


def evaluated_clients(run: Run) -> int | None:
    """How many clients' test images the last accuracy is of; None if all clients' that have any."""
    there = ~np.isnan(run.test_accuracy[final(run)]) & (run.test_samples > 0)
    return None if (there == (run.test_samples > 0)).all() else int(there.sum())


def promised(run: Run, name: str) -> float | None:
    """What the noise on uploads promises a client, `epsilon` and `delta`; None without noise, or where it was not computed."""
    promise = run.facts.get("privacy")
    found = promise.get(name) if isinstance(promise, dict) else None
    return found if isinstance(found, float) else None


def validation_selected(run: Run) -> float | None:
    """Test accuracy at the first round whose validation accuracy is the best; None without validation images."""
    best = selected(run.validation_accuracy, run.validation_samples)
    return None if best is None else float(accuracy(run)[best])


def best_on_test(run: Run) -> float:
    """The highest test accuracy of any round: what the paper's tables report, and no honest estimate."""
    return float(np.nanmax(accuracy(run)))


def clients(run: Run) -> np.ndarray:
    """float64 [K]: each client's test accuracy at the last evaluated round; NaN for one without test images."""
    return np.where(run.test_samples > 0, 100 * run.test_accuracy[final(run)], np.nan)


def worst_client(run: Run) -> float:
    return float(np.nanmin(clients(run)))


def spread(run: Run) -> float:
    """Standard deviation over the clients (all there are, so ddof=0; unweighted) at the last evaluated round."""
    return float(np.nanstd(clients(run)))


def auc(run: Run) -> float | None:
    """Micro-averaged area under the ROC curve at the last evaluated round, in percent; None where it was not measured."""
    last = float(over_clients(run.test_auc[final(run)], run.test_samples))
    return None if np.isnan(last) else last


def auc_spread(run: Run) -> float | None:
    """Its standard deviation over the clients, as `spread`."""
    return None if auc(run) is None else float(100 * np.nanstd(run.test_auc[final(run)]))


def seconds_per_round(run: Run) -> dict[str, float]:
    """Mean seconds of each phase; the phases do not overlap."""
    return {phase: float(seconds.mean()) for phase, seconds in run.seconds.items()}


def uploaded_floats(run: Run) -> np.ndarray:
    """int64 [E]: floats that all clients together had uploaded when each round was evaluated."""
    return np.asarray(np.concatenate([[0], run.upload_floats.sum(axis=1).cumsum()])[run.evaluated])


def percentages(confusion: np.ndarray) -> np.ndarray:
    """float64 [C, C] of int64 [C, C]: the percentage of each class (row) that gets each label; NaN of a class without images."""
    images = confusion.sum(axis=1, keepdims=True)
    return np.asarray(100 * np.divide(confusion, images, out=np.full(confusion.shape, np.nan), where=images > 0))
