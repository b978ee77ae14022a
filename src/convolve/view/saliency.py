"""Which part of the input an answer comes from: Grad-CAM, which asks gradients, and occlusion, which covers parts up.

Both take any number of spatial dimensions and any layer behind which the score depends on positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product

import numpy as np

from convolve import ops
from convolve.errors import ConvolveError, ShapeError
from convolve.graph import Graph, Shape, Value, differentiate, leaf, topological
from convolve.network import Network
from convolve.ops.layout import Transpose
from convolve.ops.reduce import Reshape
from convolve.ops.resample import Map, Resample
from convolve.ops.softmax import Softmax
from convolve.view.anatomy import Anatomy, one_sample
from convolve.window import Window, per_dimension

COVERED_BYTES = 32 * 1024 * 1024
"""What the covered copies of a sample may take at a time."""
COVERED = 64
"""How many there are at a time, at most."""
Progress = Callable[[int, int], None]
"""Told how much is done, and of how much. What it raises ends the work."""


@dataclass(frozen=True, eq=False)
class Saliency:
    """How much each position of the input counts for the score of a class."""

    method: str
    target: int
    """The class."""
    score: float
    """Its logit; where the output has spatial dimensions, the sum over all positions."""
    map: np.ndarray
    """(*spatial) of the input. Grad-CAM: 0 and more. Occlusion: what the score loses, below 0 where it gains."""
    layer: str | None = None
    """The layer that Grad-CAM looked at."""
    coarse: np.ndarray | None = None
    """The map as that layer has it, before it was brought to the input's size."""

    @property
    def shares(self) -> np.ndarray:
        """The map from 0 to 1: what speaks against the class is 0, the position that counts most is 1."""
        positive = np.maximum(self.map, 0)
        return np.asarray(positive / (positive.max() or 1))


def grad_cam(
    network: Network,
    x: np.ndarray | Sequence[np.ndarray],
    target: int | None = None,
    layer: str | None = None,
    averaged: bool | None = None,
    anatomy: Anatomy | None = None,
    number: int = 0,
) -> Saliency:
    """Gradient-weighted class activation mapping (Selvaraju et al., "Grad-CAM", ICCV 2017).

        map = relu( sum over channels k of  a_k A_k ),     a_k = mean over positions of  d score / d A_k

    where A are the layer's activations (1, *spatial, channels) and the score is the class's logit: what goes into a
    last softmax, not what comes out. The map is brought to the input's size linearly.

    The average presumes that a channel counts alike at all positions. Not `averaged`, each position has its own
    gradient, a_k[r] = d score / d A_k[r] (HiResCAM; Draelos and Carin, "Use HiResCAM instead of Grad-CAM for faithful
    explanations of convolutional neural networks", 2020). Before a global mean the two are the same.

    Args:
        x: one sample as a batch, (1, *input_shape).
        target: the class; by default the one with the largest logit.
        layer: by default the last whose result has more than one position.
        averaged: by default, unless the net flattens positions into features behind the layer: then each of them has
            weights of its own, whose average says little.
        anatomy: of the network, where it is at hand.
        number: of the input that the map is for, where the net has several.

    Raises:
        ConvolveError: no such layer, or none that has positions.
        ShapeError: x is not one sample; the target is not one of the classes; the layer has other dimensions.
    """
    given = _given(network, x)
    anatomy = anatomy or Anatomy(network)
    spatial = anatomy.entry(number).shape[1:-1]
    path = layer if layer is not None else last_spatial(anatomy, len(spatial))
    value = anatomy.row(path).output
    if len(value.shape) != len(spatial) + 2:
        raise ShapeError(
            f"{path}: Grad-CAM needs a layer with the input's {len(spatial)} spatial dimensions. "
            f"Received: shape {value.shape[1:]}"
        )

    def build() -> Graph:
        looked = Anatomy(network)
        scores = logits(looked.forward.output)
        chosen = leaf("input", "target", scores.shape[-1:])
        score = ops.sum(scores * chosen)
        activation = looked.row(path).output
        [gradient] = differentiate(score, [activation])
        return Graph({"scores": scores, "activation": activation, "gradient": gradient})

    executable = network.executable(("grad_cam", path), build)
    if target is None:
        target = int(_class_scores(network, given)[0].argmax())
    classes = network.output_shape[-1]
    made = network.run(executable, given | {"target": _one(target, classes)}, ("scores", "activation", "gradient"))
    gradient, activation = (made[name][0].astype(np.float64) for name in ("gradient", "activation"))
    if averaged is None:
        averaged = not _flattened(anatomy, value)
    weights = gradient.reshape(-1, gradient.shape[-1]).mean(0) if averaged else gradient
    coarse = np.maximum((activation * weights).sum(-1), 0)
    return Saliency(
        method="Grad-CAM" if averaged else "HiResCAM",
        target=target,
        score=float(made["scores"][..., target].sum(dtype=np.float64)),
        map=enlarged(coarse, spatial),
        layer=path,
        coarse=coarse,
    )


def occlusion(
    network: Network,
    x: np.ndarray | Sequence[np.ndarray],
    target: int | None = None,
    size: int | tuple[int, ...] | None = None,
    stride: int | tuple[int, ...] | None = None,
    fill: float | Sequence[float] | None = None,
    progress: Progress | None = None,
    anatomy: Anatomy | None = None,
    number: int = 0,
) -> Saliency:
    """What the score of a class loses when a patch is covered.

    Zeiler and Fergus, "Visualizing and understanding convolutional networks", ECCV 2014, section 4.2; they watch the
    probability, here it is the logit. Each position shows the mean over the patches that cover it.

    Args:
        x: one sample as a batch, (1, *input_shape).
        target: the class; by default the one with the largest logit.
        size: of the patch, one for all dimensions or one each; by default a quarter of each.
        stride: from patch to patch; by default half their size.
        fill: what covers, one number or one a channel; by default each channel's median in the sample.
        progress: is called with the patches done and their number; what it raises ends the work.
        anatomy: of the network, where it is at hand.
        number: of the input that is covered, where the net has several.

    Raises:
        ShapeError: x is not one sample; the target is not one of the classes; size or stride do not fit.
    """
    given = _given(network, x)
    key = list(given)[number]
    sample = given[key]
    anatomy = anatomy or Anatomy(network)
    spatial = anatomy.entry(number).shape[1:-1]
    channels_first = anatomy.channels_first_in(number)
    if not spatial:
        raise ShapeError(f"occlusion needs an input with positions. Received: input_shape {network.input_shape}")
    wanted = tuple(max(1, n // 4) for n in spatial) if size is None else per_dimension(size, len(spatial), "size")
    kernel = tuple(min(n, k) for n, k in zip(spatial, wanted, strict=True))
    steps = tuple(max(1, k // 2) for k in kernel) if stride is None else per_dimension(stride, len(spatial), "stride")
    window = Window(kernel, steps, (1,) * len(spatial), ((0, 0),) * len(spatial)).ceiled(spatial)
    pictures = np.moveaxis(sample, 1, -1) if channels_first else sample
    channels = pictures.shape[-1]
    cover = np.median(pictures.reshape(-1, channels), axis=0) if fill is None else np.asarray(fill)
    if cover.shape not in ((), (1,), (channels,)):
        raise ShapeError(f"fill is one number or one for each of {channels} channels. Received: {fill}")
    [base] = _class_scores(network, given)
    if target is None:
        target = int(base.argmax())
    _one(target, len(base))
    patches = list(_patches(window, spatial))
    batch = max(1, min(COVERED, COVERED_BYTES // sample.nbytes, len(patches)))
    total, count = np.zeros(spatial), np.zeros(spatial)
    waiting, done = iter(patches), 0
    while here := list(islice(waiting, batch)):
        copies = {name: np.repeat(array, batch, axis=0) for name, array in given.items()}
        seen = np.moveaxis(copies[key], 1, -1) if channels_first else copies[key]
        for copy, patch in zip(seen, here, strict=False):
            copy[patch] = cover
        for patch, scores in zip(here, _class_scores(network, copies), strict=False):
            total[patch] += base[target] - scores[target]
            count[patch] += 1
        done += len(here)
        if progress:
            progress(done, len(patches))
    return Saliency("occlusion", target, float(base[target]), total / np.maximum(count, 1))


def _patches(window: Window, size: Shape) -> Iterator[tuple[slice, ...]]:
    """The part of the input that each place of the window covers."""
    along = [
        [slice(int(start), int(start + count)) for start, count in zip(first, counts, strict=True)]
        for first, counts, _ in window.reads(size)
    ]
    return iter(product(*along))


def last_spatial(anatomy: Anatomy, dimensions: int) -> str:
    """The layer made last whose result has as many spatial dimensions, and more than one position.

    Raises:
        ConvolveError: there is none.
    """
    rank = dimensions + 2
    found = [
        (row.output.serial, path)
        for path, row in anatomy.rows.items()
        if len(row.output.shape) == rank and math.prod(row.output.shape[1:-1]) > 1
    ]
    if not found:
        raise ConvolveError("no layer of this net has spatial dimensions: there are no parts of the input to mark")
    return max(found)[1]


def _flattened(anatomy: Anatomy, value: Value) -> bool:
    """Whether positions that depend on a value become features."""
    after = {value.serial}
    for v in topological([anatomy.forward.output]):
        if any(x.serial in after for x in v.inputs):
            after.add(v.serial)
            shape = v.inputs[0].shape
            if isinstance(v.op, Reshape) and len(v.shape) == 2 < len(shape) and math.prod(shape[1:-1]) > 1:
                return True
    return False


def logits(output: Value) -> Value:
    """What goes into the softmax at a net's end, or the output itself where there is none."""
    value = output
    while isinstance(value.op, (Reshape, Transpose)):
        value = value.inputs[0]
    if isinstance(value.op, Softmax) and value.shape[-1] == output.shape[-1] and value.size == output.size:
        return value.inputs[0]
    return output


def enlarged(coarse: np.ndarray, size: Shape) -> np.ndarray:
    """A map (*spatial) brought to another size, linearly."""
    maps = tuple(Map("linear", n, m) for n, m in zip(coarse.shape, size, strict=True))
    return np.asarray(Resample(maps).reference(coarse[None, ..., None])[0, ..., 0])


def _given(network: Network, x: np.ndarray | Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """One sample of each input, as programs call them."""
    return {f"x{i or ''}": array for i, array in enumerate(one_sample(network, x))}


def _one(target: int, classes: int) -> np.ndarray:
    """1 for the target and 0 for all other classes."""
    if not 0 <= target < classes:
        raise ShapeError(f"the target is one of {classes} classes, from 0 on. Received: target={target}")
    return np.asarray(np.arange(classes) == target, np.float32)


def _class_scores(network: Network, given: dict[str, np.ndarray]) -> np.ndarray:
    """Logits (n, classes), summed over positions where the output has some."""

    count = len(next(iter(given.values())))

    def build() -> Graph:
        return Graph({"scores": logits(network.forward(count).output)}, prediction=True)

    executable = network.executable(("scores", count), build)
    scores = network.run(executable, given, ("scores",))["scores"]
    return np.asarray(scores.reshape(count, -1, scores.shape[-1]).sum(1, dtype=np.float64))
