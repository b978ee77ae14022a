"""A convolution and the depthwise convolution or pooling behind it, in strips: what lies between stays in cache.

A piece computes some lines of some channels of the first, a halo with them, in its thread's scratch, and from these the
second's lines. Every number is computed as it would be without.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from convolve.graph import Value
from convolve.lowering import Group, Lowering, epilogue_inputs
from convolve.native.kernels.chain import SPARE, Chain
from convolve.native.target import PANEL
from convolve.ops.convolution import Convolution, narrow
from convolve.ops.pool import Pool
from convolve.ops.product import column_spans, narrow_of, span_of
from convolve.program import SLACK, Argument, At, Buffer, Call, padded
from convolve.window import Window

LEAST_BYTES = 256 * 1024
"""What lies between two layers and would leave the cores' caches before it is read."""
STRIP_BYTES = 256 * 1024
"""What lies between the two in one piece: well within the second cache, beside what both read and write."""
STRIP_CHANNELS = 32
"""Channels of a piece: so few that strips are high, and little is computed twice."""
CUTS = ("tile_blocks", "panel_blocks", "pieces")
"""Arguments that say into how many pieces a call is cut: a stage is never."""


def chains(first: Group, second: Group, exact: bool) -> bool:
    """Whether `second` follows `first` in strips: decided from shapes, for one image whose result is waited for."""
    a, b = first.anchor, second.anchor
    if a is None or b is None or len(first.outputs) != 1 or b.inputs[0] is not first.outputs[0]:
        return False
    if not isinstance(a.op, Convolution) or a.op.groups > 1 or a.op.window.rank < 2 or _whole_inputs(first):
        return False
    tiled = not exact and a.op.tiling(*(v.shape for v in a.inputs), fixed=True) is not None
    if tiled or a.shape[0] > 1 or 4 * math.prod(a.shape) <= LEAST_BYTES:
        return False
    if isinstance(b.op, Pool):
        return True
    return isinstance(b.op, Convolution) and narrow(b.inputs[1].shape, b.op.groups) > 0 and not _whole_inputs(second)


def _whole_inputs(group: Group) -> bool:
    """Whether an epilogue reads values as large as its result."""
    return any(len(v.shape) > 1 for v in group.inputs if v is not group.anchor)


@dataclass(frozen=True)
class Strip:
    """Lines of the second's output, those between that they are made of, and some of the channels.

    `fresh` lines between are not those of the strip before, too.
    """

    lines: range
    between: range
    channels: range
    fresh: int


def strips(window: Window, size: Sequence[int], lines: int, line: int, channels: int) -> list[Strip]:
    """How `lines` of output are cut, where a line between has `line` positions: evenly, and few enough for the cache.

    >>> window = Window((3, 3), (2, 2), (1, 1), ((1, 1), (1, 1)))
    >>> [(s.lines, s.between) for s in strips(window, (112, 112), 56, 114, 16)]
    [(range(0, 14), range(0, 28)), (range(14, 28), range(27, 56)),
     (range(28, 42), range(55, 84)), (range(42, 56), range(83, 112))]
    """
    parts = -(-channels // STRIP_CHANNELS)
    wide = -(-channels // parts // PANEL) * PANEL
    extent, stride, (lo, _) = window.extent[0], window.stride[0], window.pads[0]
    most = max(1, (STRIP_BYTES // (4 * line * wide) - extent) // stride + 1)
    count = -(-lines // most)
    cuts = [lines * i // count for i in range(count + 1)]
    found, done = [], 0
    for start, stop in pairwise(cuts):
        first, last = max(0, start * stride - lo), min(size[0], (stop - 1) * stride - lo + extent)
        for channel in range(0, channels, wide):
            block = range(channel, min(channels, channel + wide))
            found.append(Strip(range(start, stop), range(first, last), block, last - max(first, done)))
        done = last
    return found


def lower_strips(first: Group, second: Group, low: Lowering) -> None:
    """Both groups, a piece for each strip; those that the same kernels serve are one call."""
    a, b = first.anchor, second.anchor
    assert a is not None
    assert b is not None
    assert isinstance(a.op, Convolution)
    assert isinstance(b.op, (Convolution, Pool))
    x = low.margined(a.inputs[0], a.op.window.pads)
    weights = At(low.panels(a.inputs[1]).memory)
    filters = None
    if isinstance(b.op, Convolution):
        filters = At(low.panels(b.inputs[1], b.op.panel_groups(b.inputs[1].shape)).memory)
    for group in (first, second):
        epilogue_inputs(group, low)  # what these need is made before, not in a stage
    result = low.result(second.outputs[0])
    *_, (left, right) = b.op.window.pads
    size, line = a.shape[1:-1], left + a.shape[-2] + right
    rest = math.prod(n + lo + hi for n, (lo, hi) in zip(size[1:-1], b.op.window.pads[1:-1], strict=True))
    pads = ((0, 0), *b.op.window.pads[1:]) if filters else ()
    made: dict[tuple[object, ...], list[tuple[Call, ...]]] = {}
    scratch = 0
    for strip in strips(b.op.window, size, b.shape[1], rest * line, a.shape[-1]):
        stages = replace(low, calls=[])
        between = padded("strip", (1, len(strip.between), *size[1:], len(strip.channels)), pads)
        between.memory.home = "scratch"
        if any(map(any, pads)):
            stages.clear_margins(between)
        _convolve(first, stages, x, weights, between, strip)
        part = result.part((1, len(strip.lines), *b.shape[2:-1], len(strip.channels)), 1, strip.lines.start)
        if filters:
            _convolve_narrow(second, stages, between, filters, part, strip)
        else:
            _pool(b, stages, between, part, strip)
        calls = tuple(replace(c, arguments=dict(c.arguments) | _all_of(c)) for c in stages.calls)
        made.setdefault(tuple(c.spec for c in calls), []).append(calls)
        scratch = max(scratch, 4 * (between.memory.size + SPARE + SLACK))
    for specs, pieces in made.items():
        name = "strips: " + ", ".join(c.algorithm for c in pieces[0])
        flops = sum(c.flops for calls in pieces for c in calls)
        chain, writes = Chain(len(specs)), (result.memory,)
        low.calls.append(Call(chain, {}, len(pieces), writes, low.label, name, flops, scratch, True, tuple(pieces)))


def _all_of(call: Call) -> dict[str, Argument]:
    """A stage's arguments that say into how many pieces it is cut."""
    return {name: 1 for name in CUTS if name in call.arguments}


def _convolve(group: Group, low: Lowering, x: Buffer, weights: At, between: Buffer, strip: Strip) -> None:
    """The lines between. Those that the strip before computes as well do not count as its work."""
    y = group.anchor
    assert y is not None
    assert isinstance(y.op, Convolution)
    line, *others = y.op.axes(x.shape, y.shape)
    line = replace(line, positions=len(strip.between), start=line.start + strip.between.start * line.step)
    target = replace(between, start=between.start - strip.channels.start)
    done = len(low.calls)
    for first, columns in column_spans(len(strip.channels)):
        span_of(group, low, x, weights, [line, *others], target, strip.channels.start + first, columns, 1)
    share = [replace(c, flops=c.flops * strip.fresh // len(strip.between)) for c in low.calls[done:]]
    low.calls[done:] = share


def _convolve_narrow(group: Group, low: Lowering, between: Buffer, filters: At, part: Buffer, strip: Strip) -> None:
    """The lines of a depthwise convolution."""
    y = group.anchor
    assert y is not None
    assert isinstance(y.op, Convolution)
    line, *others = y.op.axes(between.shape, y.shape)
    start = line.start + strip.lines.start * line.step - strip.between.start
    line = replace(line, positions=len(strip.lines), start=start)
    width = narrow(y.inputs[1].shape, y.op.groups)
    narrow_of(group, low, between, filters, [line, *others], part, width, strip.channels.start)


def _pool(y: Value, low: Lowering, between: Buffer, part: Buffer, strip: Strip) -> None:
    """The lines of a pooling."""
    assert isinstance(y.op, Pool)
    size = y.inputs[0].shape[1:-1]
    (starts, lengths, apart), *others = y.op.window.reads(size)
    here = slice(strip.lines.start, strip.lines.stop)
    line = (starts[here] - strip.between.start, lengths[here], apart)
    target = replace(part, start=part.start + strip.channels.start)
    y.op.gather(low, between, target, [line, *others], y.op.divisor(size)[here])
