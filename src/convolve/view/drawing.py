"""A net drawn for a document: an SVG that stands alone, with layers as boxes and branches beside each other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from convolve.network import Network
from convolve.view.layout import Edge, Fold, Layout, Place, layout
from convolve.view.svg import BLUE, GREEN, INK, ORANGE, PALE, PINK, Markup, document, element, text
from convolve.view.text import amount, by

BOX_WIDTH, BOX_HEIGHT, GAP = 310, 46, 24
LANE_WIDTH, MARGIN, FOLD_MARGIN, HEAD = 28, 24, 44, 64
WIDE, NARROW = 8.2, 6.3
"""Width of a letter of the first line, bold and not, about."""
EDGE = "#8a8a8a"
TINTS = {BLUE: "#e6f0f7", GREEN: "#e5f4ef", ORANGE: "#fbece2", PINK: "#f8eef3", EDGE: "#f5f5f5"}
CLASSES = (
    (BLUE, ("Conv",)),
    (GREEN, ("Pool",)),
    (ORANGE, ("Dense", "Gemm", "MatMul")),
    (PINK, ("Residual", "Parallel", "Add", "Concat", "Multiply", "Mul", "Sum")),
)
"""What layers are alike: their kinds hold such a word."""


def drawing(network: Network, title: str, fold: bool | None = None) -> str:
    """A net as an SVG document: a box a layer with its norm and activation, folded where blocks come again.

    Args:
        title: stands above.
        fold: blocks that come again, or not; by default where the net is long.

    >>> from convolve import Conv, Model, ReLU
    >>> picture = drawing(Model(Conv(8, 3), input_shape=(28, 28, 1)).network, "a < b")
    >>> picture.startswith("<svg") and "a &lt; b" in picture and "28 x 28 x 8" in picture
    True
    """
    found = layout(network, fold, together=True)
    grid = _Grid.of(found)
    by_name = {place.layer: place for place in found.places}
    count = sum(math.prod(spec.shape) for spec in network.specs.values())
    below = f"{count:,} parameters. On the right of a box: its output's shape, its parameters."
    parts = [text(MARGIN, 32, title, size=17, weight="bold"), text(MARGIN, 52, below, 12, colour=PALE)]
    parts += [_fold(fold, by_name, grid) for fold in found.folds]
    parts += [_edge(edge, by_name, grid) for edge in found.edges]
    parts += [_box(place, grid) for place in found.places]
    return document(grid.width, grid.height, title, _in_words(found), parts)


@dataclass(frozen=True)
class _Grid:
    """Where columns and rows lie. Columns that only edges pass through are narrow."""

    lefts: tuple[float, ...]
    widths: tuple[float, ...]
    rows: int

    @classmethod
    def of(cls, found: Layout) -> _Grid:
        boxed = {place.column for place in found.places}
        widths = [float(BOX_WIDTH if column in boxed else 0) + LANE_WIDTH for column in range(found.columns)]
        start = MARGIN + (FOLD_MARGIN if found.folds else 0)
        return cls(tuple(accumulate(widths[:-1], initial=start)), tuple(widths), found.rows)

    @property
    def width(self) -> float:
        return max(420.0, self.lefts[-1] + self.widths[-1] + MARGIN)

    @property
    def height(self) -> float:
        return HEAD + self.rows * (BOX_HEIGHT + GAP) - GAP + MARGIN

    def top(self, row: int) -> float:
        return HEAD + row * (BOX_HEIGHT + GAP)

    def middle(self, column: int) -> float:
        """The middle of a column's boxes, or of the lane it is."""
        return self.lefts[column] + (BOX_WIDTH / 2 if self.widths[column] > LANE_WIDTH else LANE_WIDTH / 2)


def _colour(kind: str) -> str:
    return next((colour for colour, words in CLASSES if any(word in kind for word in words)), EDGE)


def _box(place: Place, grid: _Grid) -> str:
    left, top = grid.lefts[place.column], grid.top(place.row)
    colour = _colour(place.kind)
    shape = {"x": f"{left:.1f}", "y": f"{top:.1f}", "width": BOX_WIDTH, "height": BOX_HEIGHT, "rx": 6}
    size = by(place.output_shape)
    room = BOX_WIDTH - 36 - WIDE * (len(place.kind) + 1) - NARROW * len(size)
    parts = [
        element("title", {}, _told(place)),
        element("rect", shape | {"fill": TINTS[colour], "stroke": colour, "stroke-width": 1.2}),
        text(left + 12, top + 19, place.kind, 13, weight="600"),
        text(left + 12 + WIDE * (len(place.kind) + 1), top + 19, _cut(place.detail, room), 12),
        text(left + BOX_WIDTH - 12, top + 19, size, 12, "end"),
        text(left + 12, top + 36, _cut(_second(place), BOX_WIDTH - 90), 11, colour=PALE),
        text(left + BOX_WIDTH - 12, top + 36, amount(place.own_parameters), 11, "end", PALE),
    ]
    return element("g", {}, Markup("".join(parts)))


def _second(place: Place) -> str:
    """The layer's name without its block's, and what follows it."""
    return " + ".join([place.layer.rpartition(".")[2], *place.followers])


def _cut(words: str, room: float) -> str:
    most = max(0, int(room / NARROW))
    return words if len(words) <= most else f"{words[: max(0, most - 1)]}…"


def _edge(edge: Edge, places: dict[str, Place], grid: _Grid) -> str:
    """From the lower side of a box to the upper side of another, straight or by a lane."""
    source, target = places[edge.source], places[edge.target]
    x0, y0 = grid.middle(source.column), grid.top(source.row) + BOX_HEIGHT
    x1, y1 = grid.middle(target.column), grid.top(target.row)
    if edge.lane is None or edge.lane == source.column == target.column:
        turns = [(x0, (y0 + y1) / 2), (x1, (y0 + y1) / 2)] if x0 != x1 else []
    else:
        lane = grid.middle(edge.lane)
        if grid.widths[edge.lane] > LANE_WIDTH and edge.lane not in (source.column, target.column):
            lane = grid.lefts[edge.lane] + LANE_WIDTH / 2
        turns = [(x0, y0 + GAP / 2), (lane, y0 + GAP / 2), (lane, y1 - GAP / 2), (x1, y1 - GAP / 2)]
    points = [(x0, y0), *turns, (x1, y1)]
    corners = [p for i, p in enumerate(points) if i == 0 or p != points[i - 1]]
    stroke = {"fill": "none", "stroke": EDGE, "stroke-width": 1.4, "stroke-linejoin": "round"}
    line = element("path", {"d": _rounded(corners), **stroke})
    tip = f"{x1:.1f},{y1:.1f} {x1 - 4:.1f},{y1 - 7:.1f} {x1 + 4:.1f},{y1 - 7:.1f}"
    return line + element("polygon", {"points": tip, "fill": EDGE})


def _rounded(points: Sequence[tuple[float, float]], radius: float = 7) -> str:
    """A path along the points, its corners rounded."""
    said = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for (ax, ay), (bx, by_), (cx, cy) in zip(points, points[1:], points[2:], strict=False):
        before, behind = _towards((bx, by_), (ax, ay), radius), _towards((bx, by_), (cx, cy), radius)
        said.append(f"L{before[0]:.1f} {before[1]:.1f}Q{bx:.1f} {by_:.1f} {behind[0]:.1f} {behind[1]:.1f}")
    return "".join([*said, f"L{points[-1][0]:.1f} {points[-1][1]:.1f}"])


def _towards(start: tuple[float, float], end: tuple[float, float], most: float) -> tuple[float, float]:
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = max(abs(dx), abs(dy), 1e-9)
    step = min(most, length / 2) / length
    return start[0] + dx * step, start[1] + dy * step


def _fold(fold: Fold, places: dict[str, Place], grid: _Grid) -> str:
    """A frame around what comes several times, and how often."""
    shown = [places[name] for name in fold.shown if name in places]
    rows, columns = [place.row for place in shown], [place.column for place in shown]
    left = grid.lefts[min(columns)] - 10
    right = grid.lefts[max(columns)] + BOX_WIDTH + 10
    top, bottom = grid.top(min(rows)) - 8, grid.top(max(rows)) + BOX_HEIGHT + 8
    frame = {"x": f"{left:.1f}", "y": f"{top:.1f}", "width": f"{right - left:.1f}", "height": f"{bottom - top:.1f}"}
    dashed = {"rx": 10, "fill": "none", "stroke": EDGE, "stroke-dasharray": "5 4"}
    times = text(left - 8, (top + bottom) / 2 + 6, f"{fold.times} x", 16, "end", INK, "600")
    return element("rect", frame | dashed) + times


def _told(place: Place) -> str:
    if place.summary is None:
        return f"input, {by(place.output_shape)}"
    counts = f", {place.own_parameters:,} parameters" if place.own_parameters else ""
    behind = f", then {', '.join(place.followers)}" if place.followers else ""
    detail = f" {place.detail}" if place.detail else ""
    return f"{place.layer}: {place.kind}{detail}, {by(place.output_shape)}{counts}{behind}"


def _in_words(found: Layout) -> str:
    """The text alternative: what reads what."""
    return ". ".join(_sentences(found)) + "."


def _sentences(found: Layout) -> Iterator[str]:
    reads: dict[str, list[str]] = {}
    for edge in found.edges:
        reads.setdefault(edge.target, []).append(edge.source or "the input")
    for place in found.places:
        sources = f"; reads {' and '.join(reads[place.layer])}" if place.layer in reads else ""
        yield f"{_told(place)}{sources}"
    for fold in found.folds:
        yield f"{fold.shown[0]} to {fold.shown[-1]} come {fold.times} times, one after the other"
