"""What is seen of a training: curves, the first layer's filters forming, and mistakes as pictures, epoch by epoch."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from convolve import storage
from convolve.errors import FileError
from convolve.network import Network
from convolve.page.pictures import shrunk, sliced, value_range
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
NOTHING = np.zeros((0, 1), np.float32)


@dataclass(frozen=True, eq=False)
class Mistaken:
    """A sample of which the net gets something wrong."""

    index: int
    said: str
    """What is wrong, in words."""
    beside: tuple[np.ndarray, ...] = ()
    """Pictures of what was wanted and given, (*spatial, channels), in bytes, or in the range of samples of floats."""


Worst = Callable[[np.ndarray], Sequence[Mistaken]]
"""Says of a net's outputs for samples which of these are worst, the worst first."""


@dataclass(frozen=True, eq=False)
class Moment:
    """The end of an epoch."""

    metrics: dict[str, float]
    filters: np.ndarray
    """Of the first layer that has some, (filters, *kernel, channels)."""
    pictures: np.ndarray
    """Samples that are mistaken, small, the worst first, (k, rows, columns, channels)."""
    mistakes: tuple[str, ...]
    """What is wrong with each, in words."""
    beside: np.ndarray = field(default_factory=lambda: NOTHING)
    """What was wanted and given of each as pictures, (k, pictures, rows, columns, channels), or nothing."""


@dataclass
class Watched:
    """A training as far as it has come."""

    layer: str | None = None
    """Whose filters are kept."""
    beside: tuple[str, ...] = ()
    """What is shown beside mistakes, in words."""
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
            tensors |= {f"{name}.{number}": getattr(moment, name) for name in ("filters", "pictures", "beside")}
        epochs = [{"metrics": _finite(m.metrics), "mistakes": m.mistakes} for m in self.moments]
        losses = [pair for pair in self.losses if math.isfinite(pair[1])]
        header = {"layer": self.layer, "beside": self.beside, "epochs": epochs, "losses": losses}
        storage.save(path, tensors, header)

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
                    tuple(map(str, epoch["mistakes"])),
                    tensors[f"beside.{number}"],
                )
                for number, epoch in enumerate(header["epochs"])
            ]
            losses = [(float(at), float(loss)) for at, loss in header["losses"]]
            return cls(header["layer"] and str(header["layer"]), tuple(map(str, header["beside"])), moments, losses)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FileError(f"{path}: is not what convolve train --look keeps ({error})") from None


class Watch:
    """A training's callback that notes what is to be seen of it, in `watched` and in a file."""

    def __init__(
        self,
        network: Network,
        samples: np.ndarray,
        worst: Worst,
        file: os.PathLike[str],
        beside: tuple[str, ...] = (),
    ) -> None:
        """`samples` are what mistakes are looked for among, `worst` finds them; nothing is learnt from them."""
        self._network, self._samples, self._worst, self._file = network, samples, worst, file
        with_some = with_filters(Anatomy(network))
        self.watched = Watched(with_some[0] if with_some else None, beside)

    def __call__(self, progress: Progress) -> None:
        watched = self.watched
        watched.progress = progress
        if not progress.epoch_done:
            _note(watched.losses, (progress.epoch - 1 + progress.step / progress.steps, progress.loss))
            return
        kept = filters(self._network, watched.layer).weights if watched.layer else NOTHING
        watched.moments.append(Moment(dict(progress.metrics), kept, *self._mistakes()))
        watched.save(self._file)

    def _mistakes(self) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
        parts = []
        for start in range(0, len(self._samples), BATCH):
            made = self._network.predict(np.ascontiguousarray(self._samples[start : start + BATCH]))
            parts.append(next(iter(made.values())).astype(np.float64))
        worst = self._worst(np.concatenate(parts))[:MISTAKES]
        pictures = _small([self._samples[m.index] for m in worst])
        beside = [_small([self._ranged(picture) for picture in m.beside]) for m in worst if m.beside]
        return pictures, tuple(m.said for m in worst), np.stack(beside) if beside else NOTHING

    def _ranged(self, picture: np.ndarray) -> np.ndarray:
        """A picture in the range of the samples' values."""
        if picture.dtype != np.uint8 or self._samples.dtype == np.uint8:
            return picture
        low, high = value_range(self._samples)
        return low + picture.astype(np.float32) * ((high - low) / 255)


def _small(samples: Sequence[np.ndarray]) -> np.ndarray:
    """Samples as small pictures, of volumes the middle slice."""
    small = [shrunk(sliced(sample, 0.5)[None], PICTURE)[0].astype(np.float32) for sample in samples]
    return np.stack(small) if small else NOTHING


def _note(losses: list[tuple[float, float]], pair: tuple[float, float]) -> None:
    losses.append(pair)
    if len(losses) > MOST_LOSSES:
        del losses[1::2]


def _finite(metrics: dict[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}
