"""What each filter of a layer looks for, measured on samples: what excites it most, in which classes, what it is for.

A filter is heard through the norm and the activation behind its layer (`Anatomy.heard`); there its values are taken,
and there it is silenced to see what the net is without it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np

from convolve.errors import ConvolveError, FileError, ShapeError
from convolve.graph import Graph, Value, leaf, rewrite
from convolve.network import Network
from convolve.source import Rows, batch, rows
from convolve.storage import load as load_file
from convolve.storage import save as save_file
from convolve.view.anatomy import Anatomy, Box
from convolve.view.saliency import Progress, logits

ACTIVATION_BYTES = 32 * 1024 * 1024
"""What a layer's activations may take at a time."""
MOST_AT_ONCE = 128
FINGERPRINTED = 16
"""Samples that a data set is recognised by."""


@dataclass(frozen=True, eq=False)
class Excitation:
    """What the filters of a layer did on samples. A filter is a channel, or a unit of a layer without positions."""

    layer: str
    heard: str
    """The layer, its norm or activation, whose values are taken."""
    done: int
    """Samples measured so far."""
    total: int
    values: np.ndarray
    """The largest values of each filter, one a sample at most, largest first: (filters, top)."""
    samples: np.ndarray
    """The sample of each, (filters, top)."""
    positions: np.ndarray
    """Where in the layer, (filters, top, rank)."""
    boxes: np.ndarray
    """What is seen of the sample from there: first and last position, inclusive, (filters, top, rank, 2).

    Positions outside of the sample are padding."""
    least: np.ndarray
    """The smallest value of each filter, (filters,)."""
    means: np.ndarray
    """The mean of max(0, value) in each class, (filters, classes); without labels (filters, 0)."""
    accuracy: float | None = None
    """On the samples; None without labels or where nothing was silenced."""
    accuracy_without: np.ndarray | None = None
    """With one filter silenced, (filters,)."""
    marks: tuple[str, str] = ("", "")
    """What the network and the data are recognised by."""

    def __repr__(self) -> str:
        return f"Excitation({self.layer}: {len(self.values)} filters on {self.done} of {self.total} samples)"

    @property
    def dead(self) -> np.ndarray:
        """Whether a filter says the same whatever it sees, (filters,)."""
        return np.asarray(self.values[:, 0] == self.least)

    @property
    def favourite(self) -> np.ndarray:
        """The class that excites each filter most, (filters,)."""
        return np.asarray(self.means.argmax(1))

    @property
    def selectivity(self) -> np.ndarray:
        """(a - b) / (a + b) with a the mean in the favourite class and b that over the others, (filters,).

        0: all classes alike; 1: that class alone (Morcos et al., "On the importance of single directions for
        generalization", ICLR 2018).
        """
        best = self.means.max(1)
        rest = (self.means.sum(1) - best) / max(1, self.means.shape[1] - 1)
        return np.asarray((best - rest) / np.maximum(best + rest, np.finfo(np.float32).tiny))

    def box(self, filter: int, place: int) -> Box:
        """What a filter saw in one of its strongest samples."""
        return tuple((int(low), int(high)) for low, high in self.boxes[filter, place])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a safetensors file, whole or not at all."""
        tensors = {name: np.asarray(getattr(self, name), kind) for name, kind in TENSORS.items()}
        if self.accuracy_without is not None:
            tensors["accuracy_without"] = np.asarray(self.accuracy_without, np.float32)
        names = ("layer", "heard", "done", "total", "accuracy")
        save_file(path, tensors, {"excitation": {n: getattr(self, n) for n in names} | {"marks": list(self.marks)}})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Excitation:
        """What `save` wrote.

        Raises:
            FileError: the file is missing, damaged or of another kind.
        """
        tensors, header = load_file(path)
        try:
            noted = header["excitation"]
            rank = tensors["positions"].shape[2]
            filters, top = tensors["values"].shape
            shapes = {"samples": (filters, top), "boxes": (filters, top, len(tensors["boxes"][0, 0]), 2)}
            fits = all(tensors[name].shape == shape for name, shape in shapes.items())
            fits = fits and tensors["positions"].shape == (filters, top, rank) and len(tensors["means"]) == filters
            if not fits or not filters or not top:
                raise FileError(f"{path}: its tensors do not fit each other")
            return cls(
                layer=str(noted["layer"]),
                heard=str(noted["heard"]),
                done=int(noted["done"]),
                total=int(noted["total"]),
                accuracy=None if noted["accuracy"] is None else float(noted["accuracy"]),
                accuracy_without=tensors.get("accuracy_without"),
                marks=(str(noted["marks"][0]), str(noted["marks"][1])),
                **{name: tensors[name] for name in TENSORS},
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise FileError(f"{path}: holds no measurement of filters ({error}); measure it anew") from None

    def fits(self, network: Network, x: Rows) -> bool:
        """Whether it was measured on this network, with these parameters, and these samples, to the end."""
        return self.done == self.total and self.marks == (mark_of(network), _data_mark(x))


TENSORS = {
    "values": np.float32,
    "samples": np.int64,
    "positions": np.int64,
    "boxes": np.int64,
    "least": np.float32,
    "means": np.float32,
}


def beside(model: str | os.PathLike[str], layer: str) -> Path:
    """Where the measurement of a layer is kept: beside the model's file.

    >>> beside("runs/a/model.safetensors", "residual1.conv1").name
    'model.residual1.conv1.excitation.safetensors'
    """
    path = Path(model)
    return path.with_name(f"{path.stem}.{quote(layer, safe='')}.excitation.safetensors")


def measure(
    network: Network,
    layer: str,
    x: Rows,
    y: np.ndarray | None = None,
    top: int = 9,
    silence: bool = True,
    progress: Progress | None = None,
) -> Iterator[Excitation]:
    """Measure the filters of a layer on samples, batch after batch: yields what is known after each.

    Who wants to stop stops asking, or lets `progress` raise. Working memory is bounded, whatever the number of samples.

    Args:
        network: of one input.
        layer: its name.
        x: (n, *input_shape), real numbers, in memory or from a `Source`.
        y: labels (n,), for what depends on classes.
        top: how many samples to keep for each filter.
        silence: whether to measure the accuracy without each filter, which takes most of the time. Needs y.
        progress: is called with the steps done and their number, more often than there are results.

    Raises:
        ConvolveError: there is no such layer, or no sample.
        ShapeError: x or y has another shape.

    >>> from convolve import Conv, Dense, Flatten, Model, ReLU, Sequential
    >>> model = Model(Sequential(Conv(4, 3), ReLU(), Flatten(), Dense(2)), input_shape=(8, 8, 1))
    >>> x = np.random.default_rng(0).random((50, 8, 8, 1), np.float32)
    >>> *_, found = measure(model.network, "conv1", x, np.arange(50) % 2, top=3)
    >>> found.heard, found.values.shape, found.accuracy_without.shape
    ('relu1', (4, 3), (4,))
    """
    if x.shape[1:] != network.input_shape or (y is not None and np.shape(y) != x.shape[:1]):
        raise ShapeError(
            f"expected x {('n', *network.input_shape)} and labels (n,). "
            f"Received: {x.shape} and {'none' if y is None else np.shape(y)}"
        )
    if y is not None and len(x) and np.min(y) < 0:
        raise ShapeError(f"labels are the numbers of classes, from 0 on. Received: {np.min(y)}")
    if not len(x) or top < 1:
        raise ConvolveError(f"{layer}: needs at least one sample, and top 1 or more. Received: {len(x)} and {top}")
    return _Measurement(network, layer, x, y, top, silence, progress).run()


class _Measurement:
    def __init__(
        self,
        network: Network,
        layer: str,
        x: Rows,
        y: np.ndarray | None,
        top: int,
        silence: bool,
        progress: Progress | None,
    ) -> None:
        self.network, self.layer, self.x = network, layer, x
        self.y = None if y is None else np.asarray(y, np.int64)
        self.anatomy = Anatomy(network)
        self.heard = self.anatomy.heard(layer)
        self.value = self.anatomy.row(self.heard).output
        self.filters, self.top = self.value.shape[-1], min(top, len(x))
        self.silence = silence and y is not None and len(network.output_shape) == 1
        size = max(1, ACTIVATION_BYTES // (4 * max(self.value.size, self.anatomy.forward.input.size)))
        self.batch = min(size, MOST_AT_ONCE, len(x))
        self.progress, self.steps = progress, 0

    def _step(self) -> None:
        self.steps += 1
        if self.progress:
            a_batch = 1 + (self.filters if self.silence else 0)
            self.progress(self.steps, a_batch * -(-len(self.x) // self.batch))

    def run(self) -> Iterator[Excitation]:
        filters, classes = self.filters, 0 if self.y is None else int(self.y.max()) + 1
        marks = (mark_of(self.network), _data_mark(self.x))
        values = np.full((0, filters), -np.inf)
        samples, places = np.zeros((0, filters), np.int64), np.zeros((0, filters), np.int64)
        least = np.full(filters, np.inf)
        sums, counts = np.zeros((filters, classes)), np.zeros(classes)
        right, right_without = 0, np.zeros(filters)
        for start in range(0, len(self.x), self.batch):
            x = np.ascontiguousarray(batch(self.x, start, start + self.batch), np.float32)
            y = None if self.y is None else self.y[start : start + len(x)]
            activation, scores = self._front(x)
            self._step()
            flat = activation.reshape(len(x), -1, filters)
            at = flat.argmax(1)
            found = np.take_along_axis(flat, at[:, None], 1)[:, 0]
            numbers = np.broadcast_to(np.arange(start, start + len(x))[:, None], at.shape)
            values, samples, places = self._strongest(
                *(np.concatenate(pair) for pair in ((values, found), (samples, numbers), (places, at)))
            )
            least = np.minimum(least, flat.min((0, 1)))
            if y is not None:
                np.add.at(sums.T, y, np.maximum(flat, 0).mean(1, dtype=np.float64))
                np.add.at(counts, y, 1)
            if y is not None and self.silence:
                right += int((scores.argmax(-1) == y).sum())
                right_without += self._without(x, activation, y)
            done = start + len(x)
            positions = self._positions(places)
            yield Excitation(
                layer=self.layer,
                heard=self.heard,
                done=done,
                total=len(self.x),
                values=values.T,
                samples=samples.T,
                positions=positions,
                boxes=self._boxes(positions),
                least=least,
                means=sums / np.maximum(counts, 1),
                accuracy=right / done if self.silence else None,
                accuracy_without=right_without / done if self.silence else None,
                marks=marks,
            )

    def _strongest(self, values: np.ndarray, *others: np.ndarray) -> tuple[np.ndarray, ...]:
        """The `top` largest of each column, the earliest first among equals."""
        order = np.argsort(-values, axis=0, kind="stable")[: self.top]
        return tuple(np.take_along_axis(a, order, 0) for a in (values, *others))

    def _positions(self, places: np.ndarray) -> np.ndarray:
        sizes = self.value.shape[1:-1]
        indices = np.unravel_index(places.T, sizes) if sizes else ()
        return np.stack(indices, -1) if sizes else np.zeros((*places.T.shape, 0), np.int64)

    def _boxes(self, positions: np.ndarray) -> np.ndarray:
        """Receptive fields of all positions at once; the whole sample where a value may see all of it."""
        size = self.anatomy.spatial
        field = self.anatomy.fields.get(self.value.serial, ())
        boxes = np.zeros((*positions.shape[:2], len(size), 2), np.int64)
        boxes[..., 1] = np.array(size, np.int64) - 1
        if len(field) == positions.shape[-1]:
            for dim, interval in enumerate(field):
                boxes[..., dim, 0], boxes[..., dim, 1] = interval.at(positions[..., dim])
        return boxes

    # programs

    def _front(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The activations of a batch, and its logits."""

        def build() -> Graph:
            looked = Anatomy(self.network, len(x))
            return Graph({"v": looked.row(self.heard).output, "scores": logits(looked.forward.output)}, prediction=True)

        executable = self.network.executable(("excitation", self.heard, len(x)), build)
        made = self.network.run(executable, {"x": x}, ("v", "scores"))
        return made["v"], made["scores"]

    def _without(self, x: np.ndarray, activation: np.ndarray, y: np.ndarray) -> np.ndarray:
        """How many samples are classified rightly without each filter: the rest of the net runs once for each."""

        def build() -> Graph:
            looked = Anatomy(self.network, len(x))
            heard = looked.row(self.heard).output
            silenced = leaf("input", "v", heard.shape)

            def rule(old: Value, inputs: tuple[Value, ...]) -> Value | None:
                return silenced if old.serial == heard.serial else None

            return rewrite(Graph({"scores": logits(looked.forward.output)}, prediction=True), rule)

        executable = self.network.executable(("silenced", self.heard, len(x)), build)
        right = np.zeros(self.filters)
        for number in range(self.filters):
            silenced = activation.copy()
            silenced[..., number] = 0
            scores = self.network.run(executable, {"x": x, "v": silenced}, ("scores",))["scores"]
            right[number] = (scores.argmax(-1) == y).sum()
            self._step()
        return right


def crop(sample: np.ndarray, box: Box, fill: float = 0.0) -> np.ndarray:
    """What a box shows of a sample (*spatial, channels), with `fill` where it reaches beyond.

    Of a sample for an imported net that takes channels first, give `np.moveaxis(sample, 0, -1)`.

    >>> crop(np.arange(4).reshape(4, 1), ((-1, 1),))[:, 0]
    array([0, 0, 1])
    """
    inner = tuple(slice(max(0, low), min(n, high + 1)) for (low, high), n in zip(box, sample.shape, strict=False))
    pads = [(max(0, -low), max(0, high + 1 - n)) for (low, high), n in zip(box, sample.shape, strict=False)]
    return np.pad(sample[inner], [*pads, (0, 0)], constant_values=fill)


def mark_of(network: Network) -> str:
    """What a network with its parameters is recognised by."""
    digest = hashlib.sha256()
    for key, array in sorted(network.arrays().items()):
        digest.update(f"{key} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _data_mark(x: Rows) -> str:
    digest = hashlib.sha256(f"{x.shape}".encode())
    for place in np.linspace(0, len(x) - 1, min(FINGERPRINTED, len(x))).astype(int):
        digest.update(np.asarray(rows(x, [place]), np.float32).tobytes())
    return digest.hexdigest()
