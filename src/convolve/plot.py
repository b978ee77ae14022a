"""Pictures of nets for notebooks and papers, with matplotlib: filters, maps, windows, where answers come from.

Each function draws into `ax`, or into a figure of its own, and returns the axes. Zero is white everywhere, blue is
above and orange below: colours that colour-blind eyes tell apart (Okabe and Ito, 2008).

>>> from convolve import Conv, Model, plot
>>> axes = plot.filters(Model(Conv(8, 3), input_shape=(28, 28, 1)))  # doctest: +SKIP
>>> axes.figure.savefig("filters.png")  # doctest: +SKIP
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from convolve.data.arrays import as_classes
from convolve.errors import ConvolveError, ShapeError
from convolve.model import Model, as_sample
from convolve.view import filters as views
from convolve.view.anatomy import Anatomy
from convolve.view.made import Made, Pooled, Products
from convolve.view.pixel import Traced
from convolve.view.svg import BLUE, GRID, INK, ORANGE, PALE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

__all__ = ["activations", "confusion", "filters", "history", "patch", "saliency"]

MOST_TILES = 1024
"""Little pictures drawn at most."""
MOST_CLASSES = 20
"""Classes up to which a confusion matrix has numbers."""
LINE = "#c8c8c8"


def filters(
    model: Model, layer: str | None = None, order: str = "index", channel: int | None = None, ax: Axes | None = None
) -> Axes:
    """A layer's filters as little pictures, dead ones crossed out.

    Those of one channel are a mosaic; of three channels, over pictures, they are in colour (grey is zero). Of others,
    each row is a filter and each column a channel, unless one channel is chosen. Filters over volumes show their slices
    side by side.

    Args:
        layer: by default the first that has filters.
        order: "index", "strength" or "similarity".
        channel: of the input, to show that one alone.

    Raises:
        ConvolveError: there is no such layer or order; the layer has no filters; matplotlib is missing.
        ShapeError: there is no such channel.
    """
    anatomy = Anatomy(model.network)
    named = views.with_filters(anatomy)
    if layer is None and not named:
        raise ConvolveError("no layer of this net has filters")
    found = views.filters(model.network, layer if layer is not None else named[0], anatomy)
    numbers = found.order(order)
    weights, dead = found.weights[numbers], found.dead[numbers]
    count, *kernel, channels = weights.shape
    if channel is not None:
        if not 0 <= channel < channels:
            raise ShapeError(f"{found.layer}: a channel is from 0 to {channels - 1}. Received: channel={channel}")
        weights = weights[..., channel : channel + 1]
    ax = _axes(ax, (6.4, 4.8))
    title = f"{found.layer}: {count} filters{_sizes(kernel)}" + (f", by {order}" if order != "index" else "")
    if channel is not None:
        title += f", channel {channel}"
    if channels == 3 and channel is None and len(kernel) == 2:
        scale = float(np.abs(weights).max()) or 1.0
        _mosaic(ax, [w / (2 * scale) + 0.5 for w in weights], title, dead, None)
        return ax
    if weights.shape[-1] == 1:
        _mosaic(ax, [_flat(w[..., 0]) for w in weights], title, dead, found.strength.max())
        return ax
    side = math.isqrt(MOST_TILES)
    rows, columns = min(count, side), min(channels, side)
    tiles = [_flat(weights[f, ..., c]) for f in range(rows) for c in range(columns)]
    _mosaic(ax, tiles, f"{title}\na row a filter, a column a channel", dead[:rows].repeat(columns), None, columns)
    return ax


def activations(model: Model, x: Any, layer: str | None = None, ax: Axes | None = None) -> Axes:
    """All maps of a layer for one sample: channels of a signal as rows, of volumes their middle slices.

    Args:
        x: one sample, (*input_shape) or a batch of one.
        layer: by default the first that has filters, behind its norm and activation.

    Raises:
        ConvolveError: there is no such layer; matplotlib is missing.
        ShapeError, DataError: x is not one sample of the model's input.
    """
    traced = _traced(model, x)
    if layer is None:
        named = views.with_filters(traced.anatomy)
        layer = traced.anatomy.heard(named[0]) if named else next(iter(traced.anatomy.rows))
    traced.anatomy.row(layer)
    maps = traced.results[layer][0]
    ax = _axes(ax, (6.4, 4.8))
    title = f"{layer}: {_by(maps.shape)}"
    if maps.ndim <= 2:
        _image(ax, maps.T if maps.ndim == 2 else maps[None], title, aspect="auto")
        ax.set_xlabel("position" if maps.ndim == 2 else "unit")
        ax.set_ylabel("channel" if maps.ndim == 2 else "")
        if maps.ndim == 1:
            ax.set_yticks([])
        return ax
    tiles = [_middle(maps[..., c]) for c in range(min(maps.shape[-1], MOST_TILES))]
    _mosaic(ax, tiles, title, np.zeros(len(tiles), bool), None)
    return ax


def patch(
    model: Model, x: Any, layer: str, position: Sequence[int], channel: int | None = None, ax: Axes | None = None
) -> Axes:
    """The sliding window at one value of a layer: what it reads, times the filter, and what comes out.

    Args:
        x: one sample, (*input_shape) or a batch of one.
        layer: a convolution or a pool, of any rank; of volumes the middle slice of the window is shown. Of a
            fully-connected layer, its largest contributions.
        position: (*spatial, channel) in the layer.
        channel: of what is read; by default the one that contributes most.

    Raises:
        ConvolveError: there is no such layer, or it slides no window; matplotlib is missing.
        ShapeError: there is no such position or channel.
    """
    traced = _traced(model, x)
    pixel = traced.pixel(layer, position)
    made = pixel.made
    if not isinstance(made, (Products, Pooled)):
        raise ConvolveError(f"{layer}: slides no window; it is {made.how}. Choose a convolution, pool or dense layer")
    then = "".join(f",  {step.kind}: {step.value:.4g}" for step in pixel.after)
    title = f"{layer} {list(pixel.position)} = {pixel.value:.4g}{then}"
    if isinstance(made, Products) and not made.places.shape[-1]:
        return _contributions(_axes(ax, (6.4, 4.0)), made, title)
    ax = _axes(ax, (9.6, 3.6))
    _window(ax, traced, made, channel, title)
    return ax


def history(found: Any, metric: str = "loss", ax: Axes | None = None) -> Axes:
    """A metric over the epochs, for training and validation.

    Args:
        found: what `Model.fit` returned, or a dict of metrics an epoch.
        metric: "loss", "accuracy" or another that was measured.

    Raises:
        ConvolveError: it was not measured; matplotlib is missing.
    """
    epochs: Sequence[Mapping[str, float]] = getattr(found, "epochs", found)
    names = {metric: ("training", BLUE, "-"), f"validation_{metric}": ("validation", ORANGE, "--")}
    curves = {
        name: [(n, epoch[name]) for n, epoch in enumerate(epochs, 1) if math.isfinite(epoch.get(name, math.nan))]
        for name in names
    }
    if not any(curves.values()):
        known = sorted({name for epoch in epochs for name in epoch})
        raise ConvolveError(f"no epoch has a finite {metric!r}. Measured: {', '.join(known) or 'nothing'}")
    ax = _axes(ax, (6.4, 4.0))
    for name, points in curves.items():
        if points:
            label, colour, style = names[name]
            ax.plot(*zip(*points, strict=True), style, color=colour, label=label, linewidth=2, marker="o", markersize=4)
    ax.set_xlabel("epoch")
    ax.set_title(metric, loc="left")
    ax.locator_params(axis="x", integer=True)
    ax.grid(True, color=GRID, linewidth=0.8)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return ax


def confusion(model: Model, x: Any, y: Any, ax: Axes | None = None) -> Axes:
    """How often each class (a row) was taken for each (a column): counts, coloured by their share of the row.

    Args:
        x: samples (n, *input_shape).
        y: labels (n,).

    Raises:
        ShapeError, DataError: x or y does not suit the model.
        ConvolveError: the net has no classes; matplotlib is missing.
    """
    if len(model.output_shape) != 1 or model.output_shape[0] < 2:
        raise ConvolveError(f"a confusion needs a net of two classes or more. Received: output {model.output_shape}")
    made = np.asarray(model.predict(x))
    labels = as_classes(y, made.shape)
    classes = made.shape[-1]
    counts = np.bincount(labels * classes + made.argmax(-1), minlength=classes**2).reshape(classes, classes)
    ax = _axes(ax, (6.0, 5.4))
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    ax.imshow(shares, cmap=_colours(), vmin=-1, vmax=1)
    names = list(model.classes or map(str, range(classes)))
    if classes <= MOST_CLASSES:
        ax.set_xticks(range(classes), names, rotation=90 if max(map(len, names)) > 3 else 0)
        ax.set_yticks(range(classes), names)
        for (row, column), n in np.ndenumerate(counts):
            if n:
                colour = "white" if shares[row, column] > 0.6 else INK
                ax.text(column, row, f"{n:,}", ha="center", va="center", color=colour, fontsize=8)
    ax.set_xlabel("said")
    ax.set_ylabel("is")
    ax.set_title(f"{np.trace(counts) / max(1, counts.sum()):.2%} of {counts.sum():,} right", loc="left")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def saliency(
    model: Model,
    x: Any,
    target: int | None = None,
    method: str = "grad_cam",
    ax: Axes | None = None,
    **options: Any,
) -> Axes:
    """Which part of a sample an answer comes from, drawn over it.

    Args:
        x: one sample, (*input_shape) or a batch of one; of volumes, the slice that counts most is shown.
        target: the class; by default the one the net names.
        method: "grad_cam" or "occlusion".
        options: of `convolve.view.saliency.grad_cam` (layer, averaged) or `occlusion` (size, stride, fill).

    Raises:
        ConvolveError: there is no such method; the net has no layer with positions; matplotlib is missing.
        ShapeError: there is no such class.
    """
    found = model.saliency(x, target, method, **options)
    shares, picture = found.shares, as_sample(x, model.input_shape)[0]
    if picture.shape[:-1] != shares.shape:  # an imported net that takes channels first
        picture = np.moveaxis(picture, 0, -1)
    if shares.ndim == 3:
        at = int(shares.sum((1, 2)).argmax())
        shares, picture = shares[at], picture[at]
    ax = _axes(ax, (5.0, 4.2))
    name = model.classes[found.target] if model.classes else f"class {found.target}"
    title = f"{name}: {found.method}" + (f" at {found.layer}" if found.layer else "")
    over = _marks()
    if shares.ndim == 1:
        ax.plot(picture, color=INK, linewidth=1)
        low, high = ax.get_ylim()
        edges = (-0.5, len(shares) - 0.5, low, high)
        ax.imshow(shares[None], cmap=over, aspect="auto", extent=edges, vmin=0, vmax=1, zorder=0)
        ax.set_xlabel("position")
    else:
        ax.imshow(_picture(picture), cmap="gray", vmin=0, vmax=1)
        ax.imshow(shares, cmap=over, vmin=0, vmax=1, interpolation="bilinear")
        _bare(ax)
    ax.set_title(title, loc="left")
    return ax


# what is drawn


def _traced(model: Model, x: Any) -> Traced:
    return Traced(model.network, as_sample(x, model.input_shape))


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _sizes(kernel: Sequence[int]) -> str:
    return f" {_by(kernel)}" if kernel else ""


def _flat(weights: np.ndarray) -> np.ndarray:
    """A filter (*kernel) as a picture: a signal's is one row, a volume's slices stand side by side."""
    if weights.ndim == 2:
        return weights
    if weights.ndim < 2:
        return weights.reshape(1, -1)
    gap = np.full((*weights.shape[1:-1], 1), np.nan, weights.dtype)
    parts = [_flat(part) for part in weights]
    return np.concatenate([p for part in parts for p in (part, gap)][:-1], -1) if weights.ndim == 3 else parts[0]


def _middle(array: np.ndarray) -> np.ndarray:
    """The middle slice of a volume; a picture as it is."""
    return array if array.ndim == 2 else _middle(array[len(array) // 2])


def _picture(sample: np.ndarray) -> np.ndarray:
    """A sample (height, width, channels) as matplotlib shows it: grey, or in colour where there are three channels."""
    picture = sample if sample.shape[-1] == 3 else sample.mean(-1)
    low, high = float(picture.min()), float(picture.max())
    if low >= 0 and high <= 255:
        return np.asarray(picture / (255 if high > 1 else 1))
    return np.asarray((picture - low) / ((high - low) or 1))


# drawing


def _axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot
    except ModuleNotFoundError:
        raise ConvolveError("convolve.plot needs matplotlib: pip install 'convolve[plot]'") from None
    return pyplot.figure(figsize=size, layout="constrained").add_subplot()


def _colours() -> Colormap:
    """Orange, white, blue."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("convolve", ["#7f3000", ORANGE, "#ffffff", BLUE, "#003a5c"])


def _marks() -> Colormap:
    """Orange that is laid over pictures: nothing at 0."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    colour = to_rgb(ORANGE)
    return LinearSegmentedColormap.from_list("marks", [(*colour, 0.0), (*colour, 0.75)])


def _bare(ax: Axes) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)


def _image(ax: Axes, values: np.ndarray, title: str, **options: Any) -> None:
    """Numbers as colours, zero white, with a scale beside."""
    most = float(np.nanmax(np.abs(values))) or 1.0
    image = ax.imshow(values, cmap=_colours(), vmin=-most, vmax=most, interpolation="nearest", **options)
    bar = ax.get_figure(root=True).colorbar(image, ax=ax, shrink=0.8, pad=0.02)  # type: ignore[union-attr]
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, color=PALE)
    if np.nanmin(values) >= 0:
        bar.ax.set_ylim(0, most)
    ax.set_title(title, loc="left")


def _mosaic(
    ax: Axes,
    tiles: Sequence[np.ndarray],
    title: str,
    crossed: np.ndarray,
    most: float | None,
    columns: int | None = None,
) -> None:
    """Little pictures in rows, a gap between them; those of `crossed` are struck through."""
    tiles = tiles[:MOST_TILES]
    height, width = tiles[0].shape[:2]
    columns = columns or _columns(len(tiles), height / width)
    rows = -(-len(tiles) // columns)
    gap = 1 if max(height, width) < 24 else 2
    whole = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, *tiles[0].shape[2:]), np.nan)
    places = [divmod(n, columns) for n in range(len(tiles))]
    for (row, column), tile in zip(places, tiles, strict=True):
        top, left = row * (height + gap), column * (width + gap)
        whole[top : top + height, left : left + width] = tile
    if whole.ndim == 3:
        ax.imshow(np.nan_to_num(whole, nan=1.0), interpolation="nearest")
        ax.set_title(title, loc="left")
    else:
        _image(ax, whole, title)
    frame = {"fill": False, "edgecolor": LINE, "linewidth": 0.6, "clip_on": False}
    for (row, column), dead in zip(places, crossed[: len(tiles)], strict=True):
        top, left = row * (height + gap) - 0.5, column * (width + gap) - 0.5
        ax.add_patch(_rectangle((left, top), width, height, **frame))
        if dead:
            ax.plot([left, left + width], [top, top + height], color=PALE, linewidth=1)
            ax.plot([left, left + width], [top + height, top], color=PALE, linewidth=1)
    ax.set_anchor("W")  # a title longer than the picture is wide has room on its right
    _bare(ax)


def _columns(count: int, tall: float) -> int:
    """In how many columns to draw little pictures, a little wider than high, with few places empty.

    >>> _columns(16, 1.0), _columns(6, 1.0), _columns(32, 1.0), _columns(7, 1.0)
    (4, 3, 8, 4)
    """
    ideal = max(1.0, math.sqrt(1.4 * count * tall))
    least = math.ceil(0.75 * ideal)
    near = range(least, max(least, int(1.35 * ideal)) + 1)
    return min(near, key=lambda columns: (-count % columns, abs(columns - ideal)))


def _rectangle(corner: tuple[float, float], width: float, height: float, **style: Any) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(corner, width, height, **style)


def _contributions(ax: Axes, made: Products, title: str, count: int = 20) -> Axes:
    largest = made.largest(count)[::-1]
    products = [product for *_, product in largest]
    ax.barh([str(at[0]) for at, *_ in largest], products, color=[BLUE if p >= 0 else ORANGE for p in products])
    rest = made.total - made.bias - sum(products)
    ax.set_title(title, loc="left")
    ax.set_xlabel(f"value x weight; the others add {rest:.4g}, the bias {made.bias:.4g}")
    ax.set_ylabel("feature")
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0, labelsize=8)
    return ax


def _window(ax: Axes, traced: Traced, made: Products | Pooled, channel: int | None, title: str) -> None:
    """The map that is read with the window on it; beside it patch, filter and products as numbers."""
    chosen = _channel(made, channel)
    source = _source(traced, made)
    grids = _grids(made, chosen)
    inside = _two(made.inside)
    rows, columns = inside.shape
    # Beside each other; rows of a signal below each other.
    step = (0.0, 2.2) if rows == 1 else (columns + 1.0, 0.0)
    wide, tall = columns + step[0] * (len(grids) - 1), rows + step[1] * (len(grids) - 1)
    size = max(tall, 4.0)
    left, top = size + 1.2, (size - tall) / 2
    ax.set_aspect("equal")
    if source is not None:
        _map_with_window(ax, source[..., chosen], made.places, size)
    font = min(8.0, ax.get_figure(root=True).get_figwidth() / (left + wide) * 22)  # type: ignore[union-attr]
    for number, (name, grid) in enumerate(grids):
        x, y = left + number * step[0], top + number * step[1]
        _numbers(ax, grid, inside, (x, y), name, _winner(made), font)
        if number:
            sign = "x" if number == 1 else "="
            ax.text(x - 0.5, y + rows / 2, sign, ha="center", va="center", fontsize=13)
    ax.text(left, top + tall + 0.6, _sum(made, chosen), va="top", fontsize=9, color=INK)
    ax.set_xlim(-0.2, left + wide + 0.2)
    ax.set_ylim(max(size, top + tall + 1.6), min(0, top - 1.0))
    ax.set_axis_off()
    ax.set_title(title, loc="left")


def _channel(made: Products | Pooled, channel: int | None) -> int:
    """The channel of what is read: the one asked for, or that of the largest sum."""
    if isinstance(made, Pooled):
        if channel not in (None, made.channel):
            raise ShapeError(f"this pool reads channel {made.channel} alone. Received: channel={channel}")
        return made.channel
    first, count = made.first_channel, made.patch.shape[-1]
    if channel is None:
        return first + int(np.abs(made.by_channel).argmax())
    if not first <= channel < first + count:
        raise ShapeError(f"the filter reads channels {first} to {first + count - 1}. Received: channel={channel}")
    return channel


def _source(traced: Traced, made: Made) -> np.ndarray | None:
    """What is read, (*spatial, channels), where it is one layer's result as it is."""
    if len(made.sources) != 1:
        return None
    found = traced.given[made.sources[0]] if made.sources[0] in traced.given else traced.results[made.sources[0]]
    rank = made.places.shape[-1] if isinstance(made, (Products, Pooled)) else 0
    if not made.sources[0] and traced.anatomy.channels_first:
        found = np.moveaxis(found, 1, -1)
    return found[0] if found.ndim == rank + 2 else None


def _grids(made: Products | Pooled, channel: int) -> list[tuple[str, np.ndarray]]:
    if isinstance(made, Pooled):
        return [(f"window, channel {channel}", _two(made.patch))]
    at = channel - made.first_channel
    parts = (("patch", made.patch), ("filter", made.weights), ("products", made.products))
    return [(f"{name}, channel {channel}" if name == "patch" else name, _two(a[..., at])) for name, a in parts]


def _two(array: np.ndarray) -> np.ndarray:
    """A window (*kernel) as rows and columns: a signal's is one row, of a volume's the middle slice."""
    return array.reshape(1, -1) if array.ndim == 1 else _middle(array)


def _winner(made: Products | Pooled) -> tuple[int, int] | None:
    if not isinstance(made, Pooled) or made.winner is None:
        return None
    *outer, row, column = (0, *made.winner)
    middles = [n // 2 for n in made.patch.shape[:-2]]
    return (row, column) if outer[1:] == middles or made.patch.ndim < 3 else None


def _sum(made: Products | Pooled, channel: int) -> str:
    if isinstance(made, Pooled):
        words = {"max": "the largest", "avg": f"the sum / {made.divisor:g}", "sum": "the sum"}
        return f"{words[made.kind]} = {made.total:.4g}"
    sums, at = made.by_channel, channel - made.first_channel
    others = f" + {len(sums) - 1} other channels {sums.sum() - sums[at]:.4g}" if len(sums) > 1 else ""
    return f"sum {sums[at]:.4g}{others} + bias {made.bias:.4g} = {made.total:.4g}"


def _map_with_window(ax: Axes, values: np.ndarray, places: np.ndarray, size: float) -> None:
    """The map scaled into a square of `size`, and the window's outline on it."""
    corners = places.reshape(-1, places.shape[-1])[:, -2:]
    shown = values.reshape(1, -1) if values.ndim == 1 else values
    if values.ndim == 1:
        corners = np.stack([np.zeros(len(corners), int), corners[:, -1]], 1)
    if values.ndim == 3:
        middle = places[len(places) // 2].reshape(-1, 3)[0, 0]
        shown = values[min(max(0, int(middle)), len(values) - 1)]
    height, width = shown.shape
    scale = size / max(height, width)
    tall = height * scale if values.ndim > 1 else size / 4
    top, step = (size - tall) / 2, (tall / height, width * scale / width)
    most = float(np.abs(shown).max()) or 1.0
    edges = (0.0, width * step[1], top + tall, top)
    ax.imshow(shown, cmap=_colours(), vmin=-most, vmax=most, extent=edges, interpolation="nearest", aspect="equal")
    ax.add_patch(_rectangle((0, top), width * step[1], tall, fill=False, edgecolor=LINE, linewidth=0.8))
    low, high = corners.min(0), corners.max(0) + 1
    start = (low[1] * step[1], top + low[0] * step[0])
    spans = ((high[1] - low[1]) * step[1], (high[0] - low[0]) * step[0])
    ax.add_patch(_rectangle(start, *spans, fill=False, edgecolor=ORANGE, linewidth=2, clip_on=False))


def _numbers(
    ax: Axes,
    grid: np.ndarray,
    inside: np.ndarray,
    corner: tuple[float, float],
    name: str,
    winner: tuple[int, int] | None,
    font: float,
) -> None:
    """A grid of numbers on their colours; what lies in padding is hatched."""
    most, colours = float(np.abs(grid).max()) or 1.0, _colours()
    left, top = corner
    ax.text(left, top - 0.25, name, fontsize=9, color=PALE)
    for (row, column), number in np.ndenumerate(grid):
        known = inside[row, column]
        share = float(number) / most
        face = colours(0.5 + 0.5 * share) if known else "#f2f2f2"
        style = {"facecolor": face, "edgecolor": LINE, "linewidth": 0.6, "hatch": None if known else "////"}
        ax.add_patch(_rectangle((left + column, top + row), 1, 1, **style))
        ink = "white" if known and abs(share) > 0.55 else INK
        words = _short(float(number)) if known else "0"
        place = (left + column + 0.5, top + row + 0.5)
        ax.text(*place, words, ha="center", va="center", fontsize=font, color=ink)
    if winner is not None:
        ax.add_patch(_rectangle((left + winner[1], top + winner[0]), 1, 1, fill=False, edgecolor=INK, linewidth=2.2))


def _short(number: float) -> str:
    """Two digits, or all before the point; no minus before 0.

    >>> _short(-0.0), _short(0.1234), _short(-253.4)
    ('0', '0.12', '-253')
    """
    return f"{number:.0f}" if abs(number) >= 100 else f"{number + 0.0:.2g}"
