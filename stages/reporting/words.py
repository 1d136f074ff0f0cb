"""What figures show, in words: their text alternatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stages.reporting import numbers, scores
from stages.reporting.rows import Group

Curves = dict[str, dict[int, np.ndarray]]  # metric -> index of the group -> float64 [seeds, rounds]


def curves(groups: Sequence[Group]) -> str:
    """Where each group began, ended, and was at its best."""
    told = []
    for group in groups:
        means = [[scores.accuracy(run)[at] for run in group.runs] for at in (0, -1)]
        first, last = (float(np.mean(values)) for values in means)
        best = float(np.mean([scores.best_on_test(run) for run in group.runs]))
        rounds = group.runs[0].evaluated[-1]
        told.append(
            f"{group.label} goes from {first:.1f} % to {last:.1f} % in {rounds} rounds, {best:.1f} % at its best"
        )
    return _sentence(told)


def floats(groups: Sequence[Group]) -> str:
    """What each group had uploaded in all, and what it reached with that."""
    told = []
    for group in groups:
        sent = float(np.mean([run.upload_floats.sum() for run in group.runs]))
        last = float(np.mean([scores.last(run) for run in group.runs]))
        upload = f"with {numbers.count(sent)} floats" if sent else "and uploads nothing"
        told.append(f"{group.label} reaches {last:.1f} % {upload}")
    return _sentence(told)


def columns(groups: Sequence[Group], series: Mapping[int, np.ndarray], what: str, names: Sequence[str]) -> str:
    """The range of each group over clients or classes, and which is the lowest."""
    told = []
    for index, values in series.items():
        if np.isnan(values).all():
            continue
        low, high = np.nanmin(values), np.nanmax(values)
        worst = names[int(np.nanargmin(values))]
        told.append(f"{groups[index].label} from {low:.1f} % at {what} {worst} to {high:.1f} %")
    return _sentence(told)


def confusions(groups: Sequence[Group], parts: Mapping[int, np.ndarray], classes: Sequence[str]) -> str:
    """The most frequent mistake of each group."""
    told = []
    for index, part in parts.items():
        mistakes = np.nan_to_num(part) * (1 - np.eye(len(part)))
        row, column = np.unravel_index(mistakes.argmax(), mistakes.shape)
        if mistakes[row, column]:
            told.append(
                f"{groups[index].label} labels {mistakes[row, column]:.0f} % of {classes[row]} as {classes[column]}"
            )
        else:
            told.append(f"{groups[index].label} makes no mistake")
    return "The most frequent mistakes: " + _sentence(told)


def labels(counts: np.ndarray) -> str:
    """How many classes clients hold; counts int64 [clients, classes]."""
    held, images = (counts > 0).sum(axis=1), counts.sum(axis=1)
    return (
        f"{counts.shape[0]} clients hold {held.min()} to {held.max()} of {counts.shape[1]} classes each, and {images.min():,} "
        f"to {images.max():,} images."
    )


def metrics(groups: Sequence[Group], curves: Curves) -> str:
    """Where each metric began and ended."""
    told = []
    for title, members in curves.items():
        for index, values in members.items():
            mean = values.mean(axis=0)
            known = mean[np.isfinite(mean)]
            if len(known):
                told.append(f"{title} of {groups[index].label} goes from {known[0]:.3g} to {known[-1]:.3g}")
    return _sentence(told)


def _sentence(parts: Sequence[str]) -> str:
    return "; ".join(parts) + "."
