"""A training run as a picture: loss and accuracy over the epochs, as SVG that stands alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from convolve.view.svg import BLUE, GRID, INK, ORANGE, PALE, document, element, line, text

Epochs = Sequence[Mapping[str, float]]
"""What each epoch reached; the names used are loss, accuracy, validation_loss and validation_accuracy."""

WIDTH, HEIGHT = 900, 400
LEFT, GAP, TOP, BOTTOM = 70, 90, 90, 60
PANEL_WIDTH = (WIDTH - LEFT - GAP - 30) // 2
PANEL_HEIGHT = HEIGHT - TOP - BOTTOM
MOST_DOTS = 40
"""Epochs up to which each has a dot on its curve."""


@dataclass(frozen=True)
class Curve:
    """A series of a panel: colours and strokes that differ."""

    key: str
    label: str
    colour: str
    dashes: str


@dataclass(frozen=True)
class Panel:
    """A pair of axes: what it shows, and how its values are written."""

    title: str
    curves: tuple[Curve, ...]
    scale: float
    unit: str
    top: float | None
    """The end of the scale, where there is a natural one."""


def _panel(key: str, title: str, scale: float = 1.0, unit: str = "", top: float | None = None) -> Panel:
    training = Curve(key, "training", BLUE, "none")
    validation = Curve(f"validation_{key}", "validation", ORANGE, "7 4")
    return Panel(title, (training, validation), scale, unit, top)


LOSS = _panel("loss", "Loss")
MERITS = (
    _panel("iou", "Intersection over union, %", 100.0, "%", 100.0),
    _panel("f1_micro", "F1, %", 100.0, "%", 100.0),
    _panel("accuracy", "Accuracy, %", 100.0, "%", 100.0),
    _panel("mae", "Mean absolute error"),
)
"""What is shown beside the loss: the first that there is."""


def _panels(epochs: Epochs) -> tuple[Panel, Panel]:
    known = {name for epoch in epochs for name in epoch}
    found = (panel for panel in MERITS if known.intersection(curve.key for curve in panel.curves))
    return LOSS, next(found, MERITS[2])


def curves(epochs: Epochs, title: str) -> str:
    """Loss and accuracy over the epochs, for training and validation images, as an SVG document.

    In place of the accuracy stands what else a task is measured by.

    A value that is missing or not finite is left out. The picture says in words, too, where the curves end.

    >>> picture = curves([{"loss": 0.5, "accuracy": 0.8}, {"loss": 0.25, "accuracy": 0.9}], "dots & crosses")
    >>> picture.startswith("<svg") and "dots &amp; crosses" in picture
    True
    """
    parts: list[str] = [text(LEFT, 36, title, size=18, weight="bold")]
    for number, panel in enumerate(_panels(epochs)):
        parts.append(_drawn(panel, epochs, LEFT + number * (PANEL_WIDTH + GAP)))
    return document(WIDTH, HEIGHT, title, _in_words(epochs), parts)


def _drawn(panel: Panel, epochs: Epochs, left: float) -> str:
    """A panel with its axes, its curves and their legend."""
    found = {curve: _points(curve, epochs, panel.scale) for curve in panel.curves}
    values = [v for points in found.values() for _, v in points]
    low, high = _range(values, panel.top)
    heights = ticks(low, high)
    low, high = min(low, heights[0]), panel.top or max(high, heights[-1])
    last = max(1, len(epochs))
    first, span = (1, last - 1) if last > 1 else (0.5, 1)

    def x(epoch: float) -> float:
        return left + PANEL_WIDTH * (epoch - first) / span

    def y(value: float) -> float:
        return TOP + PANEL_HEIGHT * (1 - (value - low) / (high - low))

    parts = [text(left, TOP - 22, panel.title, size=14, weight="bold")]
    for value in heights:
        at = y(value)
        parts.append(line(left, at, left + PANEL_WIDTH, at, GRID))
        parts.append(text(left - 10, at + 4, f"{value:g}", anchor="end", colour=PALE))
    for epoch in sorted({max(1, round(t)) for t in ticks(1, max(2, last)) if t <= last}):
        parts.append(text(x(epoch), TOP + PANEL_HEIGHT + 20, str(epoch), anchor="middle", colour=PALE))
    parts.append(line(left, TOP + PANEL_HEIGHT, left + PANEL_WIDTH, TOP + PANEL_HEIGHT, INK))
    middle = left + PANEL_WIDTH / 2
    parts.append(text(middle, TOP + PANEL_HEIGHT + 42, "epoch", anchor="middle", colour=PALE))
    shown = [(curve, points) for curve, points in found.items() if points]
    for number, (curve, points) in enumerate(shown):
        parts.append(_curve(curve, [(x(e), y(v)) for e, v in points], dots=len(epochs) <= MOST_DOTS))
        start = left + PANEL_WIDTH - 115 * (len(shown) - number) + 20
        parts.append(line(start, TOP - 27, start + 24, TOP - 27, curve.colour, 2.5, curve.dashes))
        parts.append(text(start + 30, TOP - 22, curve.label))
    return "\n".join(parts)


def _points(curve: Curve, epochs: Epochs, scale: float) -> list[tuple[int, float]]:
    values = [(number, epoch.get(curve.key, math.nan)) for number, epoch in enumerate(epochs, 1)]
    return [(number, value * scale) for number, value in values if math.isfinite(value)]


def _range(values: Sequence[float], top: float | None) -> tuple[float, float]:
    """What a scale must hold: from zero, or towards a natural end from below the lowest value."""
    if not values:
        return 0.0, top or 1.0
    if top is None:
        return 0.0, max(values) or 1.0
    return max(0.0, min(values) - 0.1 * (top - min(values)) - 0.1), top


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from at most `low` upwards, at most `high`, with steps of 1, 2 or 5 times a power of ten.

    >>> ticks(0, 0.43)
    [0.0, 0.1, 0.2, 0.3, 0.4]
    """
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9))
    first = math.floor(low / step + 1e-9)
    numbers = range(first, math.floor(high / step + 1e-9) + 1)
    return [float(f"{n * step:.12g}") for n in numbers]


def _curve(curve: Curve, points: Sequence[tuple[float, float]], dots: bool) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    stroke = {"fill": "none", "stroke": curve.colour, "stroke-width": 2.5, "stroke-linejoin": "round"}
    drawn = element("polyline", {"points": path, **stroke, "stroke-dasharray": curve.dashes})
    if not dots:
        return drawn
    marks = (element("circle", {"cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": 3.5, "fill": curve.colour}) for x, y in points)
    return drawn + "".join(marks)


def _in_words(epochs: Epochs) -> str:
    """The text alternative: where each curve begins and ends."""
    words = []
    for panel in _panels(epochs):
        for curve in panel.curves:
            points = _points(curve, epochs, panel.scale)
            if points:
                (_, begin), (_, end) = points[0], points[-1]
                name = f"{curve.label} {curve.key.removeprefix('validation_')}"
                words.append(f"{name} from {begin:.4g}{panel.unit} to {end:.4g}{panel.unit}")
    return f"Curves over {len(epochs)} epochs: {'; '.join(words) or 'nothing yet'}."
