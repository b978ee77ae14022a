"""Single convolutions: forward, gradient of the input and of the filters, each with its share of the CPU's peak.

    python benchmarks/layers.py --layers depthwise --json layers.json

A slow path cannot hide here behind a fast one: every row is one operation on one layer, beside PyTorch's fastest
memory format and, for grouped layers, beside our own dense layer of the same shape. Shares above 100 % are Winograd's:
the operations counted are those of the definition. Ours and PyTorch's process take turns. Needs PyTorch:
pip install 'convolve[peers]'.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import click
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from peers import Peer, machine

WAYS = ("forward", "input gradient", "filter gradient")
LEAST, SECONDS = 5, 0.3
"""Runs of an operation in a turn, and how long it takes."""


@dataclass(frozen=True)
class Case:
    """A layer over a batch: `shape` is (batch, *spatial, channels)."""

    shape: tuple[int, ...]
    filters: int
    kernel: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    transposed: bool = False

    @property
    def rank(self) -> int:
        return len(self.shape) - 2

    @property
    def padding(self) -> int:
        return 0 if self.transposed else self.dilation * (self.kernel - 1) // 2

    def dense(self) -> Case:
        """The same layer with every filter over all channels."""
        return replace(self, groups=1)

    def __str__(self) -> str:
        sizes = "x".join(map(str, self.shape[1:-1]))
        taps = "x".join([str(self.kernel)] * self.rank)
        return f"{self.shape[0]} of {sizes}, {self.shape[-1]} to {self.filters}, {taps}"


CASES = {
    "1-D": Case((16, 1000, 128), 128, 3),
    "1-D, 80 taps of one channel": Case((16, 16000, 1), 128, 80, stride=4),
    "1-D, dilation 4": Case((16, 1000, 64), 64, 3, dilation=4),
    "1-D, 8 groups": Case((16, 1000, 128), 128, 3, groups=8),
    "1-D, depthwise": Case((16, 1000, 128), 128, 9, groups=128),
    "1-D, transposed": Case((16, 250, 128), 64, 4, stride=4, transposed=True),
    "2-D": Case((8, 56, 56, 64), 64, 3),
    "2-D, one tap": Case((8, 28, 28, 256), 256, 1),
    "2-D, 7x7 of three channels": Case((8, 112, 112, 3), 64, 7, stride=2),
    "2-D, stride 2": Case((8, 56, 56, 64), 128, 3, stride=2),
    "2-D, dilation 2": Case((8, 56, 56, 64), 64, 3, dilation=2),
    "2-D, 32 groups": Case((8, 56, 56, 128), 128, 3, groups=32),
    "2-D, 4 groups": Case((8, 28, 28, 128), 128, 3, groups=4),
    "2-D, depthwise": Case((8, 56, 56, 128), 128, 3, groups=128),
    "2-D, depthwise, stride 2": Case((8, 56, 56, 128), 128, 3, stride=2, groups=128),
    "2-D, depthwise, small maps": Case((8, 8, 8, 576), 576, 3, groups=576),
    "2-D, transposed": Case((8, 28, 28, 128), 64, 2, stride=2, transposed=True),
    "3-D": Case((8, 16, 16, 16, 32), 64, 3),
    "3-D, one channel": Case((8, 24, 24, 24, 1), 16, 3),
    "3-D, dilation 2": Case((8, 16, 16, 16, 32), 32, 3, dilation=2),
    "3-D, 4 groups": Case((8, 16, 16, 16, 64), 64, 3, groups=4),
    "3-D, depthwise": Case((8, 16, 16, 16, 64), 64, 3, groups=64),
    "3-D, transposed": Case((8, 8, 8, 8, 64), 32, 2, stride=2, transposed=True),
}


@dataclass(frozen=True)
class Time:
    """Seconds of each of `WAYS`, and the operations a second that the CPU reaches at best."""

    seconds: tuple[float, ...]
    flops: int
    peak: float = math.nan


def arrays(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """An input and a weight, the same in every process."""
    random = np.random.default_rng(0)
    ends = (case.shape[-1], case.filters) if case.transposed else (case.filters, case.shape[-1])
    weight = (ends[0], *[case.kernel] * case.rank, ends[1] // case.groups)
    return random.standard_normal(case.shape, np.float32), random.standard_normal(weight, np.float32)


def ours(case: Case, threads: int) -> Time:
    """What the kernel calls of each operation take alone: their neighbours write margins and layouts they ask for."""
    from convolve.execution import Arena, Executable
    from convolve.graph import Graph, Value, apply, leaf
    from convolve.native.workers import aligned
    from convolve.ops.convolution import Convolution, FilterGradientOp, InputGradient
    from convolve.passes import compile_graph
    from convolve.view.explain import explain
    from convolve.window import resolve

    x, w = arrays(case)
    spatial = x.shape[1:-1]
    if case.transposed:
        spatial = tuple((n - 1) * case.stride + case.kernel for n in spatial)
    window = resolve(case.kernel, case.stride, case.dilation, case.padding, spatial)
    forward = Convolution(window, case.groups)
    backward = InputGradient(window, spatial, case.groups)
    first, second = (backward, forward) if case.transposed else (forward, backward)
    shape = first.shape(x.shape, w.shape)
    dy = np.random.default_rng(1).standard_normal(shape).astype(np.float32)

    def of(array: np.ndarray, name: str) -> Value:
        return leaf("input", name, array.shape) * 1.0

    def weight() -> Value:
        return leaf("parameter", "w", w.shape)

    sides = (of(dy, "dy"), of(x, "x")) if case.transposed else (of(x, "x"), of(dy, "dy"))
    values = (
        apply(first, of(x, "x"), weight(), label="layer"),
        apply(second, of(dy, "dy"), weight(), label="layer"),
        apply(FilterGradientOp(window, case.groups), *sides, label="layer"),
    )
    seconds, flops, peak = [], 0, 0.0
    for value in values:
        program = compile_graph(Graph({"result": value}))
        stores = {key: aligned(b.memory.size + 64, np.float32) for key, b in program.stores.items()}
        for key, store in stores.items():
            store[:] = 0.1 if key == "parameter:w" else 0.0
        found = explain(Executable(program, Arena(), stores), {"x": x, "dy": dy}, threads)
        rows = [row for row in found.rows if row.label == "layer"]
        seconds.append(sum(row.seconds for row in rows))
        flops, peak = max(flops, sum(row.flops for row in rows)), max(peak, found.peak_gflops * 1e9)
    return Time(tuple(seconds), flops, peak)


def theirs(case: Case, threads: int) -> Time:
    """PyTorch's times, in the faster of its memory formats."""
    import torch

    torch.set_num_threads(threads)
    x, w = (torch.from_numpy(np.ascontiguousarray(np.moveaxis(a, -1, 1))) for a in arrays(case))
    formats = [torch.contiguous_format, *[(), (torch.channels_last,), (torch.channels_last_3d,)][case.rank - 1]]
    best = [math.inf] * len(WAYS)
    for memory in formats:
        x, w = x.contiguous(memory_format=memory), w.contiguous(memory_format=memory)
        sizes = ([case.stride] * case.rank, [case.padding] * case.rank, [case.dilation] * case.rank)
        rest = (case.transposed, [0] * case.rank, case.groups)
        dy = torch.ops.aten.convolution(x, w, None, *sizes, *rest)

        def run(way: int) -> object:
            if not way:
                return torch.ops.aten.convolution(x, w, None, *sizes, *rest)  # noqa: B023 - called at once
            mask = [way == 1, way == 2, False]
            return torch.ops.aten.convolution_backward(dy, x, w, None, *sizes, *rest, mask)  # noqa: B023

        with torch.no_grad():
            found = [timed(lambda way=way: run(way)) for way in range(len(WAYS))]  # type: ignore[misc]
        best = [min(a, b) for a, b in zip(best, found, strict=True)]
    return Time(tuple(best), 0)


def timed(work: Callable[[], object]) -> float:
    """Median seconds of some runs, after one to warm up."""
    work()
    times: list[float] = []
    while len(times) < LEAST or sum(times) < SECONDS:
        began = perf_counter()
        work()
        times.append(perf_counter() - began)
    return median(times)


class Worker:
    """The child's side of a `Peer`."""

    def __init__(self, side: str, threads: int) -> None:
        self.side, self.threads = SIDES[side], threads

    def times(self, case: Case) -> Time:
        return self.side(case, self.threads)


SIDES: dict[str, Callable[[Case, int], Time]] = {"convolve": ours, "PyTorch": theirs}


@dataclass(frozen=True)
class Result:
    """A layer's times: ours, PyTorch's, and those of our dense layer of the same shape where the layer has groups."""

    name: str
    case: Case
    ours: Time
    theirs: Time
    dense: Time | None


def merged(turns: Sequence[Time]) -> Time:
    columns = zip(*(t.seconds for t in turns), strict=True)
    return Time(tuple(median(c) for c in columns), turns[0].flops, max(t.peak for t in turns))


def measure(name: str, case: Case, mine: Peer, other: Peer, rounds: int) -> Result:
    """Turns of each side; medians of them."""
    turns: list[tuple[Time, Time, Time | None]] = [
        (
            mine.ask("times", case),
            other.ask("times", case),
            mine.ask("times", case.dense()) if case.groups > 1 else None,
        )
        for _ in range(rounds)
    ]
    own, foreign, dense = zip(*turns, strict=True)
    return Result(name, case, merged(own), merged(foreign), merged(dense) if case.groups > 1 else None)


def show(results: Sequence[Result]) -> None:
    """Print the table as Markdown."""
    table = Table(title="One operation on one layer", box=box.MARKDOWN)
    for heading in ("layer", "shape", "operation", "ms", "GFLOP/s", "of peak", "PyTorch, ms", "ratio", "dense by it"):
        table.add_column(heading, justify="left" if heading in ("layer", "shape", "operation") else "right")
    for result in results:
        for i, way in enumerate(WAYS):
            seconds, foreign = result.ours.seconds[i], result.theirs.seconds[i]
            speed = result.ours.flops / seconds
            table.add_row(
                *((result.name, str(result.case)) if not i else ("", "")),
                *(way, f"{1e3 * seconds:.3f}", f"{speed / 1e9:.0f}", f"{speed / result.ours.peak:.0%}"),
                *(f"{1e3 * foreign:.3f}", f"{foreign / seconds:.2f}"),
                f"{result.dense.seconds[i] / seconds:.2f}" if result.dense else "",
            )
    Console(width=160).print(table)


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--layers", default="", help="Only layers whose names contain this.")
@click.option("--rounds", default=3, show_default=True, help="Turns of each side.")
@click.option("--threads", default=2, show_default=True)
@click.option("--json", "path", type=click.Path(path_type=Path), help="File for the results.")
def main(layers: str, rounds: int, threads: int, path: Path | None) -> None:
    chosen = {name: case for name, case in CASES.items() if layers in name}
    if not chosen:
        raise click.BadParameter(f"{layers!r} is in none of: {'; '.join(CASES)}", param_hint="--layers")
    mine, other = (Peer(Worker, side, threads) for side in SIDES)
    results = []
    for name, case in chosen.items():
        click.echo(f"{name} ...", err=True)
        results.append(measure(name, case, mine, other, rounds))
    facts = machine(threads)
    click.echo(", ".join(f"{name} {value}" for name, value in facts.items()))
    show(results)
    if path:
        rows: list[Any] = [asdict(result) for result in results]
        path.write_text(json.dumps({"machine": facts, "results": rows}, indent=2))


if __name__ == "__main__":
    main()
