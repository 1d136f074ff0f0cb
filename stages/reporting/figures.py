"""Groups of runs -> figures as SVG text, the same bytes for the same numbers. Matplotlib without its global state."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.artifacts.schemas import Run
from stages.reporting import scores
from stages.reporting.rows import Group

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with any colour vision; the light yellow is left out, it fades on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", ":", "-.")
INK, MUTED, RULE = "#24292f", "#57606a", "#e4e8ec"
STYLE: dict[str, Any] = {
    "svg.fonttype": "none", "text.parse_math": False, "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5, "text.color": INK, "axes.labelcolor": MUTED, "xtick.color": MUTED, "ytick.color": MUTED,
    "xtick.major.size": 0, "ytick.major.size": 0, "xtick.minor.size": 0, "axes.edgecolor": "#aab2bb",
    "axes.linewidth": 0.8, "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False,
    "axes.grid": True, "grid.color": RULE, "grid.linewidth": 0.8, "axes.axisbelow": True,
    "axes.titlelocation": "left", "axes.titlesize": 10.5, "legend.frameon": False, "lines.linewidth": 1.9,
    "lines.solid_capstyle": "round", "axes.xmargin": 0.02,
}  # fmt: skip
WIDE, HALF = 9.8, 4.8  # inches
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


@dataclass(frozen=True)
class Picture:
    name: str
    title: str
    caption: str
    svg: str
    wide: bool  # takes the whole width of the page


@dataclass(frozen=True)
class Labels:
    """The label counts of a data artifact."""

    data: str  # its reference
    class_names: list[str]
    counts: np.ndarray  # int64 [clients, classes]


def colour(index: int) -> str:
    """The colour of the group at `index`, the same in every figure and on the page."""
    return PALETTE[index % len(PALETTE)]


def pictures(groups: list[Group], labels: Sequence[Labels]) -> list[Picture]:
    """Every figure there are numbers for, in the order of the page."""
    found = [
        _picture("accuracy-rounds", HALF, 3.5, _drawing(_accuracy_over_rounds, groups)),
        _picture("accuracy-floats", HALF, 3.5, _drawing(_accuracy_over_floats, groups)),
    ]
    federations = _by_federation(groups)
    for number, (data, members) in enumerate(federations, start=1):
        of = f"{data}, {groups[members[0]].facts['models']}" if len(federations) > 1 else ""
        draw = _drawing(_accuracy_of_clients, groups, members)
        found.append(_picture("clients", WIDE, 3.9, draw, number, of))
    for number, one in enumerate(labels, start=1):
        height = min(1.2 + 0.27 * len(one.class_names), 12.0)
        of = one.data if len(labels) > 1 else ""
        found.append(_picture("labels", WIDE, height, _drawing(_label_distribution, one), number, of))
    for name, curves in (("server-losses", _server_curves(groups)), ("client-losses", _client_curves(groups))):
        if curves:
            found.append(_picture(name, WIDE, 3.1 * _panels(len(curves))[0], _drawing(_metrics, curves, groups)))
    return found


def _drawing(draw: Callable[..., None], *facts: Any) -> Callable[[Figure], None]:
    return lambda figure: draw(figure, *facts)


def _picture(
    name: str, width: float, height: float, draw: Callable[[Figure], None], number: int = 1, of: str = ""
) -> Picture:
    """Draw on a new figure. `number` and `of` tell apart several pictures of one kind."""
    from matplotlib import style
    from matplotlib.figure import Figure

    title, caption = CAPTIONS[name]
    own = name if number == 1 else f"{name}-{number}"
    with style.context({**STYLE, "svg.hashsalt": own}, after_reset=True):  # whatever style the user has set
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return Picture(own, f"{title}: {of}" if of else title, caption, text.getvalue(), wide=width == WIDE)


def _by_federation(groups: list[Group]) -> list[tuple[str, list[int]]]:
    """Indices of the groups that share their data and the architecture of every client, with that data."""
    shared: dict[tuple[str, ...], list[int]] = {}
    for index, group in enumerate(groups):
        shared.setdefault((group.facts["data"], *group.facts["architectures"]), []).append(index)
    return [(key[0], members) for key, members in shared.items()]


def _accuracy_over_rounds(figure: Figure, groups: list[Group]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes = figure.subplots()
    for index, group in enumerate(groups):
        rounds, values = _shared_rounds(group.runs, scores.accuracy)
        _curve(axes, index, rounds, values, group.label)
    axes.set(xlabel="round", ylabel="test accuracy (%)")
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True, steps=[1, 2, 5, 10]))
    _legend(figure)


def _accuracy_over_floats(figure: Figure, groups: list[Group]) -> None:
    """Linear, or logarithmic where the algorithms' totals lie further apart than a factor of ten."""
    from matplotlib.ticker import EngFormatter

    axes = figure.subplots()
    totals = [total for group in groups if (total := np.mean([run.upload_floats.sum() for run in group.runs]))]
    logarithmic = len(totals) > 1 and max(totals) > 10 * min(totals)
    for index, group in enumerate(groups):
        _, values = _shared_rounds(group.runs, scores.accuracy)
        floats = _shared_rounds(group.runs, scores.uploaded_floats)[1].mean(axis=0)
        sent = floats > 0 if logarithmic else floats >= 0
        if floats[-1]:
            _curve(axes, index, floats[sent], values[:, sent], group.label)
        else:
            last = values[:, -1].mean()
            axes.axhline(last, color=colour(index), linestyle=(0, (4, 3)), linewidth=1.5, label=group.label)
    if logarithmic:
        axes.set_xscale("log")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if not totals:
        axes.set_xlim(0, 1)
    scale = ", log scale" if logarithmic else ""
    axes.set(xlabel=f"floats uploaded by all clients{scale}", ylabel="test accuracy (%)")
    _legend(figure)


def _shared_rounds(runs: list[Run], measure: Callable[[Run], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The evaluated rounds that all seeds have in common, int64 [E], and the measure there, [seeds, E]."""
    rounds = runs[0].evaluated
    for run in runs[1:]:
        rounds = np.intersect1d(rounds, run.evaluated)
    return rounds, np.stack([measure(run)[np.isin(run.evaluated, rounds)] for run in runs])


def _curve(axes: Axes, index: int, x: np.ndarray, values: np.ndarray, label: str) -> None:
    """The mean over seeds as a line, and a band of one sample standard deviation around it; values [seeds, E]."""
    mean, dash = values.mean(axis=0), DASHES[index // len(PALETTE) % len(DASHES)]
    axes.plot(x, mean, dash, color=colour(index), label=label, marker="o" if len(x) == 1 else None, zorder=3)
    if len(values) > 1:
        deviation = values.std(axis=0, ddof=1)
        axes.fill_between(x, mean - deviation, mean + deviation, color=colour(index), alpha=0.15, linewidth=0)


def _legend(figure: Figure, handlelength: float = 1.4) -> None:
    """One legend above all panels, in as many columns as its labels leave room for."""
    handles = {}
    for axes in figure.axes:
        handles.update({text: line for line, text in zip(*axes.get_legend_handles_labels(), strict=True)})
    columns = int(figure.get_figwidth() / (0.55 + 0.075 * max(map(len, handles))))
    figure.legend(
        handles.values(), handles.keys(), loc="outside upper left", ncols=max(1, min(columns, len(handles))),
        handlelength=handlelength, columnspacing=1.4, handletextpad=0.5,
    )  # fmt: skip


def _accuracy_of_clients(figure: Figure, groups: list[Group], members: list[int]) -> None:
    axes = figure.subplots()
    names = groups[members[0]].facts["architectures"]
    order = sorted(range(len(names)), key=lambda client: (names.index(names[client]), client))
    position, place = np.zeros(len(names)), 0.0
    blocks: dict[str, list[int]] = {}
    for client in order:
        if names[client] not in blocks:
            place += 0.8 * bool(blocks)  # a gap before the next architecture
            blocks[names[client]] = []
        position[client] = place
        blocks[names[client]].append(client)
        place += 1
    accuracies = np.stack([np.mean([scores.clients(run) for run in groups[index].runs], axis=0) for index in members])
    axes.vlines(position, accuracies.min(axis=0), accuracies.max(axis=0), color="#c8ced5", linewidth=1.6, zorder=1)
    for index, values in zip(members, accuracies, strict=True):
        for clients in blocks.values():
            ends = position[clients[0]] - 0.4, position[clients[-1]] + 0.4
            axes.hlines(
                _mean_known(values[None, clients]), *ends, color=colour(index), linewidth=1.3, alpha=0.55, zorder=2
            )
        axes.plot(
            position, values, "o", label=groups[index].label, color=colour(index), markersize=6.5,
            markeredgecolor="white", markeredgewidth=0.8, zorder=3,
        )  # fmt: skip
    shown = order[:: _step(len(order), 40)]
    axes.set_xticks(position[shown], [str(client) for client in shown])
    axes.grid(axis="x", visible=False)
    axes.set(xlabel="client", ylabel="test accuracy (%)", xlim=(-0.8, place - 0.2))
    _name_blocks(axes, blocks, position, place)
    _legend(figure, handlelength=0.8)


def _name_blocks(axes: Axes, blocks: dict[str, list[int]], position: np.ndarray, width: float) -> None:
    """Write each architecture above its clients, slanted where the names would touch."""
    crowded = any(len(name) * 0.075 > WIDE * len(clients) / width for name, clients in blocks.items())
    for name, clients in blocks.items():
        middle = (position[clients[0]] + position[clients[-1]]) / 2
        axes.annotate(
            name, (middle, 1.0), (0, 4), xycoords=("data", "axes fraction"), textcoords="offset points", va="bottom",
            ha="left" if crowded else "center", rotation=25 if crowded else 0, color=INK, fontsize=9,
        )  # fmt: skip


def _label_distribution(figure: Figure, labels: Labels) -> None:
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    axes = figure.subplots()
    counts = labels.counts.T  # one row a class
    shades = LinearSegmentedColormap.from_list("counts", ["#f4f7fa", "#9ecae1", "#2f7fbc", "#0b3c6f"])
    shading = PowerNorm(0.5, vmin=0, vmax=max(1, counts.max()))  # the square root keeps small counts visible
    image = axes.imshow(counts, cmap=shades, norm=shading, aspect="auto", interpolation="none")
    classes, clients = counts.shape
    if clients <= 25 and classes <= 30:
        for (row, column), number in np.ndenumerate(counts):
            ink = "white" if shading(number) > 0.55 else INK
            if number:
                axes.text(column, row, str(number), ha="center", va="center", fontsize=8, color=ink)
    rows, columns = np.arange(0, classes, _step(classes, 50)), np.arange(0, clients, _step(clients, 40))
    axes.set_xticks(columns, [str(client) for client in columns])
    axes.set_yticks(rows, [_short(labels.class_names[row]) for row in rows])
    axes.set_xticks(np.arange(clients - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(classes - 1) + 0.5, minor=True)
    axes.grid(which="major", visible=False)
    axes.grid(which="minor", color="white", linewidth=1.2)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="client", ylabel="class")
    bar = figure.colorbar(image, ax=axes, pad=0.012, fraction=0.025, aspect=8 * figure.get_figheight())
    bar.outline.set_visible(False)
    bar.set_label("images")


def _step(entries: int, room: int) -> int:
    """Label every n-th entry of an axis that has room for so many labels."""
    return -(-entries // room)


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"


Curves = dict[str, dict[int, np.ndarray]]  # metric -> index of the group -> float64 [seeds, rounds]


def _server_curves(groups: list[Group]) -> Curves:
    runs = [run for group in groups for run in group.runs]
    titles = {name: str(title) for run in runs for name, title in dict(run.facts.get("server_metrics", {})).items()}
    names = sorted({name for run in runs for name in run.server_metrics})
    found = {
        titles.get(name, name): _metric(groups, lambda run, name=name: run.server_metrics.get(name)) for name in names
    }
    return {title: curves for title, curves in found.items() if curves}


def _client_curves(groups: list[Group]) -> Curves:
    def mean(run: Run, name: str) -> np.ndarray | None:
        return _mean_known(run.client_metrics[name]) if name in run.client_metrics else None

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


def _mean_known(values: np.ndarray) -> np.ndarray:
    """[R, K] -> [R]: the mean over the clients that hold a number; NaN where none does."""
    known = ~np.isnan(values)
    total, number = np.where(known, values, 0).sum(axis=1), known.sum(axis=1)
    return np.asarray(np.divide(total, number, out=np.full(len(values), np.nan), where=number > 0))


def _panels(metrics: int) -> tuple[int, int]:
    """Rows and columns of panels: three in a row where there are more than two."""
    columns = 3 if metrics > 2 else 2
    return -(-metrics // columns), columns


def _metrics(figure: Figure, curves: Curves, groups: list[Group]) -> None:
    """A panel a metric."""
    from matplotlib.ticker import MaxNLocator

    panels = figure.subplots(*_panels(len(curves)), squeeze=False).ravel()
    for axes, (title, members) in zip(panels, curves.items(), strict=False):
        for index, values in members.items():
            _curve(axes, index, np.arange(1, values.shape[1] + 1), values, groups[index].label)
        axes.set(title=title, xlabel="round")
        axes.xaxis.set_major_locator(MaxNLocator(7, integer=True, steps=[1, 2, 5, 10]))
    for axes in panels[len(curves) :]:
        axes.set_visible(False)
    _legend(figure)
