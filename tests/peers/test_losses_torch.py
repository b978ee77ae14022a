"""Losses and their gradients against PyTorch: every option, every form of target, at every rank."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from helpers import Array, assert_close, normal, run

from convolve import ops
from convolve.graph import differentiate, leaf
from convolve.training import losses
from convolve.training.losses import Loss, target_leaf

torch: Any = pytest.importorskip("torch")
functional: Any = torch.nn.functional

SPATIAL = {0: (), 1: (7,), 2: (3, 5), 3: (2, 3, 4)}
RANKS = list(SPATIAL)
BATCH = 6


def foreign(array: Array, channels: bool = True) -> Any:
    """Channels second, in float64; labels as they are."""
    tensor = torch.from_numpy(array)
    if not tensor.is_floating_point():
        return tensor.long()
    return (tensor.movedim(-1, 1) if channels else tensor).double().contiguous()


def compare(
    loss: Loss, theirs: Any, logits: Array, target: Array, channels: bool = True, tolerance: float = 1e-5
) -> None:
    """The loss, and its gradient by the logits."""
    x, y = leaf("input", "x", logits.shape), target_leaf(target)
    value = loss(ops.cast(x), y)
    found = run([value, *differentiate(value, [x])], {"x": logits, "y": target})
    given = foreign(logits, channels).requires_grad_()
    expected = theirs(given, foreign(target, channels))
    expected.backward()
    assert_close(found[0], expected.detach().numpy())
    gradient = given.grad
    assert_close(found[1], (gradient.movedim(1, -1) if channels else gradient).numpy(), tolerance)


def logits_of(rank: int, channels: int, scale: float = 3.0) -> Array:
    return normal((BATCH, *SPATIAL[rank], channels)) * np.float32(scale)


def labels_of(rank: int, classes: int) -> Array:
    return np.random.default_rng(rank).integers(0, classes, (BATCH, *SPATIAL[rank])).astype(np.int32)


def probabilities_of(rank: int, classes: int) -> Array:
    e = np.exp(normal((BATCH, *SPATIAL[rank], classes), 5))
    return (e / e.sum(-1, keepdims=True)).astype(np.float32)


def weights_of(classes: int) -> Array:
    return np.linspace(0, 3, classes).astype(np.float32)


@pytest.mark.parametrize(
    ("rank", "classes", "smoothing", "weighted", "soft"),
    list(product(RANKS, (2, 5, 19), (0.0, 0.2), (False, True), (False, True))),
    ids=str,
)
def test_cross_entropy(rank: int, classes: int, smoothing: float, weighted: bool, soft: bool) -> None:
    weights = weights_of(classes) if weighted else None
    theirs = torch.nn.CrossEntropyLoss(
        weight=None if weights is None else torch.from_numpy(weights).double(), label_smoothing=smoothing
    )
    target = (probabilities_of if soft else labels_of)(rank, classes)
    compare(losses.cross_entropy(smoothing, weights), theirs, logits_of(rank, classes), target)


WEIGHTS: dict[str, float | tuple[float, ...]] = {"one": 1.0, "several": 3.5, "a channel": (0.5, 1.0, 4.0)}


@pytest.mark.parametrize(("rank", "weight", "hard"), list(product(RANKS, WEIGHTS, (False, True))), ids=str)
def test_binary_cross_entropy(rank: int, weight: str, hard: bool) -> None:
    target = np.random.default_rng(rank).random((BATCH, *SPATIAL[rank], 3)).astype(np.float32)
    target = target.round() if hard else target
    theirs = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(WEIGHTS[weight]).double())
    compare(losses.binary_cross_entropy(WEIGHTS[weight]), theirs, logits_of(rank, 3), target, channels=False)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("delta", [0.3, 1.0, 2.5])
def test_huber(rank: int, delta: float) -> None:
    theirs = torch.nn.HuberLoss(delta=delta)
    compare(losses.huber(delta), theirs, logits_of(rank, 4), normal((BATCH, *SPATIAL[rank], 4), 1), channels=False)


@pytest.mark.parametrize("rank", RANKS)
def test_errors_squared_and_absolute(rank: int) -> None:
    x, y = logits_of(rank, 4), normal((BATCH, *SPATIAL[rank], 4), 1)
    compare(losses.mse(), torch.nn.MSELoss(), x, y, channels=False)
    compare(losses.mae(), torch.nn.L1Loss(), x, y, channels=False)


def dice(found: Any, true: Any, epsilon: float) -> Any:
    """PyTorch has none: its formula in PyTorch, for the gradient; channels second."""
    places = [axis for axis in range(found.ndim) if axis != 1]
    common, everything = (found * true).sum(places), found.sum(places) + true.sum(places)
    return (1 - (2 * common + epsilon) / (everything + epsilon)).mean()


@pytest.mark.parametrize(("rank", "epsilon"), list(product(RANKS, (1e-3, 1.0))), ids=str)
def test_dice(rank: int, epsilon: float) -> None:
    loss = losses.dice(epsilon)
    truth = (probabilities_of(rank, 2)[..., :1]).round()
    compare(loss, lambda x, t: dice(torch.sigmoid(x), t, epsilon), logits_of(rank, 1), truth)
    x = logits_of(rank, 5)
    hot = lambda t: functional.one_hot(t, 5).movedim(-1, 1)  # noqa: E731 - one line, used once
    compare(loss, lambda x, t: dice(torch.softmax(x, 1), hot(t), epsilon), x, labels_of(rank, 5))
    compare(loss, lambda x, t: dice(torch.softmax(x, 1), t, epsilon), x, probabilities_of(rank, 5))


SCALES = (50.0, 1e4, 1e30)


@pytest.mark.parametrize("scale", SCALES)
def test_extreme_logits(scale: float) -> None:
    """PyTorch's own losses are finite there in float64, and so are ours in float32."""
    x = logits_of(2, 5, scale)
    compare(losses.cross_entropy(0.1), torch.nn.CrossEntropyLoss(label_smoothing=0.1), x, labels_of(2, 5))
    compare(losses.cross_entropy(), torch.nn.CrossEntropyLoss(), x, probabilities_of(2, 5))
    truth = (x > scale / 3).astype(np.float32)
    compare(losses.binary_cross_entropy(), torch.nn.BCEWithLogitsLoss(), x, truth, channels=False)
    compare(losses.huber(), torch.nn.HuberLoss(), x, truth, channels=False)
    t = probabilities_of(2, 5)  # the gradient all but vanishes
    compare(losses.dice(), lambda x, t: dice(torch.softmax(x, 1), t, 1.0), x, t, tolerance=1e-2)
