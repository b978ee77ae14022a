"""Where each layer stands when a net is drawn: layers below each other, branches beside each other, repeats folded.

A layer's row is the longest way to it from the input (as in Sugiyama, Tagawa and Toda, 1981; nets are narrow, so that
nothing is done about crossings). It stands below the first layer that it reads, or in the next column that is free
there. An edge that passes rows takes a lane of its own, so that no edge runs through a layer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from convolve import layers
from convolve.graph import Shape
from convolve.network import Network
from convolve.ops.convolution import Convolution, InputGradient
from convolve.ops.pool import Pool
from convolve.view.anatomy import Anatomy, passes
from convolve.view.flow import holds, reads
from convolve.view.summary import Row, described
from convolve.view.text import by

LONG = 24
"""Layers from which on repeats are folded."""
LONGEST_REPEAT = 64
"""Layers of a block that is looked for again."""


@dataclass(frozen=True)
class Place:
    """A layer and where it stands."""

    layer: str
    """Its name; the net's inputs are called as in `Anatomy.inputs`."""
    kind: str
    row: int
    column: int
    input_shape: Shape
    """What it reads first, without the batch."""
    output_shape: Shape
    summary: Row | None
    """What the summary says; None of the input."""
    detail: str = ""
    """What its window is like: kernel, and stride, dilation and groups where these are not 1."""
    followers: tuple[str, ...] = ()
    """Kinds of the norms, activations and dropout behind it that share its place."""
    own_parameters: int = 0
    """Those of the layer and of what shares its place, without those of layers in it."""

    @property
    def dense_multiply_adds(self) -> int:
        """What a fully-connected layer between the same shapes would take, and as many weights."""
        return int(np.prod(self.input_shape, dtype=np.int64) * np.prod(self.output_shape, dtype=np.int64))


@dataclass(frozen=True)
class Edge:
    """What one layer reads of another."""

    source: str
    target: str
    lane: int | None
    """The column it passes the rows between in; None where nothing is between."""


@dataclass(frozen=True)
class Fold:
    """Layers that come several times, one after the other; the first time is shown."""

    times: int
    shown: tuple[str, ...]
    hidden: tuple[tuple[str, ...], ...]
    """Each further time."""


@dataclass(frozen=True)
class Layout:
    """A net as a drawing: its layers in order, each after those it reads.

    >>> from convolve import Conv, Model, ReLU, Residual, Sequential
    >>> model = Model(Sequential(Conv(8, 3), Residual(Conv(8, 3), ReLU())), input_shape=(9, 9, 1))
    >>> [(place.layer, place.row, place.column) for place in layout(model.network).places]
    [('', 0, 0), ('conv1', 1, 0), ('residual1.conv1', 2, 0), ('residual1.relu1', 3, 0), ('residual1', 4, 0)]
    >>> layout(model.network).edges[-1]
    Edge(source='conv1', target='residual1', lane=1)
    """

    places: tuple[Place, ...]
    edges: tuple[Edge, ...]
    folds: tuple[Fold, ...]
    rows: int
    columns: int

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        places = [asdict(place) | {"dense_multiply_adds": place.dense_multiply_adds} for place in self.places]
        return asdict(self) | {"places": places}


def layout(
    network: Network, fold: bool | None = None, together: bool = False, anatomy: Anatomy | None = None
) -> Layout:
    """Find a place for every layer of a network.

    Args:
        fold: blocks that come again, or not; by default where the net is long.
        together: let norms, activations and dropout share the place of the layer before them, whose only readers
            they are.
        anatomy: of the network, where it is at hand.
    """
    anatomy = anatomy or Anatomy(network)
    read = reads(anatomy)
    folds = list(_repeats(anatomy, read)) if (len(read) > LONG if fold is None else fold) else []
    stands_for = {copy: kept for f in folds for layers in f.hidden for copy, kept in zip(layers, f.shown, strict=True)}
    shown = {
        layer: tuple(dict.fromkeys(stands_for.get(name, name) for name in sources))
        for layer, sources in read.items()
        if layer not in stands_for
    }
    followers: dict[str, tuple[str, ...]] = {}
    if together:
        shown, followers = _joined(anatomy, shown, folds)
    cells = _cells(shown, tuple(anatomy.inputs))
    edges, columns = _edges(shown, cells)
    return Layout(
        places=tuple(_place(anatomy, layer, *cells[layer], followers.get(layer, ())) for layer in cells),
        edges=tuple(edges),
        folds=tuple(folds),
        rows=1 + max(row for row, _ in cells.values()),
        columns=columns,
    )


def _place(anatomy: Anatomy, layer: str, row: int, column: int, followers: tuple[str, ...]) -> Place:
    if layer in anatomy.inputs:
        shape = anatomy.inputs[layer].shape[1:]
        return Place(layer, "Input", row, column, shape, shape, None)
    built = anatomy.row(layer)
    made = described(built, anatomy.fields)
    read = built.inputs[0].shape[1:] if built.inputs else ()
    return Place(
        layer=layer,
        kind=made.kind,
        row=row,
        column=column,
        input_shape=read,
        output_shape=made.output_shape,
        summary=made,
        detail=_detail(anatomy, built),
        followers=tuple(anatomy.rows[name].layer.title() for name in followers),
        own_parameters=sum(
            described(anatomy.rows[name], anatomy.fields).parameters
            for name in (layer, *followers)
            if not holds(name, anatomy.rows)
        ),
    )


def _detail(anatomy: Anatomy, row: layers.Row) -> str:
    """The window among a layer's own ops."""
    for value in anatomy.own(row):
        op = value.op
        if isinstance(op, (Convolution, InputGradient, Pool)) and op.window.rank:
            window, groups = op.window, getattr(op, "groups", 1)
            said = [by(window.kernel)]
            for name, numbers in (("stride", window.stride), ("dilation", window.dilation)):
                if set(numbers) != {1} and not (isinstance(op, Pool) and numbers == window.kernel):
                    said.append(f"{name} {numbers[0] if len(set(numbers)) == 1 else by(numbers)}")
            return ", ".join([*said, *([f"{groups} groups"] if groups > 1 else [])])
    return ""


def _joined(
    anatomy: Anatomy, reads: Mapping[str, tuple[str, ...]], folds: Sequence[Fold]
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """Layers without those that only follow one, and who follows whom."""
    block = {layer: number for number, fold in enumerate(folds) for layer in fold.shown}
    readers = Counter(name for sources in reads.values() for name in sources)
    leader: dict[str, str] = {}
    kept: dict[str, tuple[str, ...]] = {}
    for layer, sources in reads.items():
        row = anatomy.rows[layer]
        first = sources[0]
        alone = (
            len(sources) == 1
            and first not in anatomy.inputs
            and readers[first] == 1
            and block.get(first) == block.get(layer)
        )
        pointwise = passes(row) or anatomy.function_of(row) is not None
        if alone and pointwise and row.output.shape == anatomy.rows[first].output.shape:
            leader[layer] = leader.get(first, first)
        else:
            kept[layer] = tuple(dict.fromkeys(leader.get(name, name) for name in sources))
    followers = {name: tuple(layer for layer in leader if leader[layer] == name) for name in set(leader.values())}
    return kept, followers


# repeats


def _repeats(anatomy: Anatomy, reads: Mapping[str, tuple[str, ...]]) -> Iterator[Fold]:
    """Runs of layers that come again right behind themselves, of the same kinds, shapes and parameters.

    They begin with a layer that has parameters, as people see blocks. Nobody outside reads any of them but the last,
    and they read nothing outside but what comes right before them.
    """
    names = list(reads)
    number = {name: i for i, name in enumerate(names)} | dict.fromkeys(anatomy.inputs, -1)
    looks: dict[object, int] = {}
    last_reader = dict.fromkeys(range(-1, len(names)), -1)
    alike, reach, begins = [], [], []
    for i, (name, sources) in enumerate(reads.items()):
        row = described(anatomy.rows[name], anatomy.fields)
        away = tuple(i - number[source] for source in sources)
        look = (row.kind, row.output_shape, row.pads, row.parameters, row.multiply_adds, away)
        alike.append(looks.setdefault(look, len(looks)))
        reach.append(max(away, default=0))
        begins.append(row.parameters > 0)
        for source in sources:
            last_reader[number[source]] = i
    at = 0
    while at < len(names):
        length, times = _best(alike, reach, last_reader, at) if begins[at] else (1, 1)
        if times > 1:
            copies = [tuple(names[at + n * length : at + (n + 1) * length]) for n in range(times)]
            yield Fold(times, copies[0], tuple(copies[1:]))
        at += max(1, length * times)


def _best(alike: Sequence[int], reach: Sequence[int], last_reader: Mapping[int, int], at: int) -> tuple[int, int]:
    """Length and number of the repeats from `at` on that hide most; (1, 1) for none."""
    best = (1, 1)
    for length in range(2, min(LONGEST_REPEAT, (len(alike) - at) // 2) + 1):
        first = alike[at : at + length]
        times = 1
        while alike[at + times * length : at + (times + 1) * length] == first:
            times += 1
        while times > 1 and not _closed(reach, last_reader, at, length, times):
            times -= 1
        if length * (times - 1) > best[0] * (best[1] - 1):
            best = (length, times)
    return best


def _closed(reach: Sequence[int], last_reader: Mapping[int, int], at: int, length: int, times: int) -> bool:
    for i in range(at, at + length * times):
        within = (i - at) % length
        if reach[i] > within + 1 or (within < length - 1 and last_reader[i] >= i - within + length):
            return False
    return all(last_reader[at + n * length - 1] < at + (n + 1) * length for n in range(1, times))


# cells


def _cells(reads: Mapping[str, tuple[str, ...]], inputs: Sequence[str]) -> dict[str, tuple[int, int]]:
    """A row and a column for each layer, and for the inputs."""
    cells = {name: (0, column) for column, name in enumerate(inputs)}
    taken = set(cells.values())
    for layer, sources in reads.items():
        row = 1 + max(cells[name][0] for name in sources)
        column = cells[sources[0]][1]
        while (row, column) in taken:
            column += 1
        cells[layer] = (row, column)
        taken.add((row, column))
    return cells


def _edges(reads: Mapping[str, tuple[str, ...]], cells: Mapping[str, tuple[int, int]]) -> tuple[list[Edge], int]:
    """All edges, the short ones nearest to the layers, and how many columns all of it takes."""
    pairs = [(source, layer) for layer, sources in reads.items() for source in sources]
    taken = set(cells.values())
    lanes: dict[tuple[str, str], int] = {}
    for source, target in sorted(pairs, key=lambda pair: cells[pair[1]][0] - cells[pair[0]][0]):
        between = range(cells[source][0] + 1, cells[target][0])
        if not between:
            continue
        wanted = cells[target][1] if cells[source][1] == cells[target][1] else max(cells[source][1], cells[target][1])
        column = next(c for c in range(wanted, wanted + len(taken) + 1) if all((r, c) not in taken for r in between))
        lanes[source, target] = column
        taken |= {(row, column) for row in between}
    edges = [Edge(source, target, lanes.get((source, target))) for source, target in pairs]
    return edges, 1 + max(column for _, column in taken)
