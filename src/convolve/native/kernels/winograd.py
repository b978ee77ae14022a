"""Winograd's minimal filtering: 3x3 convolutions with 2.25 (2x2 outputs a tile) or 4 (4x4) times fewer multiplications.

    Y = AT [ (BT d B) . (G g GT) ] A            for each tile d of the input, summed over channels in the middle

(Lavin and Gray, 2016.) The points are 0, +-5/8, +-3/2 and infinity for 4x4 outputs, with which the largest error is
that of a direct float32 convolution, and 0, +-1 and infinity for 2x2. The middle is one matrix product for each of
the tile's positions; a piece transforms a block of tiles into scratch, multiplies, and transforms back with the
epilogue.

The filter gradient is the same with other sizes, F(3x3, 4x4): tiles of dY take the filter's part, and the sum runs
over tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from convolve.native.builder import Expr, Kernel, Mask, Pointer
from convolve.native.kernels.expression import Formula
from convolve.native.kernels.gemm import UNROLL, share
from convolve.native.target import PANEL

POINTS: dict[int, tuple[float, ...]] = {2: (1.0,), 4: (0.625, 1.5)}
"""The positive points for 2x2 and 4x4 outputs; zero, their negatives and infinity go with them."""
GROUP = 128
"""Filters whose products are held at once."""
Vectors = list[Expr]
Transform = Callable[[Vectors], Vectors]


def _fma(k: Kernel, factor: float, a: Expr, b: Expr) -> Expr:
    """factor * a + b"""
    if factor == 1.0:
        return b + a
    if factor == -1.0:
        return b - a
    return k.fma(k.constant(factor, a.type.count), a, b)


def _scaled(factor: float, a: Expr) -> Expr:
    return a if factor == 1.0 else a * factor


def _polynomial(squares: Sequence[float]) -> list[float]:
    """Coefficients, lowest first, of the product of (t - s), with t = x^2."""
    result = [1.0]
    for s in squares:
        result = [
            (result[i - 1] if i else 0.0) - s * (result[i] if i < len(result) else 0.0) for i in range(len(result) + 1)
        ]
    return result


def input_transform(k: Kernel, points: Sequence[float], d: Vectors) -> Vectors:
    """BT d: the values at all points of what multiplies with a filter's values there."""

    def combine(coefficients: Sequence[float], terms: Vectors) -> Expr:
        total = terms[len(coefficients) - 1]
        for c, term in reversed(list(zip(coefficients[:-1], terms, strict=False))):
            total = _fma(k, c, term, total)
        return total

    whole = _polynomial([p * p for p in points])
    made = [combine(whole, d[0::2])]
    for p in points:
        rest = _polynomial([q * q for q in points if q != p])
        even, odd = combine(rest, d[2::2]), combine(rest, d[1::2])
        made += [_fma(k, p, odd, even), _fma(k, -p, odd, even)]
    return [*made, combine(whole, d[1::2])]


def filter_transform(k: Kernel, points: Sequence[float], g: Vectors) -> Vectors:
    """G g: a filter's (or a gradient tile's) values at all points, with the interpolation's denominators."""

    def poly(terms: list[tuple[float, Expr]]) -> Expr:
        factor, first = terms[0]
        total = _scaled(factor, first)
        for c, term in terms[1:]:
            total = _fma(k, c, term, total)
        return total

    scale = 1.0
    for p in points:
        scale *= p * p
    made = [g[0] * (1.0 / scale) if (len(points) % 2 == 0) else g[0] * (-1.0 / scale)]
    for p in points:
        n = 2.0 * p * p
        for q in points:
            n *= (p * p - q * q) if q != p else 1.0
        even = poly([(p**i / n, g[i]) for i in range(0, len(g), 2)])
        odd = poly([(p**i / n, g[i]) for i in range(1, len(g), 2)])
        made += [even + odd, even - odd]
    return [*made, g[-1]]


def output_transform(k: Kernel, points: Sequence[float], m: Vectors, outputs: int) -> Vectors:
    """AT m: from products at the points to `outputs` values."""
    sums = [m[1 + 2 * i] + m[2 + 2 * i] for i in range(len(points))]
    differences = [m[1 + 2 * i] - m[2 + 2 * i] for i in range(len(points))]
    made = []
    for r in range(outputs):
        total = m[0] if r == 0 else m[-1] if r == outputs - 1 else None
        for p, term in zip(points, differences if r % 2 else sums, strict=True):
            total = _scaled(p**r, term) if total is None else _fma(k, p**r, term, total)
        assert total is not None
        made.append(total)
    return made


def square(apply: Transform, grid: list[Vectors]) -> list[Vectors]:
    """A transform along both dimensions of a grid of vectors."""
    columns = [apply([row[j] for row in grid]) for j in range(len(grid[0]))]
    return [apply([column[i] for column in columns]) for i in range(len(columns[0]))]


@dataclass(frozen=True)
class FilterTransform:
    """Panels [panel][tap][channel][16] to the products' [panel group][point][panel][channel][16]."""

    outputs: int

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("x:f4", "y:f4", "channels:int", "panels:int", "group_panels:int", "parts:int")

    def emit(self, k: Kernel) -> None:
        lanes, points = k.target.lanes, POINTS[self.outputs]
        size = self.outputs + 2
        panel, part = k.piece // k.parts, k.piece % k.parts
        group, inside = panel // k.group_panels, panel % k.group_panels
        first_panel = group * k.group_panels
        here = k.minimum(k.panels - first_panel, k.group_panels)
        plane = k.channels * PANEL
        x = k.x + panel * plane * 9
        y = k.y + (first_panel * plane * (size * size) + inside * plane)
        first, last = share(part, k.parts, k.channels)
        with k.range(last, first) as channel, k.range(PANEL, step=lanes) as lane:
            at = x + (channel * PANEL + lane)
            taps = [(at + plane * t).vector() for t in range(9)]
            grid = [taps[3 * i : 3 * i + 3] for i in range(3)]
            values = square(lambda g: filter_transform(k, points, g), grid)
            for position, value in enumerate(v for row in values for v in row):
                (y + (plane * here * position + channel * PANEL + lane)).store_vector(value)


def emit_input_transform(k: Kernel, outputs: int, x: Pointer, target: Pointer, plane: Expr, channels: Expr) -> None:
    """One tile's (outputs + 2)^2 patch of all channels, transformed to `target[position * plane + channel]`."""
    lanes, points, size = k.target.lanes, POINTS[outputs], outputs + 2
    with k.range(channels, step=lanes) as channel:
        at = x + channel
        grid = [[(at + (k.x_row * i + k.x_column * j)).vector() for j in range(size)] for i in range(size)]
        values = square(lambda d: input_transform(k, points, d), grid)
        for position, value in enumerate(v for row in values for v in row):
            (target + (plane * position + channel)).store_vector(value)


@dataclass(frozen=True)
class Product:
    """A 3x3 stride-1 convolution by tiles of `outputs` x `outputs`. A piece is a block of tiles, a share of filters."""

    outputs: int
    rows: int
    vectors: int
    epilogue: Formula

    @property
    def arguments(self) -> tuple[str, ...]:
        places = self.epilogue.indices("vector")
        return (
            *("x:f4", "u:f4", "y:f4"),
            *(
                "tiles:int",
                "block:int",
                "x_tile:i4",
                "y_tile:i4",
                "extent:i4",
            ),  # extent: rows * 256 + columns that exist
            *("x_row:int", "x_column:int", "y_row:int", "y_column:int"),
            *("channels:int", "columns:int", "group:int", "splits:int"),
            *("v_pitch:int", "v_plane:int", "m_pitch:int", "m_plane:int", "m_start:int"),
            *self.epilogue.arguments,
            *(f"in{i}_table:i4" for i in places),
            *(f"in{i}_row:int" for i in places),
            *(f"in{i}_column:int" for i in places),
        )

    def emit(self, k: Kernel) -> None:
        size = self.outputs + 2
        first = (k.piece // k.splits) * k.block
        count = k.minimum(k.tiles - first, k.block)
        v, m = k.scratch, k.scratch + k.m_start
        with k.range(count) as tile:
            origin = k.x + (k.x_tile + (first + tile)).load()
            emit_input_transform(k, self.outputs, origin, v + tile * k.v_pitch, k.v_plane, k.channels)
        groups = (k.columns + (k.group - 1)) // k.group
        panel_size = k.channels * PANEL
        first_group, last_group = share(k.piece % k.splits, k.splits, groups)
        with k.range(last_group, first_group) as group:
            column = group * k.group
            width = k.minimum(k.columns - column, k.group)
            panels = (width + (PANEL - 1)) // PANEL
            u = k.u + column * k.channels * (size * size)
            with k.range(size * size) as position, k.range(panels) as panel:
                b = u + (position * panels + panel) * panel_size
                self._product(
                    k, v + position * k.v_plane, b, m + (position * k.m_plane + panel * PANEL), count, panel_size
                )
            with k.range(count) as tile:
                self._output(k, m + tile * k.m_pitch, first + tile, column, width)

    def _product(self, k: Kernel, a: Pointer, b: Pointer, m: Pointer, count: Expr, panel_size: Expr) -> None:
        """Rows of `a` (tiles) times one panel; the next panel is prefetched on the way, a quarter a row tile."""
        lanes = k.target.lanes
        with k.range((count + (self.rows - 1)) // self.rows) as block:
            rows = [a + (block * self.rows + j) * k.v_pitch for j in range(self.rows)]
            sums = [[k.variable(k.constant(0.0)) for _ in range(self.vectors)] for _ in rows]
            quarter = b + (panel_size + (block % 4) * (panel_size // 4))

            def step(channel: Expr) -> None:
                weights = [(b + (channel * PANEL + v * lanes)).vector() for v in range(self.vectors)]
                for j, row in enumerate(rows):
                    value = (row + channel).splat()
                    for v, weight in enumerate(weights):
                        sums[j][v].set(k.fma(value, weight, sums[j][v].get()))

            whole = k.channels - k.channels % UNROLL
            with k.range(whole, step=UNROLL) as channel:
                (quarter + channel * (PANEL // UNROLL)).prefetch()
                for i in range(UNROLL):
                    step(channel + i)
            with k.range(k.channels, whole) as channel:
                step(channel)
            for j in range(self.rows):
                place = m + (block * self.rows + j) * k.m_pitch
                for v in range(self.vectors):
                    (place + v * lanes).store_vector(sums[j][v].get())

    def _output(self, k: Kernel, m: Pointer, tile: Expr, column: Expr, width: Expr) -> None:
        """Transform a tile's products back and store what lies inside the image."""
        lanes, points, size = k.target.lanes, POINTS[self.outputs], self.outputs + 2
        extent = (k.extent + tile).load()
        rows, columns = extent >> 8, extent & 255
        y = k.y + ((k.y_tile + tile).load() + column)
        sources = {
            i: k.args[f"in{i}"] + ((k.args[f"in{i}_table"] + tile).load() + column)
            for i in self.epilogue.indices("vector")
        }
        with k.range(width, step=lanes) as lane:
            left = width - lane
            grid = [[(m + (k.m_plane * (i * size + j) + lane)).vector() for j in range(size)] for i in range(size)]
            values = square(lambda r: output_transform(k, points, r, self.outputs), grid)
            whole = extent.equals(self.outputs * 256 + self.outputs) & (left >= lanes)

            def store(i: int, j: int, mask: Mask | None) -> None:
                operands = []
                for index, kind in enumerate(self.epilogue.inputs):
                    if kind == "sum":
                        operands.append(values[i][j])
                    elif kind == "constant":
                        operands.append(k.splat(k.args[f"in{index}"]))
                    elif kind == "channel":
                        operands.append((k.args[f"in{index}"] + (column + lane)).vector())
                    else:
                        offset = k.args[f"in{index}_row"] * i + k.args[f"in{index}_column"] * j
                        operands.append((sources[index] + (offset + lane)).vector())
                [value] = self.epilogue.evaluate(k, operands)
                (y + (k.y_row * i + k.y_column * j + lane)).store_vector(value, mask)

            with k.either(whole) as (inside, edge):
                with inside:
                    for i in range(self.outputs):
                        for j in range(self.outputs):
                            store(i, j, None)
                with edge:
                    mask = k.lane_mask(left)
                    for i in range(self.outputs):
                        for j in range(self.outputs):
                            with k.when((rows > i) & (columns > j)):
                                store(i, j, mask)


@dataclass(frozen=True)
class FilterGradientSum:
    """The filter gradient's middle: V^T Z of each position over the tiles of a slice.

    A piece (slice, group of filters) transforms blocks of X and dY into scratch and adds their products up in
    `y[slice, position, panel, channel, 16]`.
    """

    rows: int
    vectors: int

    @property
    def arguments(self) -> tuple[str, ...]:
        return (
            *("x:f4", "dy:f4", "y:f4"),
            *("tiles:int", "block:int", "slices:int", "x_tile:i4", "dy_tile:i4"),
            *("x_row:int", "x_column:int", "dy_row:int", "dy_column:int"),
            *("channels:int", "columns:int", "group:int", "groups:int", "panels:int"),
            *("v_pitch:int", "v_plane:int", "z_pitch:int", "z_plane:int", "z_start:int", "channel_rows:int"),
        )

    def emit(self, k: Kernel) -> None:
        lanes, points = k.target.lanes, POINTS[4]
        group, part = k.piece % k.groups, k.piece // k.groups
        column = group * k.group
        width = k.minimum(k.columns - column, k.group)
        panels = (width + (PANEL - 1)) // PANEL
        first, last = share(part, k.slices, k.tiles)
        v, z = k.scratch, k.scratch + k.z_start
        panel_size = k.channel_rows * PANEL
        y = k.y + (part * 36 * k.panels + column // PANEL) * panel_size
        blocks = (last - first + (k.block - 1)) // k.block
        with k.range(blocks) as block:
            start = first + block * k.block
            count = k.minimum(last - start, k.block)
            with k.range(count) as tile:
                origin = k.x + (k.x_tile + (start + tile)).load()
                emit_input_transform(k, 4, origin, v + tile * k.v_pitch, k.v_plane, k.channels)
                received = k.dy + ((k.dy_tile + (start + tile)).load() + column)
                with k.range(width, step=lanes) as lane:
                    at = received + lane
                    grid = [[(at + (k.dy_row * i + k.dy_column * j)).vector() for j in range(4)] for i in range(4)]
                    values = square(lambda g: filter_transform(k, points, g), grid)
                    for point, value in enumerate(item for line in values for item in line):
                        (z + (tile * k.z_pitch + k.z_plane * point + lane)).store_vector(value)
            with k.range(36) as position, k.range(panels) as panel:
                target = y + (position * k.panels + panel) * panel_size
                z_panel = z + (position * k.z_plane + panel * PANEL)
                with k.range(k.channel_rows // self.rows) as row:
                    a = v + (position * k.v_plane + row * self.rows)
                    self._tile(k, a, z_panel, target + row * (self.rows * PANEL), count, block.equals(0))

    def _tile(self, k: Kernel, a: Pointer, z: Pointer, y: Pointer, count: Expr, fresh: Expr) -> None:
        lanes = k.target.lanes
        zero = k.constant(0.0)
        places = [[y + (j * PANEL + v * lanes) for v in range(self.vectors)] for j in range(self.rows)]
        sums = [[k.variable(k.select(fresh, zero, place.vector())) for place in row] for row in places]
        with k.range(count) as tile:
            at, other = a + tile * k.v_pitch, z + tile * k.z_pitch
            values = [(other + v * lanes).vector() for v in range(self.vectors)]
            for j in range(self.rows):
                factor = (at + j).splat()
                for v, value in enumerate(values):
                    sums[j][v].set(k.fma(factor, value, sums[j][v].get()))
        for row, totals in zip(places, sums, strict=True):
            for place, total in zip(row, totals, strict=True):
                place.store_vector(total.get())


@dataclass(frozen=True)
class FilterGradientResult:
    """Add the slices in order and transform back: to panels [panel][tap][channel][16]."""

    @property
    def arguments(self) -> tuple[str, ...]:
        return (
            "x:f4",
            "y:f4",
            "slices:int",
            "channels:int",
            "panels:int",
            "columns:int",
            "channel_rows:int",
            "parts:int",
        )

    def emit(self, k: Kernel) -> None:
        lanes, points = k.target.lanes, POINTS[4]
        panel, part = k.piece // k.parts, k.piece % k.parts
        panel_size = k.channel_rows * PANEL
        plane = k.panels * panel_size
        first, last = share(part, k.parts, k.channels)
        left = k.columns - panel * PANEL
        with k.range(last, first) as channel, k.range(PANEL, step=lanes) as lane:
            source = k.x + (panel * panel_size + channel * PANEL + lane)
            sums = [k.variable((source + plane * position).vector()) for position in range(36)]
            with k.range(k.slices, 1) as index:
                at = source + index * plane * 36
                for position in range(36):
                    sums[position].set(sums[position].get() + (at + plane * position).vector())
            grid = [[sums[6 * i + j].get() for j in range(6)] for i in range(6)]
            values = square(lambda m: output_transform(k, points, m, 3), grid)
            inside = k.lane_mask(left - lane)
            for tap, value in enumerate(item for row in values for item in row):
                place = k.y + (((panel * 9 + tap) * k.channels + channel) * PANEL + lane)
                place.store_vector(k.select(inside, value, k.constant(0.0)))
