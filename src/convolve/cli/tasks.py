"""What is to be learnt: of each task the targets, the loss, the net and its size, and what is shown while it trains.

| task | data | loss | net by default | measured by |
|---|---|---|---|---|
| classify | one subfolder a class, `path,label`, labels (n,) | cross-entropy | see `choice` | accuracy, top 5, F1 |
| labels | `path,"cat;dog"`, zeros and ones (n, labels) | binary cross-entropy | as for hard data | F1 |
| regress | `path,value`, numbers of which one is not whole | mean squared error | as for hard data | mean error, R2 |
| segment | `images/` and `masks/`, labels (n, *spatial) | cross-entropy | unet | IoU, mean and a class |
| autoencode | any, by --task autoencode alone | mean squared error | autoencoder | mean error, R2 |

"As for hard data": `choice.net_for`. Samples are moved by 7 %, and for the tasks of places (masks) not at all. Of the
tasks other than classify no fully-connected net is trained beside, and labels are not smoothed. The values of a
regression are learnt at mean 0 and deviation 1, and the net's last layer gives them their own scale again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from convolve import zoo
from convolve.augment import Augmentation, Shift
from convolve.cli.choice import FEW, Choice, net_for, told
from convolve.cli.recipe import RECIPE, scaling
from convolve.data.dataset import Dataset, Task
from convolve.errors import ConvolveError, DataError
from convolve.layers import Layer, Normalize
from convolve.source import Rows, rows
from convolve.training.losses import BinaryCrossEntropy, CrossEntropy, Loss, MeanSquaredError, balanced

SAMPLE = 1024
"""Samples of a source that are looked at."""
DEPTH = 3
"""Times that the nets for places halve the size, at most."""


@dataclass(frozen=True)
class Column:
    """A metric of an epoch as the table shows it."""

    key: str
    head: str
    form: str
    """As `format` takes it."""


COLUMNS: dict[Task, tuple[Column, ...]] = {
    "classify": (Column("accuracy", "accuracy", ".2%"), Column("validation_accuracy", "validation", ".2%")),
    "labels": (Column("accuracy", "accuracy", ".2%"), Column("validation_f1_micro", "valid. F1", ".4f")),
    "regress": (Column("validation_mae", "valid. MAE", ".4g"), Column("validation_r2", "valid. R2", ".4f")),
    "segment": (Column("accuracy", "accuracy", ".2%"), Column("validation_iou", "valid. IoU", ".4f")),
    "autoencode": (Column("validation_mae", "valid. MAE", ".4f"), Column("validation_r2", "valid. R2", ".4f")),
}


@dataclass(frozen=True, eq=False)
class Rebuilt:
    """What is to be given back of samples: themselves, as floats; bytes from 0 to 1."""

    x: Rows

    @property
    def shape(self) -> tuple[int, ...]:
        return self.x.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.x)

    def of(self, samples: np.ndarray) -> np.ndarray:
        """What is to be given back of these."""
        return as_floats(samples)

    def batch(self, indices: np.ndarray) -> np.ndarray:
        """Likewise of those of these numbers."""
        return as_floats(rows(self.x, indices))


def as_floats(x: np.ndarray) -> np.ndarray:
    """Samples as an autoencoder gives them back: bytes from 0 to 1, floats as they are."""
    return np.asarray(x / np.float32(255) if x.dtype == np.uint8 else x, np.float32)


def targets(task: Task, x: Rows, y: Any) -> Any:
    """What the loss compares with, of a part of a set: an array, or what `convolve.source.Pairs` takes."""
    if task == "autoencode":
        return Rebuilt(x)
    return y.astype(np.int32) if task == "classify" else y


def sampled(count: int) -> np.ndarray:
    """The numbers of some of so many samples, spread over all classes, whose statistics stand for all."""
    return np.unique(np.linspace(0, count - 1, SAMPLE).astype(np.intp))


def loss(task: Task, y: Any, classes: int, smoothing: float, weighted: bool) -> Loss:
    """The loss of a task; `weighted` lets all classes (or yes and no of each label) count alike.

    Raises:
        ConvolveError: there are no classes to weight or to smooth.
    """
    if task in ("classify", "segment"):
        known = y if isinstance(y, np.ndarray) else rows(y, sampled(len(y)))
        return CrossEntropy(smoothing, balanced(known, classes) if weighted else None)
    if smoothing:
        raise ConvolveError(f"--label-smoothing: --task {task} has no classes one of which is right; leave it out")
    if task == "labels":
        there = np.asarray(y).sum(0)
        often = tuple(((len(y) - there) / np.maximum(there, 1)).tolist())
        return BinaryCrossEntropy(often if weighted else 1.0)
    if weighted:
        raise ConvolveError(f"--balanced: --task {task} has no classes that could count alike; leave it out")
    return MeanSquaredError()


def output_shape(task: Task, input_shape: tuple[int, ...], classes: int) -> tuple[int, ...]:
    """What a net has to give for a sample."""
    if task == "segment":
        return (*input_shape[:-1], classes)
    return input_shape if task == "autoencode" else (classes,)


def chosen(task: Task, dataset: Dataset, samples: int) -> Choice:
    """What the rule says of a task that is no classification.

    Raises:
        DataError: samples whose sizes are odd, for a net of places.
    """
    spatial = dataset.input_shape[:-1]
    size = RECIPE.batch_size if samples >= FEW else RECIPE.batch_size // 2
    why = f"{told(samples, spatial)}, to {task}"
    steps: tuple[Augmentation, ...] = ()
    if task in ("segment", "autoencode"):
        net, size = ("unet" if task == "segment" else "autoencoder"), size // 4
        depth_of(spatial, net)
    else:
        net, steps = net_for(spatial), (Shift(0.07),)
    return Choice(net, 12, size, 0.0, steps, why)


def depth_of(spatial: tuple[int, ...], net: str) -> int:
    """How often a net for places halves these sizes, three times at most; an autoencoder gives only even ones back.

    Raises:
        DataError: not once.

    >>> depth_of((64, 45), "unet"), depth_of((64, 48), "autoencoder"), depth_of((28, 28), "autoencoder")
    (3, 3, 2)
    """
    even = net == "autoencoder"
    depth = max(d for d in range(DEPTH + 1) if all(n >= 2**d and not (even and n % 2**d) for n in spatial))
    if not depth:
        raise DataError(
            f"samples of {' x '.join(map(str, spatial))}: {net} halves them, so that sizes must be "
            f"{'even' if even else '2 or more'}; bring files of a folder to another size by --size, or pad your arrays"
        )
    return depth


def zoo_net(name: str, task: Task, x: np.ndarray, classes: int) -> Layer:
    """A net of the zoo for a task, of samples as `x` holds them."""
    entry = zoo.by_name(name)
    places = {"depth": depth_of(x.shape[1:-1], name)} if name in ("unet", "autoencoder") else {}
    outputs = x.shape[-1] if task == "autoencode" else classes
    return entry.make(classes=outputs, normalize=scaling(entry, x), **places)


def scale_of(y: np.ndarray) -> Normalize:
    """What brings the values of a regression, learnt at mean 0 and deviation 1, to their own: x * deviation + mean."""
    values = np.asarray(y, np.float64)
    deviation = np.where(values.std(0) > 0, values.std(0), 1.0)
    mean, std = (-values.mean(0) / deviation).tolist(), (1 / deviation).tolist()
    return Normalize(tuple(mean), tuple(std), name="scale")
