"""What figures are drawn of: curves over rounds, dots in columns, cells of a matrix. Each gives the values it shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from stages.reporting.theme import (
    CARD,
    DASHES,
    HEAT,
    INK,
    ON_PALE,
    ON_STRONG,
    PALE,
    PALETTE,
    Value,
    colour,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE, HALF = 9.8, 4.8  # inches
TOLD = 30  # values of a curve that show under a pointer, at most
NUMBERED = 25, 30  # columns and rows of cells up to which each has its number written in it
CELLS = 1000  # of a whole figure, up to which each has its number written in it and its value under a pointer


def curve(axes: Axes, index: int, x: np.ndarray, values: np.ndarray, label: str, unit: str = "") -> list[Value]:
    """The mean over seeds as a line, and a band of one sample standard deviation around it; values [seeds, E]."""
    mean, dash = values.mean(axis=0), DASHES[index // len(PALETTE) % len(DASHES)]
    axes.plot(x, mean, dash, color=colour(index), label=label, marker="o" if len(x) == 1 else None, zorder=3)
    if len(values) > 1:
        deviation = values.std(axis=0, ddof=1)
        axes.fill_between(x, mean - deviation, mean + deviation, color=colour(index), alpha=0.15, linewidth=0)
    shown = np.unique(np.linspace(0, len(x) - 1, TOLD).round().astype(int))
    known = [at for at in shown if np.isfinite(mean[at])]
    return [Value(axes, x[at], mean[at], f"{label}: {mean[at]:.4g}{unit} at {x[at]:,.6g}") for at in known]


def rounds_below(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True, steps=[1, 2, 5, 10]))


def legend(figure: Figure, handlelength: float = 1.4) -> None:
    """One legend above all panels, in as many columns as its labels leave room for."""
    handles = {}
    for axes in figure.axes:
        handles.update({text: line for line, text in zip(*axes.get_legend_handles_labels(), strict=True)})
    columns = int(figure.get_figwidth() / (0.55 + 0.075 * max(map(len, handles))))
    figure.legend(
        handles.values(), handles.keys(), loc="outside upper left", ncols=max(1, min(columns, len(handles))),
        handlelength=handlelength, columnspacing=1.4, handletextpad=0.5,
    )  # fmt: skip


def dots(
    figure: Figure, names: Sequence[str], blocks: Mapping[str, Sequence[int]], series: Mapping[int, np.ndarray],
    labels: Mapping[int, str], what: str,
) -> list[Value]:  # fmt: skip
    """A column of dots for each of `names`: those of `series`, percentages [columns] by the index of their group.

    Columns stand in `blocks` by name, each with a short line at the mean of every group. Dots that would cover each
    other stand side by side.
    """
    axes, position, place = figure.subplots(), np.zeros(len(names)), 0.0
    for block in blocks.values():
        position[list(block)] = place + np.arange(len(block))
        place += len(block) + 0.8  # a gap before the next block
    values = np.stack(list(series.values()))
    low, high = (np.ma.masked_invalid(values).min(axis=0), np.ma.masked_invalid(values).max(axis=0))
    axes.vlines(position, low, high, color="#aab2bb", linewidth=1.4, alpha=0.6, zorder=1)
    beside = dodged(values, near=0.035 * max(1.0, float(high.max() - low.min())), room=0.8)
    marks = []
    for (index, its), offset in zip(series.items(), beside, strict=True):
        for block in blocks.values():
            ends = position[block[0]] - 0.4, position[block[-1]] + 0.4
            axes.hlines(
                mean_known(its[None, list(block)]), *ends, color=colour(index), linewidth=1.3, alpha=0.55, zorder=2
            )
        axes.plot(
            position + offset, its, "o", label=labels[index], color=colour(index), markersize=6.5, markeredgecolor=CARD,
            markeredgewidth=0.8, zorder=3,
        )  # fmt: skip
        marks += [
            Value(axes, x, y, f"{labels[index]}, {what} {name}: {y:.2f} %")
            for x, y, name in zip(position + offset, its, names, strict=True)
            if np.isfinite(y)
        ]
    shown = [column for block in blocks.values() for column in block][:: step(len(names), 40)]
    crowded = sum(len(names[column]) + 2 for column in shown) * 0.075 > WIDE
    axes.set_xticks(position[shown], [short(names[column]) for column in shown], rotation=90 if crowded else 0)
    axes.grid(axis="x", visible=False)
    axes.set(xlabel=what, ylabel="test accuracy (%)", xlim=(-0.8, place - 1.0))
    if len(blocks) > 1 or next(iter(blocks)):
        _name_blocks(axes, blocks, position, place - 0.8)
    legend(figure, handlelength=0.8)
    return marks


def dodged(values: np.ndarray, near: float, room: float) -> np.ndarray:
    """[series, columns]: how far to the side each dot stands, so that no two nearer than `near` cover each other."""
    offsets = np.zeros(values.shape)
    width = min(0.22, room / max(1, len(values) - 1))
    for column, heights in enumerate(values.T):
        order = [row for row in np.argsort(heights, kind="stable") if np.isfinite(heights[row])]
        apart = np.diff(heights[order]) >= near
        for crowd in np.split(order, np.flatnonzero(apart) + 1):
            offsets[np.sort(np.asarray(crowd, int)), column] = width * (np.arange(len(crowd)) - (len(crowd) - 1) / 2)
    return offsets


def _name_blocks(axes: Axes, blocks: Mapping[str, Sequence[int]], position: np.ndarray, width: float) -> None:
    """Write each block's name above its columns, slanted where the names would touch."""
    crowded = any(len(name) * 0.075 > WIDE * len(columns) / width for name, columns in blocks.items())
    for name, columns in blocks.items():
        middle = (position[columns[0]] + position[columns[-1]]) / 2
        axes.annotate(
            name, (middle, 1.0), (0, 4), xycoords=("data", "axes fraction"), textcoords="offset points", va="bottom",
            ha="left" if crowded else "center", rotation=25 if crowded else 0, color=INK, fontsize=9,
        )  # fmt: skip


def cells(
    axes: Axes, parts: np.ndarray, rows: Sequence[str], columns: Sequence[str], texts: np.ndarray,
    tell: Callable[[int, int], str],
) -> list[Value]:  # fmt: skip
    """A matrix whose cells go from clear to blue: parts in 0..1 and what is written there, both [rows, columns].

    `tell` gives what the page tells about a row and column.
    """
    from matplotlib.colors import to_rgb

    picture = np.dstack([*(np.full(parts.shape, part) for part in to_rgb(HEAT)), np.nan_to_num(parts)])
    axes.imshow(picture, aspect="auto", interpolation="none")
    height, width = parts.shape
    few = parts.size * len(axes.figure.axes) <= CELLS
    if few and width <= NUMBERED[0] and height <= NUMBERED[1]:
        for (row, column), part in np.ndenumerate(parts):
            if part > 0:
                ink = ON_PALE if part <= PALE else ON_STRONG
                axes.text(column, row, str(texts[row, column]), ha="center", va="center", fontsize=8, color=ink)
    across, down = range(0, width, step(width, 40)), range(0, height, step(height, 50))
    axes.set_xticks(across, [short(columns[column]) for column in across])
    axes.set_yticks(down, [short(rows[row]) for row in down])
    axes.grid(visible=False)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    if not few:
        return []
    return [Value(axes, column, row, tell(row, column), cell=(1, 1)) for row, column in np.ndindex(parts.shape)]


def mean_known(values: np.ndarray) -> np.ndarray:
    """[R, K] -> [R]: the mean over the clients that hold a number; NaN where none does."""
    known = ~np.isnan(values)
    total, number = np.where(known, values, 0).sum(axis=1), known.sum(axis=1)
    return np.asarray(np.divide(total, number, out=np.full(len(values), np.nan), where=number > 0))


def step(entries: int, room: int) -> int:
    """Label every n-th entry of an axis that has room for so many labels."""
    return -(-entries // room)


def short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"
