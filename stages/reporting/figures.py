"""Groups of runs -> figures as SVG text, the same bytes for the same numbers. Matplotlib without its global state."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stages.artifacts.schemas import Run
from stages.reporting import charts, scores, words
from stages.reporting.charts import HALF, WIDE
from stages.reporting.rows import Group
from stages.reporting.theme import STYLE, Value, colour, inlined

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTIONS = {
    "accuracy-rounds": (
        "Accuracy over rounds",
        "Test accuracy of all clients together after each round, the mean over seeds; the band is one standard "
        "deviation of the seeds. Round 0 is before any training. Look for who rises first and who still rises at the end.",
    ),
    "accuracy-floats": (
        "Accuracy over uploaded floats",
        "The same accuracy against the numbers that all clients had sent by then. Further left at the same height is "
        "cheaper; a dashed line is the last accuracy of an algorithm that uploads nothing.",
    ),
    "clients": (
        "Accuracy of each client",
        "Each dot is a client at the last round, under the architecture it trains, the mean over seeds; a short line is "
        "the mean of that architecture. A grey line joins the dots of one client: its length is what the choice of "
        "algorithm means to that client.",
    ),
    "classes": (
        "Accuracy of each class",
        "Each dot is the part of a class's test images, of all clients and seeds together, that is classified correctly at the "
        "last evaluation. A class that all algorithms miss is hard; one that a single algorithm misses was forgotten.",
    ),
    "confusion": (
        "Confusion",
        "Of the test images of each class (row), the percentage that gets each label (column) at the last evaluation, all "
        "clients and seeds together. Off the diagonal are the mistakes.",
    ),
    "labels": (
        "Label distribution",
        "Images of each class that each client holds, all splits together. Empty cells are classes a client has never "
        "seen: the more of them, the harder the federation.",
    ),
    "server-losses": (
        "Learning on the server",
        "What the server measured at the end of each round, by the algorithm's own names. FedKTL's MMD falls as the clients' "
        "prototypes come to lie in the generator's latent space, its MSE as they gather around the centroids of their classes.",
    ),
    "client-losses": (
        "Losses on the clients",
        "Mean over the clients that took part in each round. Losses of different algorithms are different functions: "
        "compare the shapes, not the heights.",
    ),
}
MATRICES = 30  # classes up to which a confusion matrix can be read at all


@dataclass(frozen=True)
class Picture:
    name: str
    title: str
    caption: str
    told: str  # what it shows, in words
    svg: str  # a picture of its own
    inline: str  # the same as an element of the page
    wide: bool  # takes the whole width of the page


@dataclass(frozen=True)
class Labels:
    """The label counts of a data artifact."""

    data: str  # its reference
    class_names: list[str]
    counts: np.ndarray  # int64 [clients, classes]


def pictures(groups: list[Group], labels: Sequence[Labels]) -> list[Picture]:
    """Every figure there are numbers for, in the order of the page."""
    curves = words.curves(groups)
    found = [
        _picture("accuracy-rounds", HALF, 3.5, _drawing(_accuracy_over_rounds, groups), curves),
        _picture("accuracy-floats", HALF, 3.5, _drawing(_accuracy_over_floats, groups), words.floats(groups)),
    ]
    federations = _by_federation(groups)
    for number, (data, members) in enumerate(federations, start=1):
        of = f"{data}, {groups[members[0]].facts['models']}" if len(federations) > 1 else ""
        accuracies = {index: np.mean([scores.clients(run) for run in groups[index].runs], axis=0) for index in members}
        draw = _drawing(_accuracy_of_clients, groups, accuracies)
        told = words.columns(groups, accuracies, "client", [str(k) for k in range(len(accuracies[members[0]]))])
        found.append(_picture("clients", WIDE, 3.9, draw, told, number, of))
    found += _of_classes(groups, labels)
    for number, one in enumerate(labels, start=1):
        height = min(1.2 + 0.27 * len(one.class_names), 12.0)
        of = one.data if len(labels) > 1 else ""
        draw = _drawing(_label_distribution, one)
        found.append(_picture("labels", WIDE, height, draw, words.labels(one.counts), number, of))
    for name, metrics in (("server-losses", _server_curves(groups)), ("client-losses", _client_curves(groups))):
        if metrics:
            height = 3.1 * _panels(len(metrics))[0]
            told = words.metrics(groups, metrics)
            found.append(_picture(name, WIDE, height, _drawing(_metrics, metrics, groups), told))
    return found


def _drawing(draw: Callable[..., list[Value]], *facts: object) -> Callable[[Figure], list[Value]]:
    return lambda figure: draw(figure, *facts)


def _picture(
    name: str, width: float, height: float, draw: Callable[[Figure], list[Value]], told: str, number: int = 1, of: str = ""
) -> Picture:  # fmt: skip
    """Draw on a new figure. `number` and `of` tell apart several pictures of one kind."""
    from matplotlib import style
    from matplotlib.figure import Figure

    title, caption = CAPTIONS[name]
    own = name if number == 1 else f"{name}-{number}"
    with style.context({**STYLE, "svg.hashsalt": own}, after_reset=True):  # whatever style the user has set
        figure = Figure(figsize=(width, height), layout="constrained")
        values = draw(figure)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
        svg = text.getvalue()
        inline = inlined(svg, figure, values)
    return Picture(own, f"{title}: {of}" if of else title, caption, told, svg, inline, wide=width == WIDE)


def _by_federation(groups: list[Group]) -> list[tuple[str, list[int]]]:
    """Indices of the groups that share their data and the architecture of every client, with that data."""
    shared: dict[tuple[str, ...], list[int]] = {}
    for index, group in enumerate(groups):
        shared.setdefault((group.facts["data"], *group.facts["architectures"]), []).append(index)
    return [(key[0], members) for key, members in shared.items()]


def _accuracy_over_rounds(figure: Figure, groups: list[Group]) -> list[Value]:
    axes, values = figure.subplots(), []
    for index, group in enumerate(groups):
        rounds, accuracies = _shared_rounds(group.runs, scores.accuracy)
        values += charts.curve(axes, index, rounds, accuracies, group.label, " %")
    axes.set(xlabel="round", ylabel="test accuracy (%)")
    charts.rounds_below(axes)
    charts.legend(figure)
    return values


def _accuracy_over_floats(figure: Figure, groups: list[Group]) -> list[Value]:
    """Linear, or logarithmic where the algorithms' totals lie further apart than a factor of ten."""
    from matplotlib.ticker import EngFormatter

    axes, values = figure.subplots(), []
    totals = [total for group in groups if (total := np.mean([run.upload_floats.sum() for run in group.runs]))]
    logarithmic = len(totals) > 1 and max(totals) > 10 * min(totals)
    for index, group in enumerate(groups):
        _, accuracies = _shared_rounds(group.runs, scores.accuracy)
        floats = _shared_rounds(group.runs, scores.uploaded_floats)[1].mean(axis=0)
        sent = floats > 0 if logarithmic else floats >= 0
        if floats[-1]:
            values += charts.curve(axes, index, floats[sent], accuracies[:, sent], group.label, " %")
        else:
            last = accuracies[:, -1].mean()
            axes.axhline(last, color=colour(index), linestyle=(0, (4, 3)), linewidth=1.5, label=group.label)
    if logarithmic:
        axes.set_xscale("log")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if not totals:
        axes.set_xlim(0, 1)
    scale = ", log scale" if logarithmic else ""
    axes.set(xlabel=f"floats uploaded by all clients{scale}", ylabel="test accuracy (%)")
    charts.legend(figure)
    return values


def _shared_rounds(runs: list[Run], measure: Callable[[Run], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The evaluated rounds that all seeds have in common, int64 [E], and the measure there, [seeds, E]."""
    rounds = runs[0].evaluated
    for run in runs[1:]:
        rounds = np.intersect1d(rounds, run.evaluated)
    return rounds, np.stack([measure(run)[np.isin(run.evaluated, rounds)] for run in runs])


def _accuracy_of_clients(figure: Figure, groups: list[Group], accuracies: dict[int, np.ndarray]) -> list[Value]:
    architectures = groups[next(iter(accuracies))].facts["architectures"]
    blocks: dict[str, list[int]] = {}
    for client, name in enumerate(architectures):
        blocks.setdefault(name, []).append(client)
    labels = {index: groups[index].label for index in accuracies}
    return charts.dots(figure, [str(k) for k in range(len(architectures))], blocks, accuracies, labels, "client")


def _of_classes(groups: list[Group], labels: Sequence[Labels]) -> list[Picture]:
    """Accuracy and confusion by class, for each data whose groups have recorded them."""
    found = []
    names = {one.data: one.class_names for one in labels}
    confused = {index: counts for index, group in enumerate(groups) if (counts := _confusion(group)) is not None}
    by_data: dict[str, list[int]] = {}
    for index in confused:
        by_data.setdefault(groups[index].facts["data"], []).append(index)
    for number, (data, members) in enumerate(by_data.items(), start=1):
        of = data if len(by_data) > 1 else ""
        parts = {index: scores.percentages(confused[index]) for index in members}
        classes = names.get(data) or [f"class {label}" for label in range(len(parts[members[0]]))]
        right = {index: part.diagonal() for index, part in parts.items()}
        told = words.columns(groups, right, "class", classes)
        found.append(
            _picture("classes", WIDE, 3.9, _drawing(_accuracy_of_classes, groups, right, classes), told, number, of)
        )
        if len(classes) <= MATRICES:
            height = (1.1 + 0.2 * len(classes)) * _panels(len(members))[0]
            draw, told = _drawing(_confusions, groups, parts, classes), words.confusions(groups, parts, classes)
            found.append(_picture("confusion", WIDE, height, draw, told, number, of))
    return found


def _confusion(group: Group) -> np.ndarray | None:
    """int64 [C, C], all seeds together; None unless every run has recorded it."""
    counts = [run.test_confusion[0] for run in group.runs if run.test_confusion.size]
    return np.asarray(np.sum(counts, axis=0)) if len(counts) == len(group.runs) else None


def _accuracy_of_classes(
    figure: Figure, groups: list[Group], right: dict[int, np.ndarray], classes: list[str]
) -> list[Value]:
    labels = {index: groups[index].label for index in right}
    return charts.dots(figure, classes, {"": range(len(classes))}, right, labels, "class")


def _confusions(figure: Figure, groups: list[Group], parts: dict[int, np.ndarray], classes: list[str]) -> list[Value]:
    panels, values = figure.subplots(*_panels(len(parts)), squeeze=False).ravel(), []
    labels = [charts.short(name) for name in classes]
    for axes, (index, part) in zip(panels, parts.items(), strict=False):
        texts = np.array([["–" if np.isnan(p) else f"{p:.0f}" for p in row] for row in part])

        def tell(row: int, column: int, texts: np.ndarray = texts, who: str = groups[index].label) -> str:
            return f"{who} labels {texts[row, column]} % of {classes[row]} as {classes[column]}"

        values += charts.cells(axes, part / 100, labels, labels, texts, tell)
        axes.set_xticks(range(len(labels)), labels, rotation=90 if max(map(len, labels)) > 2 else 0)
        axes.set(title=groups[index].label, xlabel="label it gets", ylabel="class")
    for axes in panels[len(parts) :]:
        axes.set_visible(False)
    return values


def _label_distribution(figure: Figure, labels: Labels) -> list[Value]:
    axes, counts = figure.subplots(), labels.counts.T  # one row a class
    parts = np.sqrt(counts / max(1, counts.max()))  # the square root keeps small counts visible
    clients = [str(client) for client in range(counts.shape[1])]
    axes.set(xlabel="client", ylabel="class")

    def tell(row: int, column: int) -> str:
        return f"client {column}, {labels.class_names[row]}: {counts[row, column]:,} images"

    return charts.cells(axes, parts, labels.class_names, clients, counts.astype(str), tell)


def _server_curves(groups: list[Group]) -> words.Curves:
    runs = [run for group in groups for run in group.runs]
    titles = {name: str(title) for run in runs for name, title in dict(run.facts.get("server_metrics", {})).items()}
    names = sorted({name for run in runs for name in run.server_metrics})
    found = {
        titles.get(name, name): _metric(groups, lambda run, name=name: run.server_metrics.get(name)) for name in names
    }
    return {title: curves for title, curves in found.items() if curves}


def _client_curves(groups: list[Group]) -> words.Curves:
    def mean(run: Run, name: str) -> np.ndarray | None:
        return charts.mean_known(run.client_metrics[name]) if name in run.client_metrics else None

    names = sorted({name for group in groups for run in group.runs for name in run.client_metrics})
    found = {name: _metric(groups, lambda run, name=name: mean(run, name)) for name in names}
    return {name: curves for name, curves in found.items() if curves}


def _metric(groups: list[Group], measure: Callable[..., np.ndarray | None]) -> dict[int, np.ndarray]:
    """The metric of every group whose runs all have it, cut to the rounds that all its seeds have run."""
    curves = {}
    for index, group in enumerate(groups):
        values = [value for run in group.runs if (value := measure(run)) is not None]
        if len(values) == len(group.runs):
            rounds = min(map(len, values))
            curves[index] = np.stack([value[:rounds] for value in values])
    return curves


def _panels(number: int) -> tuple[int, int]:
    """Rows and columns of panels: three in a row where there are more than two."""
    columns = 3 if number > 2 else 2
    return -(-number // columns), columns


def _metrics(figure: Figure, curves: words.Curves, groups: list[Group]) -> list[Value]:
    """A panel a metric."""
    panels, shown = figure.subplots(*_panels(len(curves)), squeeze=False).ravel(), []
    for axes, (title, members) in zip(panels, curves.items(), strict=False):
        for index, values in members.items():
            rounds = np.arange(1, values.shape[1] + 1)
            shown += charts.curve(axes, index, rounds, values, groups[index].label)
        axes.set(title=title, xlabel="round")
        charts.rounds_below(axes)
    for axes in panels[len(curves) :]:
        axes.set_visible(False)
    charts.legend(figure)
    return shown
