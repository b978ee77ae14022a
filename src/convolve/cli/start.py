"""A trained model as a start: made for other classes, labels, values or masks, where it does not give these already."""

from __future__ import annotations

from typing import Any

import numpy as np

from convolve import zoo
from convolve.cli.find import ONNX, Found, find_model
from convolve.cli.tasks import scale_of
from convolve.data.dataset import Task
from convolve.errors import ConvolveError, ShapeError
from convolve.layers import Layer, Sequential
from convolve.metrics import r2_score
from convolve.model import Model, from_onnx
from convolve.onnx.reading import PRODUCER, read
from convolve.port import row_of

LOOKED_AT = 1024
"""Samples by which it is seen whether a model knows their values."""
KEPT = {
    "classify": "knows these very classes",
    "labels": "knows these very labels",
    "regress": "knows these values",
    "segment": "knows these very classes",
    "autoencode": "gives such samples back",
}
"""Why a model keeps its last layer."""
BEGUN = {
    "segment": "a net that gives something for each place, as unet does",
    "autoencode": "a net that gives samples back, as autoencoder does",
}
"""What other tasks than those of a row of values begin from."""


def image_size(path: str) -> tuple[int, int] | None:
    """Height and width of the images that the net of an ONNX file takes; None where it takes any."""
    port = from_onnx(path).channels_last().network.ports[0]
    sizes = port.shape[1:3]
    return sizes if len(port.shape) == 4 and all(isinstance(n, int) for n in sizes) else None  # type: ignore[return-value]


def started(
    path: str,
    option: str,
    task: Task,
    x: np.ndarray,
    y: Any,
    names: tuple[str, ...] | None,
    wanted: tuple[int, ...],
    seed: int,
    threads: int | None,
) -> tuple[Model, str | None]:
    """A trained model as a start, and the path of its new last layer, which has random weights.

    It keeps its own, and there is no path, where it was trained for this very task and these very names; of values
    also only where it explains some of their variance: a new last layer gives values on a scale of their own.

    Args:
        path: of the model, an ONNX file's or another's.
        option: that names it.
        task: what is to be learnt.
        x, y: some samples, and what is to be learnt of them.
        names: of the classes, labels or values; None where samples are given back.
        wanted: the shape of an output.
        seed: of the new layer.
        threads: to compute with.

    Raises:
        ConvolveError: the model takes other samples, or its last layer cannot be exchanged.
        ShapeError: what it gives is of another kind than what is to be learnt.
    """
    found = find_model(path, threads, images=True)
    model, shape, said = found.model, x.shape[1:], f"{option} {path}"
    if path.endswith(ONNX):
        first, known = _before_onnx(model, path, x, said), task  # of which the file says nothing
    else:
        _check_samples(found, x, said)
        first, known = (), found.task
    made = model.behind(*first, input_shape=shape)
    if len(row_of(made.output_shape)) != len(wanted):
        raise ShapeError(
            f"{said}: gives {made.output_shape} for a sample; to {task} begins from "
            f"{BEGUN.get(task, 'a net that gives one row of values')}"
        )
    if known == task and model.classes == names and (task != "regress" or _explains(made, x, y)):
        head = None
    else:
        head = model.replace_head(names or wanted[-1], seed)
        made = model.behind(*first, input_shape=shape)
        head = f"net.{head}" if first else head
    if made.output_shape != wanted:
        turned = made.output_shape == (wanted[-1], *wanted[:-1])
        advice = ", channels last, as `convolve export --layout channels_last` writes them" if turned else ""
        raise ShapeError(f"{said}: gives {made.output_shape} for a sample; to {task} needs {wanted}{advice}")
    if task == "regress" and head:
        head = head if isinstance(made.net, Sequential) else f"net.{head}"
        made = made.before(scale_of(y))
    return made, head


def _check_samples(found: Found, x: np.ndarray, said: str) -> None:
    if found.model.input_shape != x.shape[1:]:
        raise ConvolveError(
            f"{said}: takes samples of shape {found.model.input_shape}. Received: {x.shape[1:]}. Files of a folder are "
            "brought to the model's size; grey and colour remain what they are"
        )
    if found.trained_on is not None and found.trained_on != str(x.dtype):
        raise ConvolveError(
            f"{said}: was trained on values of type {found.trained_on}, and scales these. Received: {x.dtype}"
        )


def _before_onnx(model: Model, path: str, x: np.ndarray, said: str) -> tuple[Layer, ...]:
    """The layers before the net of an ONNX file that samples as `x` holds them need.

    uint8 is brought to the scale of ImageNet's nets, each channel by its own; floats are taken as they are, and so is
    everything by nets that convolve exported, which do that themselves.
    """
    port, shape = model.network.ports[0], x.shape
    fits = len(port.shape) == len(shape) and all(
        n == m for n, m in zip(port.shape[1:], shape[1:], strict=True) if isinstance(n, int)
    )
    if not fits:
        raise ConvolveError(f"{said}: takes {port}, the images are {shape[1:]}; give a folder of images, or others")
    if read(path).producer == PRODUCER or port.dtype == "uint8" or x.dtype != np.uint8:
        return ()
    return (zoo.IMAGENET if shape[-1] == 3 and len(shape) == 4 else zoo.BYTES,)


def _explains(model: Model, x: np.ndarray, y: np.ndarray) -> bool:
    """Whether a model's values are nearer to these than their mean is."""
    return r2_score(y[:LOOKED_AT], model.predict(x[:LOOKED_AT])) > 0
