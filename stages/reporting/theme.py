"""How figures look: as pictures of their own, and inside the page, whose colours follow the reader's light or dark screen."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with any colour vision; the light yellow is left out, it fades on white.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHES = ("-", "--", ":", "-.")
INK, MUTED, RULE, EDGE, CARD = "#24292f", "#57606a", "#e4e8ec", "#aab2bb", "#ffffff"
HEAT, ON_PALE, ON_STRONG = "#286fa6", "#000001", "#fffffe"  # cells from clear to this blue, and the numbers on them
PALE = 0.925  # up to this much of the blue, dark numbers are read better than white ones
VARIABLES = {
    INK: "ink", MUTED: "muted", RULE: "rule", EDGE: "edge", CARD: "card", ON_PALE: "ink-on-pale",
    **{colour: f"series-{number}" for number, colour in enumerate(PALETTE)},
}  # fmt: skip
STYLE: dict[str, Any] = {
    "svg.fonttype": "none", "text.parse_math": False, "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5, "text.color": INK, "axes.labelcolor": MUTED, "xtick.color": MUTED, "ytick.color": MUTED,
    "xtick.major.size": 0, "ytick.major.size": 0, "xtick.minor.size": 0, "axes.edgecolor": EDGE,
    "axes.linewidth": 0.8, "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False,
    "axes.grid": True, "grid.color": RULE, "grid.linewidth": 0.8, "axes.axisbelow": True,
    "axes.titlelocation": "left", "axes.titlesize": 10.5, "legend.frameon": False, "lines.linewidth": 1.9,
    "lines.solid_capstyle": "round", "axes.xmargin": 0.02, "figure.dpi": 72,
}  # fmt: skip
DOT = 7  # radius, in points, within which a dot's value shows


@dataclass(frozen=True)
class Value:
    """What the page tells of the dot at (x, y) of some axes, or of the cell of that width and height around it."""

    axes: Axes
    x: float
    y: float
    text: str
    cell: tuple[float, float] | None = None


def colour(index: int) -> str:
    """The colour of the group at `index`, the same in every figure and on the page."""
    return PALETTE[index % len(PALETTE)]


def variable(index: int) -> str:
    """The same as a value of CSS that follows the screen."""
    return f"var(--{VARIABLES[colour(index)]})"


def inlined(svg: str, figure: Figure, values: Iterable[Value]) -> str:
    """A figure that Matplotlib saved as an element of the page: its colours are the page's, its values show under a pointer.

    Matplotlib escapes whatever text is drawn, so that no name in a figure is markup.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<(metadata|style).*?</\1>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # ids that other figures have, too, and nothing refers to
    svg = re.sub(r"#[0-9a-f]{6}\b", lambda found: _themed(found[0]), svg)
    svg = re.sub(r"^<svg [^>]*?viewBox=\"([^\"]*)\"[^>]*>", r'<svg viewBox="\1">', svg, flags=re.DOTALL)
    svg = re.sub(r' transform="rotate\(-0 [^)]*\)"| font-family: [^;"]*;', "", svg)  # the page sets the font
    svg = re.sub(r">\s+<", "><", re.sub(r"<g/>\s*", "", svg))
    marks = "".join(_mark(value, figure) for value in values)
    return svg.replace("</svg>", f'<g class="values">{marks}</g></svg>')


def _themed(colour: str) -> str:
    return f"var(--{VARIABLES[colour]})" if colour in VARIABLES else colour


def _mark(value: Value, figure: Figure) -> str:
    """An invisible shape with the text as its title, in the coordinates of the picture: points from the upper left."""
    place, height = value.axes.transData.transform, figure.bbox.height
    title = f"<title>{html.escape(value.text)}</title>"
    if value.cell is None:
        x, y = place((value.x, value.y))
        return f'<circle cx="{x:.1f}" cy="{height - y:.1f}" r="{DOT}">{title}</circle>\n'
    corners = [place((value.x + sign * value.cell[0] / 2, value.y + sign * value.cell[1] / 2)) for sign in (-1, 1)]
    (left, right), (one, other) = (sorted(side) for side in zip(*corners, strict=True))
    return (
        f'<rect x="{left:.1f}" y="{height - other:.1f}" width="{right - left:.1f}" height="{other - one:.1f}">'
        f"{title}</rect>\n"
    )
