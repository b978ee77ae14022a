"""A range test as a picture: the loss over the learning rate, for a document and for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from convolve.view.curves import ticks
from convolve.view.svg import BLUE, GRID, INK, ORANGE, PALE, document, element, line, text

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 30, 70, 60
COLUMNS, ROWS = 64, 14
HEADROOM = 1.25
"""What is shown of a loss that diverges: a bit more than the highest value before the lowest."""


def rate_curve(rates: Sequence[float], smoothed: Sequence[float], suggested: float, title: str) -> str:
    """The smoothed loss over the rate, on a logarithmic scale, as an SVG document; the suggested rate is marked."""
    top = _top(smoothed)
    first, span = math.log10(rates[0]), math.log10(rates[-1] / rates[0]) or 1.0
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(rate: float) -> float:
        return LEFT + width * (math.log10(rate) - first) / span

    def y(loss: float) -> float:
        return TOP + height * (1 - min(loss, top) / top)

    parts = [text(LEFT, 34, title, size=18, weight="bold")]
    for value in ticks(0, top):
        parts.append(line(LEFT, y(value), WIDTH - RIGHT, y(value), GRID))
        parts.append(text(LEFT - 10, y(value) + 4, f"{value:g}", anchor="end", colour=PALE))
    for power in range(math.ceil(first), math.floor(first + span) + 1):
        parts.append(text(x(10.0**power), TOP + height + 20, f"1e{power}", anchor="middle", colour=PALE))
    parts.append(line(LEFT, TOP + height, WIDTH - RIGHT, TOP + height, INK))
    parts.append(text(LEFT + width / 2, TOP + height + 42, "learning rate", anchor="middle", colour=PALE))
    points = " ".join(f"{x(r):.1f},{y(v):.1f}" for r, v in zip(rates, smoothed, strict=True))
    parts.append(element("polyline", {"points": points, "fill": "none", "stroke": BLUE, "stroke-width": 2.5}))
    if rates[0] <= suggested <= rates[-1]:
        parts.append(line(x(suggested), TOP, x(suggested), TOP + height, ORANGE, 2, "7 4"))
        parts.append(text(x(suggested) + 6, TOP + 12, f"suggested: {suggested:g}", colour=ORANGE))
    low, high = min(smoothed), max(smoothed)
    words = f"Smoothed loss over the rate, from {high:.4g} down to {low:.4g}; {suggested:g} is suggested."
    return document(WIDTH, HEIGHT, title, words, parts)


def rate_chart(rates: Sequence[float], smoothed: Sequence[float], suggested: float) -> str:
    """The same in characters, the suggested rate marked by a column.

    >>> rate_chart([0.001, 0.01, 0.1], [2.0, 1.0, 0.0], 0.01).split()[:2]
    ['2.5', '|']
    """
    top, low = _top(smoothed), min(0.0, *smoothed)
    first, span = math.log10(rates[0]), math.log10(rates[-1] / rates[0]) or 1.0
    grid = [[" "] * COLUMNS for _ in range(ROWS)]

    def column(rate: float) -> int:
        return round((COLUMNS - 1) * (math.log10(rate) - first) / span)

    if rates[0] <= suggested <= rates[-1]:
        for row in grid:
            row[column(suggested)] = "|"
    for rate, loss in zip(rates, smoothed, strict=True):
        grid[round((ROWS - 1) * (1 - (min(loss, top) - low) / (top - low)))][column(rate)] = "*"
    marks = [f"{top:.3g}", *[""] * (ROWS - 2), f"{low:.3g}"]
    wide = max(5, *map(len, marks)) - 2
    lines = [f"{mark:>{wide}} |{''.join(row)}".rstrip() for mark, row in zip(marks, grid, strict=True)]
    axis = [" "] * (COLUMNS + 4)
    for power in range(math.ceil(first - 1e-9), math.floor(first + span + 1e-9) + 1):
        mark = f"1e{power}"
        at = min(column(10.0**power), COLUMNS + 4 - len(mark))
        axis[at : at + len(mark)] = mark
    return "\n".join([*lines, f"{'':{wide}} +{'-' * COLUMNS}", f"{'':{wide}}  {''.join(axis)}".rstrip()])


def _top(smoothed: Sequence[float]) -> float:
    """The end of the scale: what diverged lies beyond it."""
    lowest = min(range(len(smoothed)), key=smoothed.__getitem__)
    return HEADROOM * max(smoothed[: lowest + 1]) or 1.0
