"""The compiler on one page: named rewrites of a graph, then the steps from graph to program.

sink        a ReLU moves behind the max-pool that follows it: the same numbers, fewer of them
expand      composite ops become pointwise ones
simplify    broadcasts that the next op does itself disappear
fold        factors and shifts a channel move into the filters before them (a batch norm's, in prediction)
share       equal values are computed once
fuse        pointwise chains join each other, products (epilogue) and reductions (prologue)
lower       each group becomes kernel calls; margins, packing and the split into pieces are decided
schedule, place  (`convolve.program`) calls get phases, memories get addresses
"""

from __future__ import annotations

from collections.abc import Callable

from convolve.graph import Graph
from convolve.lowering import Lowering
from convolve.passes.fuse import fuse
from convolve.passes.lower import lower, packed_leaves
from convolve.passes.rewrites import expand, fold, share, simplify, sink
from convolve.program import Program

REWRITES: tuple[Callable[[Graph], Graph], ...] = (expand, simplify, fold, share)
"""Rewrites of a program's graph, in order. `sink` comes before differentiation, so that gradients profit."""
UNFUSED = tuple(rewrite for rewrite in REWRITES if rewrite is not fold)
"""Those that leave every value with a name as it is."""


def compile_graph(graph: Graph, fused: bool = True, exact: bool = False) -> Program:
    """Turn a graph into a program.

    Args:
        graph: what to compute.
        fused: join pointwise ops to their neighbours; without, every value of the graph exists in memory.
        exact: compute convolutions directly, as they are defined.
    """
    for rewrite in REWRITES if fused else UNFUSED:
        graph = rewrite(graph)
    low: Lowering = lower(graph, fuse(graph, fused), exact)
    outputs = {name: low.buffer(value) for name, value in graph.outputs.items()}
    return Program.of(low.calls, outputs, low.stores)


__all__ = ["REWRITES", "compile_graph", "expand", "fold", "fuse", "lower", "packed_leaves", "share", "simplify", "sink"]
