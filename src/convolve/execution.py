"""Running programs: a linked program's words bound to addresses, one call into native code a run."""

from __future__ import annotations

import time
from collections.abc import Mapping, MutableMapping

import numpy as np

from convolve.errors import ConvolveError
from convolve.linked import ARENA, TABLES, WORDS, LinkedProgram, Place
from convolve.native.cache import address_of
from convolve.native.job import LINE
from convolve.native.workers import SCRATCH_BYTES, Table, aligned, pool
from convolve.program import Program, unpack


class Arena:
    """Memory that all programs of a network share, one run at a time."""

    def __init__(self) -> None:
        self.memory, self.address = aligned(0), 0
        self.poison = False

    def reserve(self, size: int) -> None:
        """Grow to at least `size` bytes."""
        if self.memory.nbytes < size:
            self.memory = aligned(0)
            self.memory = aligned(size, alignment=4096)
            self.address = int(self.memory.ctypes.data)


class Executable:
    """A program ready to run: its kernels in memory, its arguments bound to an arena and to stores.

    `prepared` holds what programs made of stores alone, by what it is: those that need the same share it.
    """

    def __init__(
        self,
        program: Program | LinkedProgram,
        arena: Arena,
        stores: Mapping[str, np.ndarray],
        prepared: MutableMapping[str, np.ndarray] | None = None,
        origin: Program | None = None,
    ) -> None:
        """`origin` is what was linked, where it is known."""
        self.linked = linked = program if isinstance(program, LinkedProgram) else LinkedProgram.of(program)
        self._program = origin if isinstance(program, LinkedProgram) else program
        self.arena, self.stores = arena, stores
        self.changes, self.outputs = linked.changes, tuple(linked.outputs)
        arena.reserve(linked.arena_bytes)
        self._words, self._tables = aligned(len(linked.words), np.int64), aligned(len(linked.tables))
        self._words[:], self._tables[:] = linked.words, linked.tables
        self._prepared = _shared(linked.prepared, {} if prepared is None else prepared)
        bounds = np.searchsorted(linked.slots[:, 1], np.arange(len(linked.regions) + 1))
        self._inputs: dict[str, list[tuple[int, int]]] = {}
        self._arena_slots = linked.slots[:0]
        for region, begin, end in zip(linked.regions, bounds[:-1], bounds[1:], strict=True):
            slots, (home, name) = linked.slots[begin:end], region
            if region == ARENA:
                self._arena_slots = slots
            elif home == "input":
                self._inputs[name] = [(slot, distance) for slot, _, distance in slots.tolist()]
            else:
                self._bind(slots, self._address(home, name))
        self.preparation, self.table = (self._table(*rows) for rows in linked.rows)
        self._version: int | None = None
        self._arena_address = 0
        self._views: dict[str, np.ndarray] = {}

    @property
    def program(self) -> Program:
        """What was compiled."""
        if self._program is None:
            raise ConvolveError("a program that comes from disk is numbers alone; compile it to look at its calls")
        return self._program

    def _address(self, home: str, name: str) -> int:
        if home == "kernel":
            return address_of(name)
        arrays = {WORDS: self._words, TABLES: self._tables}
        found = self._prepared[name] if home == "prepared" else arrays.get((home, name))
        return int((self.stores[name] if found is None else found).ctypes.data)

    def _bind(self, slots: np.ndarray, address: int) -> None:
        self._words[slots[:, 0]] = slots[:, 2] + address

    def _table(self, first: int, count: int, scratch: int) -> Table:
        """The rows that workers run."""
        rows = self._words[first : first + 4 * count].reshape(-1, 4)
        needed = -(-max(SCRATCH_BYTES, scratch) // 4096) * 4096
        return Table(rows, aligned(LINE * max(1, count), np.int64), needed)

    def run(self, inputs: Mapping[str, np.ndarray], threads: int, version: int = 0) -> None:
        """Run once. `inputs` are contiguous and of the program's shapes and types.

        What is made of stores alone is made anew where `version` is another than the last time.
        """
        self._bind_run(inputs)
        if self._version != version:
            if len(self.preparation.rows):
                pool().run(self.preparation, threads)
            self._version = version
        self._spoil()
        pool().run(self.table, threads)

    def measure(self, inputs: Mapping[str, np.ndarray], threads: int) -> list[float]:
        """Run once, call by call; the seconds of each. Between calls the threads meet, so the sum is above a run's."""
        self._bind_run(inputs)
        seconds = []
        for i in range(len(self.table.rows)):
            row = self.table.rows[i : i + 1].copy()
            row[0, 3] = 1
            single = Table(row, self.table.counters, self.table.scratch)
            began = time.perf_counter()
            pool().run(single, threads)
            seconds.append(time.perf_counter() - began)
        return seconds

    def _bind_run(self, inputs: Mapping[str, np.ndarray]) -> None:
        if missing := self._inputs.keys() - inputs.keys():
            raise ConvolveError(f"the program reads {', '.join(sorted(missing))}. Received: {', '.join(inputs)}")
        address = self.arena.address
        if address != self._arena_address:
            self._bind(self._arena_slots, address)
            self._arena_address = address
            self._views.clear()
        for name, array in inputs.items():
            at = array.ctypes.data
            for slot, offset in self._inputs.get(name, ()):
                self._words[slot] = at + offset

    def _spoil(self) -> None:
        if self.arena.poison:
            self.arena.memory[: self.arena.memory.size // 4 * 4].view(np.float32)[:] = np.nan

    def output(self, name: str) -> np.ndarray:
        """A copy of a named result, a weight's panels unpacked."""
        place = self.linked.outputs[name]
        view = self._views.get(name)
        if view is None:
            view = self._views[name] = self._view(place)
        return unpack(view, place.shape, place.panels) if place.panels else view.copy()

    def _view(self, place: Place) -> np.ndarray:
        """Where a result lies, seen as an array; a weight's panels flat."""
        home, name = place.region
        if home == "arena":
            flat = self.arena.memory[place.offset : place.offset + place.size * 4].view(np.float32)
        else:
            flat = self._prepared[name] if home == "prepared" else self.stores[name]
        if place.panels:
            return flat[: place.size]
        steps = tuple(4 * s for s in place.strides)
        return np.lib.stride_tricks.as_strided(flat[place.start :], place.shape, steps)


def _shared(needed: Mapping[str, int], known: MutableMapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of what is prepared: another program's where that prepares the same."""
    result = {}
    for name, count in needed.items():
        array = known.get(name)
        if array is None:
            array = known[name] = aligned(count, np.float32)
        result[name] = array
    return result
