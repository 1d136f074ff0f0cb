"""The mean of a score over clients, the one rule for all who tell it: round loop, commands, reports."""

from __future__ import annotations

import numpy as np


def over_clients(scores: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Scores [..., K] in 0..1 -> [...] in percent: each client counts as much as its images int64 [K].

    Over the clients with a number: one without images, or missing, has NaN. NaN where there is none.
    """
    counted = np.where(np.isnan(scores), 0, samples)
    total, points = counted.sum(-1), (np.nan_to_num(scores) * counted).sum(-1)
    return 100 * np.divide(points, total, out=np.full(np.shape(points), np.nan), where=total > 0)


def selected(validation: np.ndarray, samples: np.ndarray) -> int | None:
    """The first of the evaluations [E, K] that is best on validation; None if there are no validation images."""
    curve = over_clients(validation, samples)
    return None if np.isnan(curve).all() else int(np.nanargmax(curve))
