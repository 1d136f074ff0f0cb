"""Counts, bytes and seconds for people. Standard library only, since the terminal imports it first."""

from __future__ import annotations


def count(number: float) -> str:
    """A number of floats: 912, 1.02k, 90.0k, 7.17M."""
    return _scaled(number, 1000, ("", "k", "M", "G", "T"))


def size(number: float) -> str:
    """A number of bytes: 912 B, 1.02 kB, 90.0 MB (powers of 1000)."""
    return _scaled(number, 1000, (" B", " kB", " MB", " GB", " TB"))


def memory(number: float) -> str:
    """A number of bytes of memory: 1.50 GiB (powers of 1024)."""
    return _scaled(number, 1024, (" B", " KiB", " MiB", " GiB", " TiB"))


def seconds(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.3f}"


def duration(value: float) -> str:
    """A number of seconds: 45 s, 12 min, 3.4 h, 2.1 d."""
    for unit, length, digits in (("d", 86_400, 1), ("h", 3600, 1), ("min", 60, 0)):
        if value >= 2 * length:
            return f"{value / length:.{digits}f} {unit}"
    return f"{value:.0f} s"


def _scaled(number: float, base: int, units: tuple[str, ...]) -> str:
    """About three significant digits, in the first unit that makes the number smaller than `base`."""
    power = 0
    while round(number) >= base and power < len(units) - 1:
        number, power = number / base, power + 1
    exact = power == 0 and number == round(number)
    digits = 0 if exact or number >= 100 else 1 if number >= 10 else 2
    return f"{number:.{digits}f}{units[power]}"
