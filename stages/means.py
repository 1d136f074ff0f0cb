"""The mean of a score over clients: one rule for the round loop, the commands and the reports."""

from __future__ import annotations

import numpy as np


def over_clients(scores: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Scores [..., K] in 0..1 -> [...] in percent, each client weighted by its number of images int64 [K].

    Clients with NaN, which have no images or are missing, do not count; NaN if no client counts.
    """
    counted = np.where(np.isnan(scores), 0, samples)
    total, points = counted.sum(-1), (np.nan_to_num(scores) * counted).sum(-1)
    mean: np.ndarray = np.divide(points, total, out=np.full(np.shape(points), np.nan), where=total > 0)
    return 100 * mean


def selected(validation: np.ndarray, samples: np.ndarray) -> int | None:
    """The first of the evaluations [E, K] that is best on validation; None if there are no validation images."""
    curve = over_clients(validation, samples)
    return None if np.isnan(curve).all() else int(np.nanargmax(curve))
