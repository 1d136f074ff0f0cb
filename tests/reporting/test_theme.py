"""Colours that can be read, dots that do not cover each other."""

import re
from pathlib import Path

import numpy as np

from stages.reporting import charts, page, theme
from stages.reporting.theme import HEAT, PALE


def rgb(colour):
    digits = colour.removeprefix("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    return np.array([int(digits[at : at + 2], 16) for at in (0, 2, 4)])


def contrast(one, other):
    def light(colour):
        linear = np.where(colour / 255 <= 0.04045, colour / 255 / 12.92, ((colour / 255 + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722]) + 0.05

    high, low = max(light(one), light(other)), min(light(one), light(other))
    return high / low


def variables():
    """Of the light page and of the dark one."""
    css = (Path(page.__file__).with_name("page.css")).read_text()
    light, dark = css.split("@media (prefers-color-scheme: dark)")[:2]
    return [dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]+)", part.split("* {")[0])) for part in (light, dark)]


def test_numbers_on_cells_are_read_on_light_and_dark_pages():
    for colours, blank in zip(variables(), ("#ffffff", "#171c23"), strict=True):
        card = rgb(blank)
        for part in np.linspace(0, 1, 101):
            ground = part * rgb(HEAT) + (1 - part) * card
            ink = rgb(colours["ink-on-pale"]) if part <= PALE else rgb("#ffffff")
            assert contrast(ink, ground) >= 4.5, (blank, part)


def test_the_page_has_every_colour_of_a_figure_light_and_dark():
    for colours in variables():
        assert set(theme.VARIABLES.values()) <= set(colours)


def test_dots_that_would_cover_each_other_stand_side_by_side():
    values = np.array([[50.0, 50.0, np.nan], [50.1, 90.0, 10.0], [50.2, 50.0, 10.0]])
    offsets = charts.dodged(values, near=1.0, room=0.8)
    assert offsets[:, 0].tolist() == [-0.22, 0, 0.22]
    assert offsets[:, 1].tolist() == [-0.11, 0, 0.11]  # the second, far above, stays
    assert offsets[1:, 2].tolist() == [-0.11, 0.11]
