"""What goes well or wrong in a run, in plain words, from what it recorded; and what to try.

FedKTL depends on its setting: a new one is sound when the server's losses are small, the generated pictures are clear and
differ between classes, and the result is above local training. Other algorithms are told what applies to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stages.reporting import scores
from stages.reporting.charts import mean_known
from stages.reporting.rows import Group

STUCK = 0.02  # a loss that changed by no more than this part did not move
SOLVED = 0.05  # a transfer loss below this part of its first is not a task any more
COLLAPSED = 0.05  # centroids nearer than this part of their mean distance coincide
ALIKE = 2.0  # pictures that differ by fewer grey levels a pixel are one picture


@dataclass(frozen=True)
class Finding:
    good: bool
    says: str
    advice: str = ""


def diagnose(groups: Sequence[Group], class_names: Mapping[str, Sequence[str]]) -> list[list[Finding]]:
    """Findings for each group; `class_names` by the reference of the data."""
    return [
        [
            *_alignment(group),
            *_centroids(group, class_names.get(group.facts["data"], ())),
            *_pairs(group, class_names.get(group.facts["data"], ())),
            *_transfer(group),
            *_above_local(group, groups),
        ]
        for group in groups
    ]


def _alignment(group: Group) -> list[Finding]:
    """Whether each of the server's losses fell."""
    found, titles = [], dict(group.facts.get("server_metrics", {}))
    for name in sorted(group.runs[0].server_metrics):
        title = titles.get(name, name)
        ends = _ends([run.server_metrics.get(name, np.zeros(0)) for run in group.runs])
        if ends is None:
            continue
        first, last = ends
        moved = f"from {first:.3g} after the first round to {last:.3g}"
        if last < first * (1 - STUCK):
            found.append(Finding(True, f"{title} fell {moved}: the server learns."))
        elif last <= first * (1 + STUCK):
            advice = "Where it is small, it had settled in the first round; else try server_lr=0.001"
            if name == "mmd":
                advice += ", or mmd_bandwidth=median, which fits the kernels to the latents"
            found.append(Finding(False, f"{title} did not move ({moved}).", f"{advice}."))
        else:
            advice = "Have the server train longer (server_epochs=300), or in smaller steps (server_lr=0.001)."
            found.append(Finding(False, f"{title} rose {moved}: the server falls behind.", advice))
    return found


def _centroids(group: Group, names: Sequence[str]) -> list[Finding]:
    """Whether the centroids of the classes' transformed prototypes are apart, in the first seed's run."""
    points = group.runs[0].centroids.astype(np.float64)
    if len(points) < 2 or not points.shape[1]:
        return []
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    apart = distances[~np.eye(len(points), dtype=bool)]
    nearest, one, other = _nearest(distances)
    size = np.linalg.norm(points, axis=1).mean()
    if apart.mean() > COLLAPSED * size and nearest > COLLAPSED * apart.mean():
        part = 100 * nearest / apart.mean()
        return [
            Finding(
                True, f"The prototypes of the classes are apart: the two nearest by {part:.0f} % of the mean distance."
            )
        ]
    says = f"The prototypes of {_name(names, one)} and {_name(names, other)} nearly coincide on the server."
    return [Finding(False, says, "Train more rounds or local epochs, so that clients tell these classes apart first.")]


def _pairs(group: Group, names: Sequence[str]) -> list[Finding]:
    """Whether the pictures of the classes differ, in the last round of the first seed's run that kept them."""
    run = group.runs[0]
    if not len(run.pair_rounds):
        return []
    kept = run.pair_labels[-1] >= 0
    labels, pictures = run.pair_labels[-1][kept], run.pair_images[-1][kept].astype(np.float32)
    if len(labels) < 2:
        return []
    distances = np.stack([np.abs(pictures - picture).mean(axis=(1, 2, 3)) for picture in pictures])
    nearest, one, other = _nearest(distances)
    if nearest >= ALIKE:
        says = (
            f"The pictures of different classes differ, the most similar by {nearest:.0f} of 255 grey levels a pixel."
        )
        return [Finding(True, f"{says} Judge by eye whether they are clear: see below.")]
    says = f"The pictures of {_name(names, labels[one])} and {_name(names, labels[other])} are as good as the same."
    return [Finding(False, says, "Make a larger bank (samples=5000), or raise its truncation.")]


def _transfer(group: Group) -> list[Finding]:
    """Whether the clients still learn from the pairs: the loss falls, and has not vanished."""
    ends = _ends([_positive(run.client_metrics.get("transfer")) for run in group.runs])
    if ends is None:
        return []
    first, last = ends
    moved = f"from {first:.3g} to {last:.3g}"
    if last < SOLVED * first:
        says = f"The transfer loss fell {moved}: the clients know the pairs by heart, and learn nothing more from them."
        return [Finding(False, says, "Give more pairs (pairs_per_class=10), or new ones every round (pairs=live).")]
    if last > (1 - STUCK) * first:
        says = f"The transfer loss did not fall ({moved}): the clients learn nothing from the pairs."
        return [Finding(False, says, "Raise its weight (mu=100), or train more rounds.")]
    return [Finding(True, f"The transfer loss fell {moved}, and the clients still learn from the pairs.")]


def _above_local(group: Group, groups: Sequence[Group]) -> list[Finding]:
    """Whether the group's accuracy is above that of clients on their own, who upload nothing."""
    if not _uploads(group) or group.planned:
        return []
    alone = [
        other
        for other in groups
        if not _uploads(other) and not other.planned and _federation(other) == _federation(group)
    ]
    if not alone:
        return [
            Finding(
                False, "There is no local training to compare with.", "Train with algorithm=local on the same data."
            )
        ]
    if _validated([group, *alone]):
        score, where = scores.validation_selected, "at the rounds selected on validation"
    else:
        score, where = scores.last, "after the last round"
    own, *others = (np.array([score(run) for run in each.runs], np.float64) for each in [group, *alone])
    best = max(others, key=lambda values: np.mean(values))
    lead, noise = np.mean(own) - np.mean(best), np.hypot(_deviation(own), _deviation(best))
    if lead > noise:
        return [Finding(True, f"It is {lead:.2f} points above local training {where}.")]
    advice = (
        f"Tune its hyperparameters to these data (fedktl algorithms show {group.facts['algorithm']} explains them)."
    )
    if lead >= -noise and noise:
        says = f"It is not clearly apart from local training {where}: {lead:+.2f} points, where seeds differ by {noise:.2f}."
        return [Finding(False, says, f"Add seeds (seeds=0,1,2,3,4). {advice}")]
    stands = f"{-lead:.2f} points below" if lead else "level with"
    return [Finding(False, f"It is {stands} local training {where}.", advice)]


def _federation(group: Group) -> tuple[object, ...]:
    return group.facts["data"], *group.facts["architectures"]


def _uploads(group: Group) -> bool:
    return any(run.upload_floats.any() for run in group.runs)


def _validated(groups: Sequence[Group]) -> bool:
    return all(run.validation_samples.any() for group in groups for run in group.runs)


def _deviation(values: np.ndarray) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _positive(transfer: np.ndarray | None) -> np.ndarray:
    """Mean over clients of the rounds in which there were pairs: the first has none, and a loss of zero."""
    if transfer is None:
        return np.zeros(0)
    mean = mean_known(transfer)
    return mean[mean > 0]


def _ends(series: Sequence[np.ndarray]) -> tuple[float, float] | None:
    """First and last finite value, means over the seeds; None unless every seed has two."""
    known = [values[np.isfinite(values)] for values in series]
    if any(len(values) < 2 for values in known):
        return None
    return float(np.mean([values[0] for values in known])), float(np.mean([values[-1] for values in known]))


def _nearest(distances: np.ndarray) -> tuple[float, int, int]:
    """The smallest distance of two, and which two they are."""
    apart = np.where(np.eye(len(distances), dtype=bool), np.inf, distances)
    one, other = np.unravel_index(apart.argmin(), apart.shape)
    return float(apart[one, other]), int(one), int(other)


def _name(names: Sequence[str], label: int) -> str:
    return names[label] if label < len(names) else f"class {label}"
