"""What all scores have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from convolve.errors import ShapeError
from convolve.model import Model
from convolve.training.losses import Targets
from convolve.view.text import table

MOST_MISTAKES = 24
"""Samples that are kept as the worst."""
SHOWN = 5
"""Those of them that a table lists."""


@dataclass(frozen=True)
class Table:
    """Rows of text under heads; the first `left` columns begin at the left."""

    title: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    left: int = 1
    note: str = ""
    """What stands below it."""

    def __str__(self) -> str:
        note = f"\n{self.note}" if self.note else ""
        return table(self.heads, self.rows, self.left) + note


@dataclass(frozen=True)
class Mistake:
    """A sample that was mistaken: its number, what is wrong with it in words, its file's name, and how wrong it is."""

    index: int
    said: str
    name: str | None = None
    badness: float = 0.0

    @property
    def called(self) -> str:
        return self.name or f"sample {self.index}"


def worst_of(badness: NDArray[np.float64]) -> list[int]:
    """The rows that are worst, the worst first: as many as are kept."""
    found: list[int] = np.argsort(-badness, kind="stable")[:MOST_MISTAKES].tolist()
    return found


@dataclass(eq=False)
class Scores(ABC):
    """Counts over samples of which the truth is known.

    Args:
        classes: names of the classes, labels or values.
        names: of the samples' files, where they have some.
    """

    classes: tuple[str, ...]
    names: Sequence[str] = ()
    samples: int = 0
    total_loss: float = 0.0
    _worst: list[Mistake] = field(default_factory=list)

    targets: ClassVar[Targets]
    """What the net's outputs are trained against."""
    metric: ClassVar[str]
    """The metric by which runs are compared."""
    shows: ClassVar[tuple[str, ...]] = ()
    """What is seen beside a sample, in words."""

    @abstractmethod
    def add(self, output: NDArray[np.float64], target: NDArray[Any], first: int) -> None:
        """Count the net's output for samples from number `first` on."""

    @abstractmethod
    def metrics(self) -> dict[str, float]:
        """The metrics of the task, the loss first."""

    @abstractmethod
    def tables(self) -> list[Table]:
        """What there is beyond the metrics, class by class for instance."""

    @abstractmethod
    def mistakes(self) -> Table | None:
        """What went wrong, the worst first; `None` where nothing did."""

    @abstractmethod
    def sentence(self) -> str:
        """The result in a sentence."""

    @property
    def worst(self) -> Sequence[Mistake]:
        """Samples to show, the worst first."""
        return self._worst

    def remember(self, mistakes: Iterable[Mistake]) -> None:
        """Keep the worst of these and of those so far."""
        self._worst = sorted([*self._worst, *mistakes], key=lambda m: -m.badness)[:MOST_MISTAKES]

    def beside(self, sample: NDArray[Any], output: NDArray[Any], target: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """The pictures that `shows` names, (*spatial, channels): in bytes, or in the sample's own range."""
        return ()

    @property
    def loss(self) -> float:
        return self.total_loss / max(1, self.samples)

    @property
    def score(self) -> float:
        """The value of `metric`."""
        return self.metrics()[self.metric]

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        return {"images": self.samples, **self.metrics()}

    def check(self, model: Model) -> None:
        """
        Raises:
            ShapeError: the model's output is not what is counted.
        """
        if len(model.output_shape) != 1:
            raise ShapeError(
                f"this model's output has shape {model.output_shape}; expected one value a class, as a last Dense has"
            )

    def _name(self, index: int) -> str | None:
        return self.names[index] if self.names else None


def softmax(outputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities of logits, over the last axis."""
    grown = np.exp(outputs - outputs.max(-1, keepdims=True))
    return np.asarray(grown / grown.sum(-1, keepdims=True))


def sigmoid(outputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities of logits, each by itself."""
    return np.asarray(np.exp(-np.logaddexp(0, -outputs)))
