"""What is seen of a training: curves, the first layer's filters forming, and mistakes as pictures, epoch by epoch."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from convolve import storage
from convolve.errors import FileError
from convolve.network import Network
from convolve.page.pictures import shrunk, sliced
from convolve.training.fit import Progress
from convolve.view.anatomy import Anatomy
from convolve.view.filters import filters, with_filters

FILE = "look.safetensors"
"""What a run's folder keeps of it."""
MOST_LOSSES = 600
"""Losses of single steps that are kept: of more, every other one goes."""
MISTAKES, PICTURE = 16, 48
"""Mistakes of an epoch that are shown, and positions along each dimension of one."""
BATCH = 64


@dataclass(frozen=True, eq=False)
class Moment:
    """The end of an epoch."""

    metrics: dict[str, float]
    filters: np.ndarray
    """Of the first layer that has some, (filters, *kernel, channels)."""
    pictures: np.ndarray
    """Samples that are mistaken, small: those whose true class gets the least share, (k, rows, columns, channels)."""
    mistakes: tuple[tuple[int, int], ...]
    """Of each, the true class and the one it is taken for."""


@dataclass
class Watched:
    """A training as far as it has come."""

    layer: str | None = None
    """Whose filters are kept."""
    moments: list[Moment] = field(default_factory=list)
    losses: list[tuple[float, float]] = field(default_factory=list)
    """Steps, counted in epochs, and the loss of each."""
    progress: Progress | None = None
    """Where it stands, while it runs."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a safetensors file, whole or not at all.

        Raises:
            FileError: the file cannot be written.
        """
        tensors: dict[str, np.ndarray] = {}
        for number, moment in enumerate(self.moments):
            tensors |= {f"filters.{number}": moment.filters, f"pictures.{number}": moment.pictures}
        epochs = [{"metrics": _finite(m.metrics), "mistakes": m.mistakes} for m in self.moments]
        losses = [pair for pair in self.losses if math.isfinite(pair[1])]
        storage.save(path, tensors, {"layer": self.layer, "epochs": epochs, "losses": losses})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Watched:
        """What `save` wrote.

        Raises:
            FileError: it cannot be read, or is something else.
        """
        tensors, header = storage.load(path)
        try:
            moments = [
                Moment(
                    {str(name): math.nan if v is None else float(v) for name, v in epoch["metrics"].items()},
                    tensors[f"filters.{number}"],
                    tensors[f"pictures.{number}"],
                    tuple((int(true), int(taken)) for true, taken in epoch["mistakes"]),
                )
                for number, epoch in enumerate(header["epochs"])
            ]
            losses = [(float(at), float(loss)) for at, loss in header["losses"]]
            return cls(header["layer"] and str(header["layer"]), moments, losses)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FileError(f"{path}: is not what convolve train --look keeps ({error})") from None


class Watch:
    """A training's callback that notes what is to be seen of it, in `watched` and in a file."""

    def __init__(
        self, network: Network, samples: np.ndarray, labels: Sequence[int] | np.ndarray, file: os.PathLike[str]
    ) -> None:
        """`samples` and `labels` are what mistakes are looked for among; nothing is learnt from them."""
        self._network, self._samples, self._labels, self._file = network, samples, np.asarray(labels), file
        with_some = with_filters(Anatomy(network))
        self.watched = Watched(with_some[0] if with_some else None)

    def __call__(self, progress: Progress) -> None:
        watched = self.watched
        watched.progress = progress
        if not progress.epoch_done:
            _note(watched.losses, (progress.epoch - 1 + progress.step / progress.steps, progress.loss))
            return
        kept = filters(self._network, watched.layer).weights if watched.layer else np.zeros((0, 1), np.float32)
        watched.moments.append(Moment(dict(progress.metrics), kept, *self._mistakes()))
        watched.save(self._file)

    def _mistakes(self) -> tuple[np.ndarray, tuple[tuple[int, int], ...]]:
        parts = []
        for start in range(0, len(self._samples), BATCH):
            made = self._network.predict(np.ascontiguousarray(self._samples[start : start + BATCH]))
            parts.append(next(iter(made.values())).astype(np.float64))
        scores = np.concatenate(parts)
        scores -= scores.max(-1, keepdims=True)
        taken = scores.argmax(-1)
        wrong = np.flatnonzero(taken != self._labels)
        shares = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
        worst = wrong[np.argsort(shares[wrong, self._labels[wrong]], kind="stable")][:MISTAKES]
        small = [shrunk(sliced(self._samples[i], 0.5)[None], PICTURE)[0] for i in worst]
        pictures = np.stack(small).astype(np.float32) if small else np.zeros((0, 1), np.float32)
        return pictures, tuple((int(self._labels[i]), int(taken[i])) for i in worst)


def _note(losses: list[tuple[float, float]], pair: tuple[float, float]) -> None:
    losses.append(pair)
    if len(losses) > MOST_LOSSES:
        del losses[1::2]


def _finite(metrics: dict[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}
