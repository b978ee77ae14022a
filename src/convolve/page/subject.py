"""What is looked into: a net with its arrays, and samples to look at; and what the page says of it first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from convolve.data.arrays import as_images, as_labels
from convolve.data.dataset import Task
from convolve.errors import ConvolveError, ShapeError
from convolve.graph import Shape
from convolve.network import Network
from convolve.page.outline import Node, folds, nodes
from convolve.page.pictures import value_range
from convolve.page.study import Studies
from convolve.page.watch import Watched
from convolve.port import sample_shape
from convolve.view.anatomy import Anatomy
from convolve.view.filters import Change, compare, with_filters
from convolve.view.pixel import Traced
from convolve.view.summary import Field, summarise
from convolve.view.text import by

MADE_UP = "A picture made up for the page"
"""Where a sample is from that nobody gave."""


@dataclass(frozen=True, eq=False)
class Subject:
    """What is looked into: a net with its arrays, and samples to look at."""

    network: Network
    title: str
    classes: tuple[str, ...] | None = None
    samples: np.ndarray = field(default_factory=lambda: np.empty(0))
    """(n, *input_shape), uint8 or float32: at least one."""
    beside: tuple[np.ndarray, ...] = ()
    """As many for each further input of the net."""
    labels: np.ndarray | None = None
    task: Task = "classify"
    """What the net has learnt to give."""
    source: str = ""
    """Where the samples are from, in words."""
    file: Path | None = None
    """The model's file: what is measured of it is kept beside it."""
    watched: Watched | None = None
    """The training that it comes from, or is in."""
    other: Network | None = None
    """Another checkpoint of the same net, to compare with."""
    other_title: str = ""
    rate: int | None = None
    """Samples a second of the sounds that it was trained on."""
    note: str = ""
    """What else is to be said of it."""

    @cached_property
    def changes(self) -> dict[str, Change]:
        """How much the filters of each layer changed from this net to the other."""
        return {c.layer: c for c in compare(self.network, self.other)} if self.other else {}

    @cached_property
    def studies(self) -> Studies:
        """What is measured of its layers' filters, in the background."""
        return Studies(self.network, self.samples, self.labels, self.file)

    @cached_property
    def anatomy(self) -> Anatomy:
        return Anatomy(self.network)

    @cached_property
    def first(self) -> Traced:
        """The activations for the first samples, which everybody sees first."""
        return Traced(self.network, [samples[:1] for samples in self.given], self.anatomy)

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        return nodes(self.anatomy)

    @cached_property
    def filtered(self) -> frozenset[str]:
        """Layers that have filters."""
        return frozenset(with_filters(self.anatomy))

    @property
    def given(self) -> tuple[np.ndarray, ...]:
        """The samples of each input."""
        return (self.samples, *self.beside)

    @cached_property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """The values of each input that count as black and as white: those of bytes, or the least and the largest."""
        return tuple(value_range(samples) for samples in self.given)

    @cached_property
    def fields(self) -> tuple[dict[int, Field], ...]:
        """What each value sees of each input, by serial."""
        return tuple(self.anatomy.fields_on(i) for i in range(len(self.given)))

    def class_name(self, number: int) -> str:
        return self.classes[number] if self.classes else str(number)

    @cached_property
    def outline(self) -> dict[str, Any]:
        """The net as the page draws it, in JSON."""
        network = self.network
        summary = summarise(network.net, network.bound)
        rows = {row.path: row for row in summary.rows}
        built = self.anatomy.forward
        drawn = []
        for node in self.nodes:
            row = rows[node.path]
            drawn.append(
                node.as_dict()
                | {"pads": row.pads, "sees": row.receptive_field}
                | ({"winograd": False} if network.exact else {})
            )
        return {
            "title": self.title,
            "inputs": [
                {"name": port.name, "source": source, "shape": samples.shape[1:], "range": values}
                for port, source, samples, values in zip(
                    network.ports, self.anatomy.inputs, self.given, self.ranges, strict=True
                )
            ],
            "classes": self.classes,
            "nodes": drawn,
            "folds": [vars(fold) for fold in folds(self.nodes, built.construction.rows)],
            "parameters": summary.parameters,
            "multiply_adds": summary.multiply_adds,
            "other": self.other_title if self.other else None,
            "training": self.watched is not None,
            "samples": len(self.samples),
            "labels": None if self.labels is None else self.labels.tolist(),
            "source": self.source,
            "note": self.note,
        }


def subject(
    network: Network,
    title: str,
    classes: Sequence[str] | None = None,
    x: object = None,
    y: object = None,
    source: str = "",
    **more: Any,
) -> Subject:
    """What is looked into: a network, and samples (one alone, or a batch) with their labels.

    Args:
        x: samples, as `Model.predict` takes them: a dict of arrays by name where the net has several inputs. What is
            missing is made up, and so are sizes that the net leaves open; the page says so.
        more: further fields of `Subject`.

    Raises:
        ConvolveError: an input holds sizes or axes, which nobody can make up.
        ShapeError, DataError: the samples do not suit the net.
    """
    ports = network.ports
    names = [port.name for port in ports]
    given: dict[str, np.ndarray] = (
        {str(name): np.asarray(array) for name, array in (x if isinstance(x, Mapping) else {names[0]: x}).items()}
        if x is not None
        else {}
    )
    if not set(given) <= set(names):
        raise ShapeError(f"{title}: expected arrays for {', '.join(names)}. Received: {', '.join(given)}")
    fixed = [port.name for port in ports if port.fixed]
    if fixed:
        raise ConvolveError(
            f"{title}: {fixed[0]} asks for sizes or axes rather than for a picture; such nets are not shown"
        )
    left = network
    network = left.closed({name: _sample_of(a.shape, left, name) for name, a in given.items()})
    shapes = [sample_shape(port) for port in network.ports]
    arrays = {
        name: as_images(array[None] if array.shape in (shape, shape[:-1]) else array, shape, name=name)
        for name, shape in zip(names, shapes, strict=True)
        if (array := given.get(name)) is not None
    }
    count = max(map(len, arrays.values()), default=1)
    samples = [
        arrays[port.name] if port.name in arrays else np.repeat(stand_in(shape, port.dtype), count, 0)
        for port, shape in zip(network.ports, shapes, strict=True)
    ]
    if len({len(array) for array in samples}) > 1:
        raise ShapeError(f"{title}: expected as many samples of each input. Received: {[len(a) for a in samples]}")
    return Subject(
        network,
        title,
        tuple(classes) if classes is not None else None,
        samples[0],
        tuple(samples[1:]),
        None if y is None else as_labels(np.atleast_1d(np.asarray(y)), count, 1 << 16),
        source=source or ("" if arrays else MADE_UP),
        **{"note": said_of_sizes(left, network)} | more,
    )


def said_of_sizes(network: Network, made: Network) -> str:
    """What is to be said of a net whose open sizes were closed."""
    if made is network:
        return ""
    changed = [new for port, new in zip(network.ports, made.ports, strict=True) if port != new]
    sizes = [
        by(sample_shape(port)).replace(" x ", " \u00d7 ") + (f" ({port.name})" if len(network.ports) > 1 else "")
        for port in changed
    ]
    return f"The net takes other sizes, too; here it takes {' and '.join(sizes)}."


def _sample_of(shape: Shape, network: Network, name: str) -> Shape:
    """The shape of one sample of a batch, or of one alone."""
    rank = next(len(port.shape) for port in network.ports if port.name == name)
    return shape[1:] if len(shape) == rank else shape


def stand_in(shape: Shape, dtype: str = "float32") -> np.ndarray:
    """A sample where there are none, in bytes: rings that grow finer from the middle outwards; zeros of whole numbers.

    >>> stand_in((9, 9, 1)).shape
    (1, 9, 9, 1)
    """
    if not shape or dtype not in ("float32", "float16", "float64", "uint8"):
        return np.zeros((1, *shape), np.float32)
    axes = [np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape[:-1]]
    distance = np.asarray(sum((a**2 for a in np.meshgrid(*axes, indexing="ij")), np.zeros(())))
    tint = np.linspace(0, 1, shape[-1] + 1)[:-1]
    rings = np.cos(2 * np.pi * (3 * distance[..., None] + tint))
    return np.asarray(127.5 * (1 + rings), np.uint8)[None]
