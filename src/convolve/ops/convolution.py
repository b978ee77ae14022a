"""Convolution (a cross-correlation, as the field calls it), the gradients of its input and of its filters.

    Y[n, r, f] = sum over taps i and channels c of  X[n, r * stride - lo + i * dilation, c] * W[f, i, c]

at any number of spatial dimensions; with none it is the fully-connected layer. With groups, filters and channels are
cut into as many equal parts, and each part of the filters sees its own part of the channels. The three are one sum over
the same triples (Y, X, W), so that one micro-kernel serves them with different tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import numpy as np

from convolve.errors import ShapeError
from convolve.graph import Op, Shape, Value, apply, register
from convolve.lowering import Group, Lowering, panel_count
from convolve.native.kernels.layout import TransposeGroups, TransposePanels
from convolve.native.target import PANEL
from convolve.ops.filter_gradient import lower_filter_gradient, lower_narrow_gradient
from convolve.ops.layout import concat, cut
from convolve.ops.pointwise import broadcast
from convolve.ops.product import Axis, narrow_of, product_of
from convolve.ops.reduce import reshape_to
from convolve.ops.resample import pad
from convolve.ops.winograd import Tiling, gradient_tiling, lower_gradient, lower_product, product_tiling
from convolve.program import Argument, At, Memory
from convolve.window import Pads, Window

LEAST_OF_GROUP = 32
"""Channels and filters of a group from which on Winograd's tiles, a call for each group, are worth a try."""


def patches(x: np.ndarray, window: Window, fill: float = 0.0) -> np.ndarray:
    """All windows of x (n, *spatial, c) as (n, *output, taps, c): the matrix that is never built, built."""
    out = window.output(x.shape[1:-1])
    padded_x = np.pad(x, ((0, 0), *window.pads, (0, 0)), constant_values=fill)
    taps = []
    for offset in window.offsets():
        slices = tuple(slice(o, o + (n - 1) * s + 1, s) for o, n, s in zip(offset, out, window.stride, strict=True))
        taps.append(padded_x[(slice(None), *slices)])
    return np.stack(taps, axis=-2)


def scatter(columns: np.ndarray, window: Window, size: tuple[int, ...]) -> np.ndarray:
    """The transpose of `patches`: add (n, *output, taps, c) back to (n, *size, c)."""
    n, c = columns.shape[0], columns.shape[-1]
    out = columns.shape[1:-2]
    whole = np.zeros((n, *(s + lo + hi for s, (lo, hi) in zip(size, window.pads, strict=True)), c), columns.dtype)
    for t, offset in enumerate(window.offsets()):
        slices = tuple(slice(o, o + (m - 1) * s + 1, s) for o, m, s in zip(offset, out, window.stride, strict=True))
        whole[(slice(None), *slices)] += columns[..., t, :]
    return whole[(slice(None), *(slice(lo, lo + s) for s, (lo, _) in zip(size, window.pads, strict=True)))]


def fitting(window: Window, x: Shape) -> Shape:
    """The output's spatial size; refuses a window that fits nowhere."""
    size = window.output(x[1:-1])
    if any(n < 1 for n in size):
        raise ShapeError(f"a window that spans {window.extent} with pads {window.pads} over an input {x}")
    return size


class Sliding(Op):
    """What the three ops share: a window, and into how many groups filters and channels are cut."""

    arity: ClassVar[int | None] = 2
    window: Window
    groups: int

    def panel_groups(self, w: Shape) -> int:
        """How many groups of filters lie in panels of their own: narrow ones share the panels."""
        return 1 if narrow(w, self.groups) else self.groups

    def _tiled(self, w: Shape) -> bool:
        """Whether groups are so wide that tiles may pay."""
        return self.groups == 1 or min(w[0] // self.groups, w[-1]) >= LEAST_OF_GROUP

    def _filters(self, x: Shape, filters: int) -> Shape:
        """The shape of the filters between channels of an input `x` and so many filters; refuses what does not fit."""
        channels = x[-1]
        if self.groups < 1 or channels % self.groups or filters % self.groups:
            raise ShapeError(f"{filters} filters over {channels} channels cannot be cut into {self.groups} groups")
        return (filters, *self.window.kernel, channels // self.groups)


def narrow(w: Shape, groups: int) -> int:
    """The width of groups that several go into a panel of 16: as many channels as filters; 0 for all others."""
    width = w[-1]
    return width if groups > 1 and w[0] == groups * width and width in (1, 2, 4, 8) else 0


def by_group(a: np.ndarray, groups: int) -> np.ndarray:
    """(..., rows, k * groups) -> (groups, rows of all, k): columns of each group apart."""
    taps, channels = a.shape[-2:]
    parts = a.reshape(-1, taps, groups, channels // groups).transpose(2, 0, 1, 3)
    return parts.reshape(groups, parts.shape[1], -1)


@register
@dataclass(frozen=True)
class Convolution(Sliding):
    """x (n, *spatial, channels), w (filters, *kernel, channels / groups) -> (n, *output, filters)."""

    name: ClassVar[str] = "convolution"
    window: Window
    groups: int = 1

    def shape(self, *inputs: Shape) -> Shape:
        x, w = inputs
        if not len(x) == len(w) == self.window.rank + 2 or w != self._filters(x, w[0]):
            raise ShapeError(f"convolution of an input {x} with filters {w}, kernel {self.window.kernel}{_in(self)}")
        return (x[0], *fitting(self.window, x), w[0])

    def reference(self, *inputs: np.ndarray) -> np.ndarray:
        x, w = inputs
        columns = patches(x, self.window)
        y = by_group(columns, self.groups) @ w.reshape(self.groups, w.shape[0] // self.groups, -1).transpose(0, 2, 1)
        return np.ascontiguousarray(y.transpose(1, 0, 2)).reshape(*columns.shape[:-2], w.shape[0])

    def gradient(self, y: Value, dy: Value) -> Sequence[Value | None]:
        x, w = y.inputs
        return (
            apply(InputGradient(self.window, x.shape[1:-1], self.groups), dy, w),
            apply(FilterGradientOp(self.window, self.groups), x, dy),
        )

    def tiling(self, *inputs: Shape, fixed: bool) -> Tiling | None:
        x, w = inputs
        if not self._tiled(w):
            return None
        lo = [pair[0] for pair in self.window.pads]
        size = self.window.output(x[1:-1])
        return product_tiling(self.window, lo, x[0], size, w[-1], w[0] // self.groups, fixed)

    def margins(self, *inputs: Shape, fixed: bool) -> dict[int, Pads]:
        """Margins of zeros that the inputs' buffers must carry; with `fixed` filters, transformed but once."""
        tiling = self.tiling(*inputs, fixed=fixed)
        return {0: tiling.input_pads(inputs[0][1:-1]) if tiling else self.window.pads}

    def lower(self, group: Group, low: Lowering) -> None:
        y = group.anchor
        assert y is not None
        shapes = [v.shape for v in y.inputs]
        x = low.margined(y.inputs[0], self.margins(*shapes, fixed=low.fixed)[0])
        w = At(low.panels(y.inputs[1], self.panel_groups(shapes[1])).memory)
        [target] = group.outputs
        result = low.result(target)
        tiling = None if low.exact else self.tiling(*shapes, fixed=low.fixed)
        axes = self.axes(x.shape, y.shape)
        if tiling:
            lower_product(group, low, tiling, x, w, result, self.groups)
        elif width := narrow(shapes[1], self.groups):
            narrow_of(group, low, x, w, axes, result, width)
        else:
            product_of(group, low, x, w, axes, result, self.groups)

    def axes(self, x: Shape, y: Shape) -> list[Axis]:
        """Every output position sees an input through all taps."""
        return [self._axis(i, x[1 + i], y[1 + i]) for i in range(self.window.rank)]

    def _axis(self, i: int, size: int, positions: int) -> Axis:
        k, s, d, (lo, _) = (getattr(self.window, name)[i] for name in ("kernel", "stride", "dilation", "pads"))
        return Axis(positions, s, -lo, size, tuple(range(0, k * d, d)), tuple(range(k)), k)


@register
@dataclass(frozen=True)
class InputGradient(Sliding):
    """dy (n, *output, filters), w (filters, *kernel, channels / groups) -> dx (n, *size, channels).

    Also the transposed convolution. Stride s makes s phases a dimension, each with the taps that reach it.
    """

    name: ClassVar[str] = "convolution_input_gradient"
    window: Window
    size: tuple[int, ...]
    groups: int = 1

    def shape(self, *inputs: Shape) -> Shape:
        dy, w = inputs
        x = (dy[0], *self.size, w[-1] * self.groups)
        if Convolution(self.window, self.groups).shape(x, w) != dy:
            raise ShapeError(f"gradient of an input {x} from {dy} with filters {w} and window {self.window}{_in(self)}")
        return x

    def reference(self, *inputs: np.ndarray) -> np.ndarray:
        dy, w = inputs
        shape = self.shape(dy.shape, w.shape)
        columns = by_group(dy[..., None, :], self.groups) @ w.reshape(self.groups, w.shape[0] // self.groups, -1)
        parts = columns.reshape(self.groups, -1, self.window.taps, w.shape[-1]).transpose(1, 2, 0, 3)
        return scatter(parts.reshape(*dy.shape[:-1], self.window.taps, shape[-1]), self.window, self.size)

    def gradient(self, y: Value, dy: Value) -> Sequence[Value | None]:
        g, w = y.inputs
        return (
            apply(Convolution(self.window, self.groups), dy, w),
            apply(FilterGradientOp(self.window, self.groups), dy, g),
        )

    def tiling(self, *inputs: Shape, fixed: bool) -> Tiling | None:
        dy, w = inputs
        if not self._tiled(w):
            return None
        lo = [e - 1 - pair[0] for e, pair in zip(self.window.extent, self.window.pads, strict=True)]
        return product_tiling(self.window, lo, dy[0], self.size, w[0] // self.groups, w[-1], fixed)

    def margins(self, *inputs: Shape, fixed: bool) -> dict[int, Pads]:
        tiling = self.tiling(*inputs, fixed=fixed)
        return {0: tiling.input_pads(inputs[0][1:-1]) if tiling else self.window.transposed_pads(self.size)}

    def lower(self, group: Group, low: Lowering) -> None:
        y = group.anchor
        assert y is not None
        shapes = [v.shape for v in y.inputs]
        dy = low.margined(y.inputs[0], self.margins(*shapes, fixed=low.fixed)[0])
        width = narrow(shapes[1], self.groups)
        w = low.panels(y.inputs[1], self.panel_groups(shapes[1])).memory
        transposed = At(self._turned_groups(low, w, width) if width else self._transposed(low, w, shapes[1]))
        [target] = group.outputs
        result = low.result(target)
        tiling = None if low.exact else self.tiling(*shapes, fixed=low.fixed)
        if tiling:
            lower_product(group, low, tiling, dy, transposed, result, self.groups)
            return
        for phase in product(*(range(min(s, n)) for s, n in zip(self.window.stride, self.size, strict=True))):
            axes = [self._axis(i, p, dy.shape[1 + i], turned=not width) for i, p in enumerate(phase)]
            if width:
                narrow_of(group, low, dy, transposed, axes, result, width)
            else:
                product_of(group, low, dy, transposed, axes, result, self.groups)

    def _transposed(self, low: Lowering, w: Memory, shape: Shape) -> Memory:
        """The filters in panels of channels, taps turned round."""
        filters, channels, taps = shape[0] // self.groups, shape[-1], self.window.taps
        count = self.groups * panel_count(channels)
        result = low.temporary(f"{w.name}.transposed", count * taps * filters * PANEL)
        low.call(
            TransposePanels(),
            {
                "x": At(w),
                "y": At(result),
                "taps": taps,
                "channels": channels,
                "filters": filters,
                "panels": panel_count(channels),
            },
            count * taps,
            result,
            "transpose filters",
        )
        return result

    def _turned_groups(self, low: Lowering, w: Memory, width: int) -> Memory:
        """The filters of narrow groups, filters and channels exchanged."""
        if width == 1:
            return w
        result = low.temporary(f"{w.name}.transposed", w.size)
        taps = self.window.taps
        arguments: dict[str, Argument] = {"x": At(w), "y": At(result), "taps": taps}
        low.call(TransposeGroups(width), arguments, w.size // (taps * width * PANEL), result, "transpose filters")
        return result

    def _axis(self, i: int, phase: int, size: int, turned: bool) -> Axis:
        """Every stride-th input position from `phase` on, and the taps that reach it from an output of `size`.

        `turned` taps lie the other way round in the filters, so that at stride 1 a row of them is one run of dy.
        """
        k, s, d, (lo, _) = (getattr(self.window, name)[i] for name in ("kernel", "stride", "dilation", "pads"))
        taps = [t for t in reversed(range(k)) if (phase + lo - t * d) % s == 0]
        shifts = tuple((phase + lo - t * d) // s for t in taps)
        places = tuple(k - 1 - t if turned else t for t in taps)
        count = -(-(self.size[i] - phase) // s)
        return Axis(count, 1, 0, size, shifts, places, k, phase, s)


@register
@dataclass(frozen=True)
class FilterGradientOp(Sliding):
    """x (n, *spatial, channels), dy (n, *output, filters) -> dw (filters, *kernel, channels / groups)."""

    name: ClassVar[str] = "convolution_filter_gradient"
    window: Window
    groups: int = 1

    def shape(self, *inputs: Shape) -> Shape:
        x, dy = inputs
        w = self._filters(x, dy[-1])
        if Convolution(self.window, self.groups).shape(x, w) != dy:
            raise ShapeError(f"gradient of filters {w} from an input {x} and {dy} with window {self.window}{_in(self)}")
        return w

    def reference(self, *inputs: np.ndarray) -> np.ndarray:
        x, dy = inputs
        columns = by_group(patches(x, self.window), self.groups)
        parts = by_group(dy[..., None, :], self.groups).transpose(0, 2, 1) @ columns
        return np.ascontiguousarray(parts).reshape(self.shape(x.shape, dy.shape))

    def gradient(self, y: Value, dy: Value) -> Sequence[Value | None]:
        x, g = y.inputs
        return (
            apply(InputGradient(self.window, x.shape[1:-1], self.groups), g, dy),
            apply(Convolution(self.window, self.groups), x, dy),
        )

    def tiling(self, x: Shape, dy: Shape) -> Tiling | None:
        return None if self.groups > 1 else gradient_tiling(self.window, x[0], dy[1:-1], x[-1], dy[-1])

    def margins(self, *inputs: Shape, fixed: bool) -> dict[int, Pads]:
        tiling = self.tiling(*inputs)
        if tiling:
            return {0: tiling.input_pads(inputs[0][1:-1]), 1: tiling.output_pads()}
        return {0: self.window.pads}

    def lower(self, group: Group, low: Lowering) -> None:
        y = group.anchor
        assert y is not None
        pads = self.margins(*(v.shape for v in y.inputs), fixed=low.fixed)
        x = low.margined(y.inputs[0], pads[0])
        tiling = None if low.exact else self.tiling(*(v.shape for v in y.inputs))
        if tiling:
            lower_gradient(y, low, tiling, x, low.margined(y.inputs[1], pads[1]))
        elif width := narrow(y.shape, self.groups):
            lower_narrow_gradient(y, low, self.window, x, low.plain(y.inputs[1]), width)
        else:
            lower_filter_gradient(y, low, self.window, x, low.plain(y.inputs[1]), self.groups)


def _in(op: Sliding) -> str:
    return f" in {op.groups} groups" if op.groups > 1 else ""


def convolve(x: Value, w: Value, window: Window, groups: int = 1) -> Value:
    """The convolution of x (n, *spatial, channels) with w (filters, *kernel, channels / groups).

    Where each channel has several filters of its own, it is repeated for each: then all are one to one.
    """
    channels, filters = x.shape[-1], w.shape[0]
    if 1 < groups == channels < filters:
        repeated = broadcast(reshape_to(x, (*x.shape, 1)), (*x.shape, filters // channels))
        x, groups = reshape_to(repeated, (*x.shape[:-1], filters)), filters
    return apply(Convolution(window, groups), x, w)


def inner(x: Value, w: Value, groups: int = 1) -> Value:
    """x w^T: each row of x (n, features) times each of w (units, features / groups), with no dimension to slide in."""
    return convolve(x, w, Window((), (), (), ()), groups)


def transposed(x: Value, w: Value, window: Window, size: tuple[int, ...], groups: int = 1) -> Value:
    """The transposed convolution of x (n, *spatial, channels) with w (channels, *kernel, filters / groups).

    `window` slides over the result, of spatial `size`; positions behind those that it reaches are zeros. Where each
    channel paints several filters' pictures of its own, it is repeated for each.
    """
    window, inner = window.painting(x.shape[1:-1], size)
    if inner != size:
        return pad(transposed(x, w, window, inner, groups), tuple((0, m - n) for m, n in zip(size, inner, strict=True)))
    channels, several = x.shape[-1], w.shape[-1]
    if 1 < groups == channels and several > 1:
        repeated = broadcast(reshape_to(x, (*x.shape, 1)), (*x.shape, several))
        x, groups = reshape_to(repeated, (*x.shape[:-1], channels * several)), channels * several
        taps = [reshape_to(cut(w, len(w.shape) - 1, i, i + 1), (channels, 1, *w.shape[1:-1])) for i in range(several)]
        w = reshape_to(concat(*taps, axis=1), (channels * several, *w.shape[1:-1], 1))
    return apply(InputGradient(window, size, groups), x, w)
