"""Winograd's minimal filtering F(m, r): m outputs by r taps take m + r - 1 multiplications, not m r.

    Y = AT [ (BT d B) . (G g GT) ] A            for each tile d of the input, summed over channels in the middle

(Lavin and Gray, 2016.) In two dimensions F(2x2,3x3) takes 2.25 times fewer, F(4x4,3x3) 4 and F(2x2,5x5) 2.78. Six
points are 0, +-5/8, +-3/2 and infinity, with which the largest error of F(4x4,3x3) is that of a direct float32
convolution, four are 0, +-1 and infinity. The middle is one matrix product for each of the tile's points; a piece
transforms a block of tiles into scratch, multiplies, and transforms back with the epilogue.

Tiles lie along the last one or two dimensions (with one, 1.5, 2 and 1.67 times fewer multiplications). Taps of the
dimensions before these, the leads, join the channels: the sum in the middle runs over both.

The filter gradient is the same with outputs and taps exchanged, F(r, m): tiles of dY take the filter's part, and the
sum runs over tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product

from convolve.native.builder import Expr, Kernel, Mask, Pointer
from convolve.native.kernels.expression import Formula
from convolve.native.kernels.functions import FUNCTIONS
from convolve.native.kernels.gemm import UNROLL, share
from convolve.native.target import PANEL

POINTS: dict[int, tuple[float, ...]] = {4: (1.0,), 6: (0.625, 1.5)}
"""The positive ones of so many points a dimension; zero, their negatives and infinity go with them."""
GROUP = 128
"""Filters whose products are held at once."""
FRESH_GROUP, CHUNK = 32, 128
"""Filters, and rows (lead, channel) of them, that lie in the second cache at all points."""
AHEAD = 16
"""How many rows ahead filters are asked for."""
Vectors = list[Expr]
Transform = Callable[[Vectors], Vectors]
Ask = Callable[[Expr, Expr, Expr], None]
"""Prefetches something in so manieth of so many row tiles, at a step of its reduction."""
Place = tuple[int, ...]
Tile = dict[Place, Expr]
"""Vectors by their place in a tile."""


@dataclass(frozen=True)
class Filtering:
    """F(outputs, taps), along each of `dims` dimensions."""

    outputs: int
    taps: int
    dims: int

    @property
    def side(self) -> int:
        """Points a dimension, and inputs that a tile sees."""
        return self.outputs + self.taps - 1

    @property
    def count(self) -> int:
        """Points at which a tile's polynomials are known: multiplications of a tile, a channel and a filter."""
        return int(self.side**self.dims)

    @property
    def filter_size(self) -> int:
        return int(self.taps**self.dims)

    @property
    def transposed(self) -> Filtering:
        """What the gradient of the filters takes: a filter's part is a tile of the outputs' gradient."""
        return Filtering(self.taps, self.outputs, self.dims)

    def places(self, side: int) -> list[Place]:
        """Every place of a tile of `side` positions a dimension, last dimension fastest."""
        return list(product(range(side), repeat=self.dims))

    def transformed_input(self, k: Kernel, d: Tile) -> Tile:
        return self._along(lambda line: input_transform(k, POINTS[self.side], line), d)

    def transformed_filter(self, k: Kernel, g: Tile) -> Tile:
        return self._along(lambda line: filter_transform(k, POINTS[self.side], line), g)

    def output(self, k: Kernel, m: Sequence[Expr]) -> Tile:
        """A tile's outputs from its products at all points."""
        found = dict(zip(self.places(self.side), m, strict=True))
        return self._along(lambda line: output_transform(k, POINTS[self.side], line, self.outputs), found)

    def _along(self, apply: Transform, tile: Tile) -> Tile:
        """A transform along each dimension of a tile in turn."""
        for axis in range(self.dims):
            lines: dict[Place, Vectors] = {}
            for place in sorted(tile):
                lines.setdefault(place[:axis] + place[axis + 1 :], []).append(tile[place])
            tile = {
                (*rest[:axis], i, *rest[axis:]): value
                for rest, line in lines.items()
                for i, value in enumerate(apply(line))
            }
        return {place: tile[place] for place in sorted(tile)}


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


def steps(name: str, dims: int) -> tuple[str, ...]:
    """Arguments for the strides of `name` along a tile's dimensions."""
    return tuple(f"{name}_step{axis}:int" for axis in range(dims))


def moved(k: Kernel, at: Pointer, name: str, place: Place) -> Pointer:
    """`at`, moved to a place of its tile by the strides of `name`."""
    for axis, index in enumerate(place):
        if index:
            at = at + k.args[f"{name}_step{axis}"] * index
    return at


@dataclass(frozen=True)
class FilterTransform:
    """Panels [panel][lead][tap][channel][16] to the products' [panel group][point][panel][lead][channel][16]."""

    tile: Filtering

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("x:f4", "y:f4", "channels:int", "leads:int", "panels:int", "group_panels:int", "parts:int")

    def emit(self, k: Kernel) -> None:
        panel, part = k.piece // k.parts, k.piece % k.parts
        group, inside = panel // k.group_panels, panel % k.group_panels
        first_panel = group * k.group_panels
        here = k.minimum(k.panels - first_panel, k.group_panels)
        lead_size = k.channels * PANEL
        plane = lead_size * k.leads
        x = k.x + panel * plane * self.tile.filter_size
        y = k.y + (first_panel * plane * self.tile.count + inside * plane)
        first, last = share(part, k.parts, k.leads * k.channels)
        with k.range(last, first) as row:
            emit_filter_transform(k, self.tile, x, row, y + row * PANEL, plane * here)


def emit_filter_transform(k: Kernel, tile: Filtering, x: Pointer, row: Expr, target: Pointer, plane: Expr) -> None:
    """One row (lead, channel) of the panel at `x`, transformed to `target[point * plane]`."""
    size = k.channels * PANEL
    lead, channel = row // k.channels, row % k.channels
    with k.range(PANEL, step=k.target.lanes) as lane:
        at, to = x + (lead * size * tile.filter_size + channel * PANEL + lane), target + lane
        found = {}
        for place in tile.places(tile.taps):
            found[place] = at.vector()
            (at + AHEAD * PANEL).prefetch()
            at = at + size
        for value in tile.transformed_filter(k, found).values():
            to.store_vector(value)
            to = to + plane


def ask_for_next(k: Kernel, tile: Filtering, x: Pointer, channel: Expr) -> None:
    """Prefetch what the next tile does not share with this one; the vectors of a cache line take turns, by rows."""
    turns = PANEL // k.target.lanes if tile.dims > 1 else 1
    x = x + k.args[f"x_step{tile.dims - 1}"] * tile.outputs
    if turns > 1:
        x = x + k.x_step0 * (channel // k.target.lanes % turns)
    for place in tile.places(tile.side):
        if place[-1] >= tile.taps - 1 and (tile.dims == 1 or place[0] % turns == 0):
            moved(k, x, "x", place).prefetch()


def emit_input_transform(k: Kernel, tile: Filtering, x: Pointer, target: Pointer, plane: Expr) -> None:
    """One tile's patch of all channels through all leads, transformed to `target[point * plane + lead, channel]`.

    A lead's last vector may reach into the next lead's place, which is written after it.
    """
    with k.range(k.leads) as lead:
        source, to = x + (k.lead + lead).load(), target + lead * k.channels
        with k.range(k.channels, step=k.target.lanes) as channel:
            found = {place: moved(k, source + channel, "x", place).vector() for place in tile.places(tile.side)}
            ask_for_next(k, tile, source + channel, channel)
            for point, value in enumerate(tile.transformed_input(k, found).values()):
                (to + (plane * point + channel)).store_vector(value)


@dataclass(frozen=True)
class InputTransform:
    """All tiles at all points: [point][tile][lead][channel]. A piece is a share of the tiles."""

    tile: Filtering

    @property
    def arguments(self) -> tuple[str, ...]:
        sizes = ("tiles:int", "channels:int", "leads:int", "v_pitch:int", "v_plane:int", "pieces:int")
        return ("x:f4", "v:f4", "x_tile:i4", "lead:i4", *steps("x", self.tile.dims), *sizes)

    def emit(self, k: Kernel) -> None:
        first, last = share(k.piece, k.pieces, k.tiles)
        with k.range(last, first) as tile:
            origin = k.x + (k.x_tile + tile).load()
            emit_input_transform(k, self.tile, origin, k.v + tile * k.v_pitch, k.v_plane)


@dataclass(frozen=True)
class Product:
    """A convolution by tiles. A piece is a block of tiles, a share of filters.

    With a `pool` of 2, what is stored is the maximum of each two outputs along each of these dimensions (NaN wins).
    With `fresh` filters, `u` are panels as they are, and it is the tiles, `v`, that have been transformed: a piece
    transforms its filters in scratch, chunk by chunk. So less comes from memory, where few tiles need each filter.
    """

    tile: Filtering
    rows: int
    vectors: int
    epilogue: Formula
    pool: int = 1
    fresh: bool = False

    @property
    def arguments(self) -> tuple[str, ...]:
        vectors, dims = self.epilogue.indices("vector"), self.tile.dims
        tiles = ("x:f4", "x_tile:i4", *steps("x", dims), "lead:i4")
        return (
            *(("v:f4", "u_plane:int") if self.fresh else tiles),
            *("u:f4", "y:f4", "tiles:int", "blocks:int", "y_tile:i4", *steps("y", dims)),
            "extent:i4",  # how many positions a tile stores along each dimension, a byte each
            *("channels:int", "leads:int", "columns:int", "group:int", "splits:int"),
            *("v_pitch:int", "v_plane:int", "m_pitch:int", "m_plane:int", "m_start:int"),
            *self.epilogue.arguments,
            *(f"in{i}_table:i4" for i in vectors),
            *(step for i in vectors for step in steps(f"in{i}", dims)),
        )

    def emit(self, k: Kernel) -> None:
        points = self.tile.count
        rows = k.leads * k.channels
        first, end = share(k.piece // k.splits, k.blocks, (k.tiles + (self.rows - 1)) // self.rows)
        first = first * self.rows
        count = k.minimum(k.tiles, end * self.rows) - first
        v, m = k.v + first * k.v_pitch if self.fresh else k.scratch, k.scratch + k.m_start
        if not self.fresh:
            with k.range(count) as tile:
                origin = k.x + (k.x_tile + (first + tile)).load()
                emit_input_transform(k, self.tile, origin, v + tile * k.v_pitch, k.v_plane)
        groups = (k.columns + (k.group - 1)) // k.group
        first_group, last_group = share(k.piece % k.splits, k.splits, groups)
        with k.range(last_group, first_group) as group:
            column = group * k.group
            width = k.minimum(k.columns - column, k.group)
            panels = (width + (PANEL - 1)) // PANEL
            if self.fresh:
                self._fresh_products(k, column, panels, v, m, count)
            else:
                u = k.u + column * rows * points
                with k.range(points) as point, k.range(panels) as panel:
                    b = u + (point * panels + panel) * rows * PANEL
                    target = m + (point * k.m_plane + panel * PANEL)
                    self._product(k, v + point * k.v_plane, b, target, count, rows, self._next_panel(b, rows))
            with k.range(count) as tile:
                self._output(k, m + tile * k.m_pitch, first + tile, column, width)

    def _fresh_products(self, k: Kernel, column: Expr, panels: Expr, v: Pointer, m: Pointer, count: Expr) -> None:
        """The products of the filters from `column` on, transformed chunk by chunk."""
        points, taps, u = self.tile.count, self.tile.filter_size, k.scratch
        rows = k.leads * k.channels
        x, panel_size = k.u + column * rows * taps, rows * PANEL * taps
        with k.range((rows + (CHUNK - 1)) // CHUNK) as chunk:
            start = chunk * CHUNK
            length = k.minimum(rows - start, CHUNK)
            with k.range(panels) as panel, k.range(length) as row:
                target = u + (panel * length + row) * PANEL
                emit_filter_transform(k, self.tile, x + panel * panel_size, start + row, target, k.u_plane)
            with k.range(points) as point, k.range(panels) as panel:
                b = u + (point * k.u_plane + panel * length * PANEL)
                a, target = v + (point * k.v_plane + start), m + (point * k.m_plane + panel * PANEL)
                ask = self._next_chunk(k, x + panel * panel_size, start + length, length, point)
                self._product(k, a, b, target, count, length, ask, chunk.equals(0))

    def _next_chunk(self, k: Kernel, x: Pointer, start: Expr, length: Expr, point: Expr) -> Ask:
        """Prefetch as many rows from `start` on, tap by tap; behind the last chunk, some for nothing."""
        points, taps = self.tile.count, self.tile.filter_size

        def ask(block: Expr, blocks: Expr, channel: Expr) -> None:
            each = points * blocks // taps
            turn = point * blocks + block
            row = start + turn % each * length // each
            place = (row // k.channels * taps + turn // each) * k.channels + row % k.channels
            (x + (place * PANEL + channel * (PANEL // UNROLL))).prefetch()

        return ask

    def _next_panel(self, b: Pointer, length: Expr) -> Ask:
        """Prefetch the panel behind `b`: a quarter of it a row tile; all where there are fewer than four of these."""
        k, size = b.kernel, length * PANEL

        def ask(block: Expr, blocks: Expr, channel: Expr) -> None:
            quarter = b + (size + (block % 4) * (size // 4))
            with k.either(blocks < UNROLL) as (few, many):
                with few:
                    for i in range(UNROLL):
                        (b + (size + (channel + i) * PANEL)).prefetch()
                with many:
                    (quarter + channel * (PANEL // UNROLL)).prefetch()

        return ask

    def _product(
        self,
        k: Kernel,
        a: Pointer,
        b: Pointer,
        m: Pointer,
        count: Expr,
        length: Expr,
        ask: Ask,
        fresh: Expr | None = None,
    ) -> None:
        """Rows of `a` (tiles) times one panel, added to what is there unless it is `fresh` (or None).

        `ask` is called on the way, every few steps of a row tile.
        """
        lanes, zero = k.target.lanes, k.constant(0.0)
        blocks = (count + (self.rows - 1)) // self.rows
        with k.range(blocks) as block:
            rows = [a + (block * self.rows + j) * k.v_pitch for j in range(self.rows)]

            def places() -> list[list[Pointer]]:
                lines = [m + (block * self.rows + j) * k.m_pitch for j in range(self.rows)]
                return [[line + v * lanes for v in range(self.vectors)] for line in lines]

            if fresh is None:
                sums = [[k.variable(zero) for _ in range(self.vectors)] for _ in rows]
            else:
                sums = [[k.variable(k.select(fresh, zero, place.vector())) for place in line] for line in places()]

            def step(channel: Expr) -> None:
                weights = [(b + (channel * PANEL + v * lanes)).vector() for v in range(self.vectors)]
                for j, row in enumerate(rows):
                    value = (row + channel).splat()
                    for v, weight in enumerate(weights):
                        sums[j][v].set(k.fma(value, weight, sums[j][v].get()))

            whole = length - length % UNROLL
            with k.range(whole, step=UNROLL) as channel:
                ask(block, blocks, channel)
                for i in range(UNROLL):
                    step(channel + i)
            with k.range(length, whole) as channel:
                step(channel)
            for line, totals in zip(places(), sums, strict=True):
                for place, total in zip(line, totals, strict=True):
                    place.store_vector(total.get())

    def _output(self, k: Kernel, m: Pointer, tile: Expr, column: Expr, width: Expr) -> None:
        """Transform a tile's products back and store what lies inside the image."""
        lanes, shape = k.target.lanes, self.tile
        extent = (k.extent + tile).load()
        stored = shape.outputs // self.pool
        full = sum(stored << (8 * axis) for axis in range(shape.dims))
        y = k.y + ((k.y_tile + tile).load() + column)
        sources = {
            i: k.args[f"in{i}"] + ((k.args[f"in{i}_table"] + tile).load() + column)
            for i in self.epilogue.indices("vector")
        }
        with k.range(width, step=lanes) as lane:
            left = width - lane
            values = shape.output(k, [(m + (k.m_plane * point + lane)).vector() for point in range(shape.count)])

            def output(place: Place) -> Expr:
                operands = []
                for index, kind in enumerate(self.epilogue.inputs):
                    if kind == "sum":
                        operands.append(values[place])
                    elif kind == "constant":
                        operands.append(k.splat(k.args[f"in{index}"]))
                    elif kind == "channel":
                        operands.append((k.args[f"in{index}"] + (column + lane)).vector())
                    else:
                        operands.append(moved(k, sources[index] + lane, f"in{index}", place).vector())
                [value] = self.epilogue.evaluate(k, operands)
                return value

            def store(place: Place, mask: Mask | None) -> None:
                corner = [self.pool * i for i in place]
                window = [
                    output(tuple(i + j for i, j in zip(corner, offset, strict=True)))
                    for offset in shape.places(self.pool)
                ]
                value = reduce(lambda a, b: FUNCTIONS["maximum"](k, a, b), window)
                moved(k, y + lane, "y", place).store_vector(value, mask)

            with k.either(extent.equals(full) & (left >= lanes)) as (inside, edge):
                with inside:
                    for place in shape.places(stored):
                        store(place, None)
                with edge:
                    mask = k.lane_mask(left)
                    counts = [(extent >> (8 * axis)) & 255 for axis in range(shape.dims)]
                    for place in shape.places(stored):
                        exists = counts[0] > place[0]
                        for n, i in zip(counts[1:], place[1:], strict=True):
                            exists = exists & (n > i)
                        with k.when(exists):
                            store(place, mask)


@dataclass(frozen=True)
class FilterGradientSum:
    """The filter gradient's middle: V^T Z of each point over the tiles of a slice.

    A piece (slice, group of filters) transforms blocks of X and dY into scratch and adds their products up in
    `y[slice, point, panel, (lead, channel), 16]`.
    """

    tile: Filtering
    """F(taps, outputs): tiles of X have all its points, those of dY are its filters."""
    rows: int
    vectors: int

    @property
    def arguments(self) -> tuple[str, ...]:
        return (
            *("x:f4", "dy:f4", "y:f4"),
            *("tiles:int", "block:int", "slices:int", "x_tile:i4", "dy_tile:i4"),
            *(*steps("x", self.tile.dims), *steps("dy", self.tile.dims)),
            *("channels:int", "lead:i4", "leads:int", "columns:int", "group:int", "groups:int", "panels:int"),
            *("v_pitch:int", "v_plane:int", "z_pitch:int", "z_plane:int", "z_start:int", "channel_rows:int"),
        )

    def emit(self, k: Kernel) -> None:
        lanes, shape = k.target.lanes, self.tile
        group, part = k.piece % k.groups, k.piece // k.groups
        column = group * k.group
        width = k.minimum(k.columns - column, k.group)
        panels = (width + (PANEL - 1)) // PANEL
        first, last = share(part, k.slices, k.tiles)
        v, z = k.scratch, k.scratch + k.z_start
        panel_size = k.channel_rows * PANEL
        y = k.y + (part * k.panels * shape.count + column // PANEL) * panel_size
        blocks = (last - first + (k.block - 1)) // k.block
        with k.range(blocks) as block:
            start = first + block * k.block
            count = k.minimum(last - start, k.block)
            with k.range(count) as tile:
                origin = k.x + (k.x_tile + (start + tile)).load()
                emit_input_transform(k, shape.transposed, origin, v + tile * k.v_pitch, k.v_plane)
                received = k.dy + ((k.dy_tile + (start + tile)).load() + column)
                with k.range(width, step=lanes) as lane:
                    found = {
                        place: moved(k, received + lane, "dy", place).vector() for place in shape.places(shape.taps)
                    }
                    for point, value in enumerate(shape.transformed_filter(k, found).values()):
                        (z + (tile * k.z_pitch + k.z_plane * point + lane)).store_vector(value)
            with k.range(shape.count) as position, k.range(panels) as panel:
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
    """Add the slices in order and transform back: to panels [panel][lead][tap][channel][16]."""

    tile: Filtering

    @property
    def arguments(self) -> tuple[str, ...]:
        return (
            *("x:f4", "y:f4", "slices:int", "channels:int", "leads:int"),
            *("panels:int", "columns:int", "channel_rows:int", "parts:int"),
        )

    def emit(self, k: Kernel) -> None:
        lanes, points, taps = k.target.lanes, self.tile.count, self.tile.outputs**self.tile.dims
        panel, part = k.piece // k.parts, k.piece % k.parts
        panel_size = k.channel_rows * PANEL
        plane = k.panels * panel_size
        first, last = share(part, k.parts, k.leads * k.channels)
        left = k.columns - panel * PANEL
        y = k.y + panel * k.leads * k.channels * (taps * PANEL)
        with k.range(last, first) as row, k.range(PANEL, step=lanes) as lane:
            source = k.x + (panel * panel_size + row * PANEL + lane)
            sums = [k.variable((source + plane * point).vector()) for point in range(points)]
            with k.range(k.slices, 1) as index:
                at = source + index * plane * points
                for point, total in enumerate(sums):
                    total.set(total.get() + (at + plane * point).vector())
            values = self.tile.output(k, [total.get() for total in sums])
            inside = k.lane_mask(left - lane)
            lead, channel = row // k.channels, row % k.channels
            for tap, value in enumerate(values.values()):
                place = y + (((lead * taps + tap) * k.channels + channel) * PANEL + lane)
                place.store_vector(k.select(inside, value, k.constant(0.0)))
