"""Nets from ONNX files as the commands need them: with sizes for what their inputs leave open, and a row of results."""

from __future__ import annotations

from pathlib import Path

from convolve.cli.output import Output
from convolve.data.images import SUFFIXES as IMAGES
from convolve.data.images import probe
from convolve.data.kinds import SUFFIXES
from convolve.data.npz import read_npy
from convolve.data.waves import SUFFIXES as SOUNDS
from convolve.data.waves import probe_wave
from convolve.errors import ShapeError
from convolve.graph import Shape
from convolve.layers import Flatten, Port
from convolve.model import Model
from convolve.page.subject import said_of_sizes
from convolve.port import row_of

LONGEST = 512
"""Positions along a side of a picture that says what size a net has that takes any."""


def sized(model: Model, file: Path | None = None) -> tuple[Model, str]:
    """The model with sizes for what it leaves open, those of a file where it can take them, and what to say of it."""
    port = model.network.ports[0]
    shapes: dict[str, Shape] = {}
    known = file is not None and file.suffix.lower() in SUFFIXES
    if file is not None and known and any(isinstance(n, str) for n in port.shape[1:]):
        shapes = {port.name: _shape_of(file, port)}
    try:
        made = model.closed(shapes)
    except ShapeError:  # it takes other sizes than the file's
        made = model.closed({})
    return made, said_of_sizes(model.network, made.network)


def sized_aloud(model: Model, output: Output, file: Path | None = None) -> Model:
    """The same, which is said."""
    made, note = sized(model, file)
    if note:
        output.say(note)
    return made


def with_row(model: Model) -> Model:
    """The model with its results in a row, where each is a map of a single position."""
    return model if row_of(model.output_shape) == model.output_shape else model.before(Flatten())


def _shape_of(file: Path, port: Port) -> Shape:
    """The shape that a file's sample has by itself; large pictures are made smaller."""
    suffix = file.suffix.lower()
    if suffix in SOUNDS:
        return probe_wave(file).length, 1
    if suffix in IMAGES:
        *size, grey = probe(file)
        factor = min(1.0, LONGEST / max(size))
        channels = port.shape[-1] if isinstance(port.shape[-1], int) else 1 if grey else 3
        return *(max(1, round(n * factor)) for n in size), channels
    return read_npy(file).shape
