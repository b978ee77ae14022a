"""Programs: tables of kernel calls over one arena of memory.

Lowering an op appends `Call`s; `Memory` is what they read and write, `Buffer` a strided view of it. A finished
`Program` is plain data (printable, testable) that workers run in lock step: calls of one phase touch nothing of each
other's and meet at one barrier.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from convolve.native.target import PANEL

if TYPE_CHECKING:
    from convolve.window import Pads

ITEM = {"f4": 4, "i4": 4, "u1": 1, "i8": 8}
SLACK = 64
"""Floats behind every memory that kernels may read (never write) past its end."""
ALIGN = 64


@dataclass(eq=False)
class Memory:
    """A piece of memory: `arena` lives within one run, `store` between runs, `input` is the caller's for one run.

    `prepared` is made of stores alone, and lives until one of these changes; `scratch` is a thread's own, for a piece.
    """

    name: str
    size: int
    dtype: str = "f4"
    home: str = "arena"
    offset: int = -1

    @property
    def bytes(self) -> int:
        return (self.size + SLACK) * ITEM[self.dtype]


@dataclass(frozen=True, eq=False)
class Buffer:
    """A view of memory: element `index` lies at `start + sum(index * strides)`.

    With `panels` a weight (filters, *kernel, channels) lies packed as (filters / PANEL, *kernel, channels, PANEL): so
    many groups of filters, each in panels of its own.
    """

    memory: Memory
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    start: int = 0
    pads: Pads = ()
    panels: int = 0

    @property
    def contiguous(self) -> bool:
        return not self.panels and self.strides == row_major(self.shape)

    def part(self, shape: tuple[int, ...], axis: int, at: int) -> Buffer:
        """The positions from `at` on along an axis, a view: with the margins where it is channels that are chosen."""
        pads = self.pads if axis == len(self.shape) - 1 else ()
        return replace(self, shape=shape, start=self.start + at * self.strides[axis], pads=pads)

    def unfolded(self, shape: tuple[int, ...]) -> Buffer:
        """A view with the last dimension as several."""
        last = len(self.shape) - 1
        return Buffer(self.memory, shape, (*self.strides[:last], *row_major(shape[last:])), self.start)


@dataclass(frozen=True)
class At:
    """A kernel argument: the address of an element of a memory."""

    memory: Memory
    index: int = 0


Argument = At | int | float | np.ndarray


@dataclass(eq=False)
class Call:
    """One kernel over `pieces` shares of work that any thread may claim."""

    spec: Any
    arguments: Mapping[str, Argument]
    pieces: int
    writes: tuple[Memory, ...]
    label: str
    algorithm: str
    flops: int = 0
    scratch: int = 0
    disjoint: bool = False
    """Whether it writes other places of its memory than the calls before it that wrote there."""
    stages: tuple[tuple[Call, ...], ...] = ()
    """For each piece of a chain, what it runs; one argument of each of these lies in memory of home `scratch`."""
    phase: int = -1

    @property
    def joins(self) -> bool:
        """Whether it may run beside the calls before it that wrote to its memory: it does not read there, either."""
        places = self._places
        return self.disjoint and all(places.count(memory) == 1 for memory in self.writes)

    @property
    def memories(self) -> list[Memory]:
        return list(dict.fromkeys(self._places))

    @property
    def _places(self) -> list[Memory]:
        """Every memory that is an argument; for a chain, those of one piece stand for all."""
        calls = (self, *(self.stages[0] if self.stages else ()))
        found = [a.memory for call in calls for a in call.arguments.values() if isinstance(a, At)]
        return [memory for memory in found if memory.home != "scratch"]

    @property
    def reads(self) -> list[Memory]:
        return [m for m in self.memories if m not in self.writes]


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of a contiguous array, in elements."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))


def padded(name: str, shape: tuple[int, ...], pads: Pads = (), dtype: str = "f4") -> Buffer:
    """A channels-last buffer (n, *spatial, channels) with margins of `pads` around its spatial dimensions."""
    pads = pads or ((0, 0),) * max(0, len(shape) - 2)
    sizes = list(shape)
    if len(shape) > 2:
        sizes[1:-1] = [n + lo + hi for n, (lo, hi) in zip(shape[1:-1], pads, strict=True)]
    strides = list(row_major(sizes))
    size = int(np.prod(sizes, dtype=np.int64))
    # Images whose pitch is a multiple of the page fall on the same cache sets; a little more spreads them.
    if len(shape) > 1 and shape[0] > 1 and strides[0] % 1024 == 0:
        strides[0] += PANEL
        size = shape[0] * strides[0]
    start = sum(lo * s for (lo, _), s in zip(pads, strides[1:-1], strict=True)) if len(shape) > 2 else 0
    return Buffer(Memory(name, size, dtype), shape, tuple(strides), start, pads if len(shape) > 2 else ())


def packed(memory_name: str, shape: tuple[int, ...], groups: int = 1, home: str = "arena") -> Buffer:
    """Filter panels for a weight (filters, *kernel, channels), those of each group apart."""
    filters, *rest = shape
    size = groups * -(-filters // groups // PANEL) * PANEL * int(np.prod(rest, dtype=np.int64))
    return Buffer(Memory(memory_name, size, home=home), shape, (), panels=groups)


def pack(weight: np.ndarray, groups: int = 1) -> np.ndarray:
    """(filters, *kernel, channels) to panels, flat; missing filters are zero.

    >>> pack(np.arange(6.0, dtype=np.float32).reshape(3, 1, 2)).reshape(2, PANEL)[:, :3]
    array([[0., 2., 4.],
           [1., 3., 5.]], dtype=float32)
    """
    panels = np.zeros(packed("", weight.shape, groups).memory.size, np.float32)
    pack_into(panels, weight, groups)
    return panels


def pack_into(panels: np.ndarray, weight: np.ndarray, groups: int = 1) -> None:
    """As `pack`, into panels that hold zeros where filters are missing; the weight may lie in any order."""
    filters, *rest = weight.shape
    each = filters // groups
    blocks, left = divmod(each, PANEL)
    by_group = panels.reshape(groups, -1)
    whole = by_group[:, : blocks * PANEL * math.prod(rest)].reshape(groups, blocks, *rest, PANEL)
    grouped = weight.reshape(groups, each, *rest)
    whole[...] = np.moveaxis(grouped[:, : blocks * PANEL].reshape(groups, blocks, PANEL, *rest), 2, -1)
    if left:
        last = by_group[:, blocks * PANEL * math.prod(rest) :].reshape(groups, *rest, PANEL)
        last[..., :left] = np.moveaxis(grouped[:, blocks * PANEL :], 1, -1)


def unpack(panels: np.ndarray, shape: tuple[int, ...], groups: int = 1) -> np.ndarray:
    """The inverse of `pack`: always a copy."""
    filters = shape[0] // groups
    blocks = -(-filters // PANEL)
    rows = panels.reshape(groups * blocks, -1, PANEL).transpose(0, 2, 1).reshape(groups, blocks * PANEL, -1)
    return rows[:, :filters].copy().reshape(shape)


def schedule(calls: Sequence[Call]) -> int:
    """Give each call a phase, the earliest its reads and writes allow; returns the number of phases.

    A call comes after the writer of what it reads, and after the readers and the writer of what it overwrites.
    """
    began: dict[Memory, int] = {}
    written: dict[Memory, int] = {}
    read: dict[Memory, int] = {}
    for call in calls:
        joins = {m for m in call.writes if call.joins and m in written}
        phase = max((written.get(m, -1) + 1 for m in call.reads), default=0)
        for memory in call.writes:
            free = began[memory] if memory in joins else max(written.get(memory, -1), read.get(memory, -1)) + 1
            phase = max(phase, free)
        call.phase = phase
        for memory in call.reads:
            read[memory] = max(read.get(memory, -1), phase)
        for memory in call.writes:
            written[memory] = max(written.get(memory, -1), phase)
            began[memory] = began[memory] if memory in joins else phase
    _delay(calls)
    used = {phase: i for i, phase in enumerate(sorted({call.phase for call in calls}))}
    for call in calls:
        call.phase = used[call.phase]
    return len(used)


def _delay(calls: Sequence[Call]) -> None:
    """Let calls that make much from little (margins, transformed filters) wait until they are needed: memory rests."""
    read: dict[Memory, int] = {}
    free: dict[Memory, int] = {}
    written: dict[Memory, int] = {}
    for call in reversed(calls):
        bounds = [read[m] - 1 for m in call.writes if m in read] + [free[m] for m in call.writes if m in free]
        needed = sum(m.bytes for m in call.reads if m.home == "arena")
        if bounds and 2 * needed <= sum(m.bytes for m in call.writes):
            bounds += [written[m] - 1 for m in call.reads if m in written]
            call.phase = max(call.phase, min(bounds))
        for memory in call.reads:
            read[memory] = min(read.get(memory, call.phase), call.phase)
        for memory in call.writes:
            latest = call.phase if call.joins else call.phase - 1
            free[memory] = min(free.get(memory, latest), latest)
            written[memory] = min(written.get(memory, call.phase), call.phase)


def place(calls: Iterable[Call], outputs: Iterable[Memory], phases: int) -> int:
    """Give every arena memory an offset so that what is alive at once never overlaps; returns the arena's bytes.

    Largest first, each at the lowest gap among those alive with it (Sekiyama et al., 2018, best-fit heuristic).
    """
    life: dict[Memory, list[int]] = {}
    for call in calls:
        for memory in call.memories:
            if memory.home == "arena":
                span = life.setdefault(memory, [call.phase, call.phase])
                span[0], span[1] = min(span[0], call.phase), max(span[1], call.phase)
    for memory in outputs:
        if memory in life:
            life[memory][1] = phases
    placed: list[tuple[int, int, list[int]]] = []
    total = 0
    for memory, (first, final) in sorted(life.items(), key=lambda item: -item[0].bytes):
        size = -(-memory.bytes // ALIGN) * ALIGN
        offset = 0
        for start, end, (a, b) in placed:
            if a <= final and first <= b:
                if offset + size <= start:
                    break
                offset = max(offset, end)
        memory.offset = offset
        placed.append((offset, offset + size, [first, final]))
        placed.sort(key=lambda p: p[0])
        total = max(total, offset + size)
    return total


CONSTANT = ("parameter", "statistic", "constant")
"""Kinds of stores that change now and then, not with every run."""


def prepared(calls: Sequence[Call], stores: Mapping[str, Buffer]) -> list[Call]:
    """The calls whose results depend on nothing but stores that no call writes: on weights, mostly.

    Filters transformed and packed, batch norm folded into them, numbers known when the graph was built.
    """
    written = {m for call in calls for m in call.writes}
    fixed = {b.memory for key, b in stores.items() if key.partition(":")[0] in CONSTANT} - written
    varying = {m for m in written if m.home != "arena"}
    while True:
        known = len(varying)
        for call in calls:
            if not all(m in fixed or (m in written and m not in varying) for m in call.memories):
                varying |= set(call.writes)
        if len(varying) == known:
            return [call for call in calls if varying.isdisjoint(call.writes)]


@dataclass
class Program:
    """Calls in order of their phases, and where the named results lie.

    `preparation` is what need not be computed again until a parameter or statistic changes.
    """

    calls: list[Call]
    outputs: dict[str, Buffer]
    arena_bytes: int = 0
    phases: int = 0
    stores: dict[str, Buffer] = field(default_factory=dict)
    preparation: list[Call] = field(default_factory=list)

    @property
    def changes(self) -> bool:
        """Whether a run changes what others may have prepared something of."""
        kept = {b.memory for key, b in self.stores.items() if key.partition(":")[0] in CONSTANT}
        return any(memory in kept for call in self.calls for memory in call.writes)

    @classmethod
    def of(cls, calls: list[Call], outputs: dict[str, Buffer], stores: dict[str, Buffer]) -> Program:
        early = prepared(calls, stores)
        known = set(early)
        main = [call for call in calls if call not in known]
        needed = {m for call in main for m in call.memories} | {b.memory for b in outputs.values()}
        for memory in {m for call in early for m in call.writes} & needed:
            memory.home = "prepared"
        first, ordered = (_in_phases(part) for part in (early, main))
        size = max(place(first, [], len(first)), place(ordered, [b.memory for b in outputs.values()], len(ordered)))
        phases = len({call.phase for call in ordered})
        return cls(ordered, outputs, size, phases, stores, first)


def _in_phases(calls: Sequence[Call]) -> list[Call]:
    schedule(calls)
    return sorted(calls, key=lambda c: c.phase)
