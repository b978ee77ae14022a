"""Which layers of a net are drawn, and which of them each reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from convolve import layers
from convolve.view.anatomy import Anatomy, passes


def reads(anatomy: Anatomy) -> dict[str, tuple[str, ...]]:
    """The layers that are drawn, each after those it reads, and what these are.

    Of blocks, only those that do something themselves, as adding up their sides; what just holds others is not drawn.
    """
    found: dict[str, tuple[str, ...]] = {}
    handed: dict[str, list[str]] = {}
    for path in _finished(anatomy.rows):
        row = anatomy.rows[path]
        sources = anatomy.inside(row)
        if not passes(row) and anatomy.known[row.output.serial] != path:
            continue
        found[path] = tuple(dict.fromkeys(_handed(name, path, handed) for name in sources)) or (
            next(iter(anatomy.inputs)),
        )
        if passes(row) and not holds(path, anatomy.rows):
            for name in sources:
                handed.setdefault(name, []).append(path)
    return found


def _handed(name: str, reader: str, handed: Mapping[str, Sequence[str]]) -> str:
    """The last layer within the reader's block that hands the result of `name` on as it is, or `name` itself."""
    around = reader.rpartition(".")[0]
    for path in reversed(handed.get(name, ())):
        block = path.rpartition(".")[0]
        if not block or around == block or around.startswith(f"{block}."):
            return path
    return name


def _finished(rows: Mapping[str, layers.Row]) -> Iterator[str]:
    """Names of layers in the order in which they are done: blocks after what is in them."""
    open_blocks: list[str] = []
    for path in rows:
        while open_blocks and not path.startswith(f"{open_blocks[-1]}."):
            yield open_blocks.pop()
        open_blocks.append(path)
    yield from reversed(open_blocks)


def holds(path: str, rows: Mapping[str, layers.Row]) -> bool:
    """Whether a layer is a block around others."""
    return any(other.startswith(f"{path}.") for other in rows)
