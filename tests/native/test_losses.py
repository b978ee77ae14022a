"""Losses: their definitions, slopes and extremes, and what becomes of targets on their way through a model."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from helpers import Array, central_differences, check, normal

from convolve import (
    Conv,
    Dense,
    Flatten,
    GlobalAvgPool,
    Model,
    ReLU,
    Sequential,
    Sigmoid,
    Softmax,
    load,
    losses,
    ops,
    optim,
)
from convolve.errors import ConvolveError, DataError, ShapeError
from convolve.graph import Value, differentiate, evaluate, leaf
from convolve.training.losses import Loss, hits, target_leaf

BATCH = 4
SPATIAL = {0: (), 1: (5,), 2: (3, 4), 3: (2, 2, 3)}


def labels(rank: int, classes: int) -> Array:
    return np.random.default_rng(rank).integers(0, classes, (BATCH, *SPATIAL[rank])).astype(np.int32)


def probabilities(rank: int, classes: int) -> Array:
    drawn = np.random.default_rng(rank).dirichlet(np.ones(classes), (BATCH, *SPATIAL[rank]))
    return drawn.astype(np.float32)


def shares(rank: int, channels: int) -> Array:
    return np.random.default_rng(rank).random((BATCH, *SPATIAL[rank], channels)).astype(np.float32)


def numbers(rank: int, channels: int) -> Array:
    return normal((BATCH, *SPATIAL[rank], channels), 3)


# definitions, written as loops over rows


def log_softmax(row: Array) -> Array:
    return row - math.log(sum(math.exp(v) for v in row))


def cross_entropy(loss: Any, x: Array, y: Array) -> float:
    classes = x.shape[-1]
    weights = loss.class_weights or (1.0,) * classes
    labelled = y.ndim < x.ndim
    total, count = 0.0, 0.0
    for row in np.ndindex(x.shape[:-1]):
        logs = log_softmax(x[row])
        for c in range(classes):
            t = float(y[row] == c) if labelled else y[row][c]
            total -= weights[c] * ((1 - loss.smoothing) * t + loss.smoothing / classes) * logs[c]
        count += weights[y[row]] if labelled else 1
    return total / count


def binary_cross_entropy(loss: Any, x: Array, y: Array) -> float:
    weights = np.broadcast_to(loss.positive_weight, x.shape)
    p = 1 / (1 + np.exp(-x))
    return float(np.mean(-weights * y * np.log(p) - (1 - y) * np.log(1 - p)))


def huber(loss: Any, x: Array, y: Array) -> float:
    sizes = np.abs(x - y).ravel()
    return float(np.mean([d * d / 2 if d <= loss.delta else loss.delta * (d - loss.delta / 2) for d in sizes]))


def dice(loss: Any, x: Array, y: Array) -> float:
    classes = x.shape[-1]
    if classes == 1:
        p, t = 1 / (1 + np.exp(-x)), y
    else:
        p = np.exp([log_softmax(row) for row in x.reshape(-1, classes)]).reshape(x.shape)
        t = np.eye(classes)[y] if y.ndim < x.ndim else y
    scores = []
    for c in range(classes):
        common, found, true = (p[..., c] * t[..., c]).sum(), p[..., c].sum(), t[..., c].sum()
        scores.append(1 - (2 * common + loss.epsilon) / (found + true + loss.epsilon))
    return float(np.mean(scores))


@dataclass(frozen=True)
class Case:
    """A loss, its definition, channels of the output and what makes targets."""

    loss: Loss
    definition: Callable[[Any, Array, Array], float]
    channels: int
    target: Callable[[int, int], Array]

    def __str__(self) -> str:
        return f"{self.loss}, {self.channels} {self.target.__name__}"


CROSS_ENTROPIES = [losses.cross_entropy(s, w) for s in (0.0, 0.1) for w in (None, (0.0, 1.0, 2.5))]
CASES = [
    *(Case(loss, cross_entropy, 3, target) for loss in CROSS_ENTROPIES for target in (labels, probabilities)),
    *(Case(losses.binary_cross_entropy(w), binary_cross_entropy, 2, shares) for w in (1.0, 0.25, (0.5, 4.0))),
    Case(losses.mse(), lambda loss, x, y: float(np.mean((x - y) ** 2)), 2, numbers),
    Case(losses.mae(), lambda loss, x, y: float(np.mean(np.abs(x - y))), 2, numbers),
    *(Case(losses.huber(delta), huber, 2, numbers) for delta in (0.5, 2.0)),
    Case(losses.dice(), dice, 1, shares),
    *(Case(losses.dice(0.1), dice, 3, target) for target in (labels, probabilities)),
]


def graph(case: Case, x: Array, y: Array) -> tuple[Value, Value]:
    """The loss, and its gradient by the output."""
    output = leaf("input", "x", x.shape)
    value = case.loss(output, target_leaf(y))
    return value, differentiate(value, [output])[0]


@pytest.mark.parametrize("rank", SPATIAL)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_loss_is_its_definition_and_its_gradient_the_slope(case: Case, rank: int) -> None:
    x, y = numbers(rank, case.channels).astype(np.float64), case.target(rank, case.channels)
    value, gradient = graph(case, x, y)
    feeds = {"x": x, "y": y}
    found, slopes = evaluate([value, gradient], feeds)
    assert float(found) == pytest.approx(case.definition(case.loss, x, y), rel=1e-6)
    np.testing.assert_allclose(slopes, central_differences(value, "x", feeds), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("rank", SPATIAL)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_compiled_losses_are_their_references(case: Case, rank: int) -> None:
    x, y = numbers(rank, case.channels), case.target(rank, case.channels)
    check(graph(case, x, y), {"x": x, "y": y})


@pytest.mark.parametrize("scale", [100.0, 1e10, 1e30])
@pytest.mark.parametrize("case", [case for case in CASES if case.loss != losses.mse()], ids=str)
def test_extreme_outputs_leave_loss_and_gradient_finite(case: Case, scale: float) -> None:
    """All but the mean square: that of 1e30 is no float32."""
    x, y = numbers(2, case.channels) * np.float32(scale), case.target(2, case.channels)
    x[0, 0, 0] = 0
    model = Model(Sequential(), x.shape[1:])
    loss, _ = model.gradients(x, y, case.loss)
    assert math.isfinite(loss)
    check([graph(case, x, y)[1]], {"x": x, "y": y}, 1e-2)


def test_a_logit_of_zero_has_a_slope() -> None:
    """A net whose last layer starts at zero learns."""
    x, y = np.zeros((2, 2)), np.array([[1.0, 0.0], [0.25, 1.0]], np.float32)
    case = Case(losses.binary_cross_entropy(), binary_cross_entropy, 2, shares)
    np.testing.assert_allclose(evaluate([graph(case, x, y)[1]], {"x": x, "y": y})[0], (0.5 - y) / 4)


def test_labels_that_all_weigh_nothing_cost_nothing() -> None:
    x, y = normal((3, 4)), np.zeros(3, np.int32)
    for smoothing in (0.0, 0.1):
        case = Case(losses.cross_entropy(smoothing, (0, 1, 1, 1)), cross_entropy, 4, labels)
        for found in evaluate(graph(case, x, y), {"x": x, "y": y}):
            assert not found.any()


def test_a_class_that_is_nowhere_and_seen_nowhere_costs_nothing() -> None:
    x, y = np.array([[9.0, 0.0, -99.0]] * 5), np.zeros(5, np.int32)
    case = Case(losses.dice(), dice, 3, labels)
    [value] = evaluate(graph(case, x, y)[:1], {"x": x, "y": y})
    assert value < 1e-3


WEIGHED = [case for case in CASES if case.target is not labels and not isinstance(case.loss, losses.Dice)]
WEIGHED = [case for case in WEIGHED if getattr(case.loss, "class_weights", None) is None]


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("case", WEIGHED, ids=str)
def test_a_weighted_loss_is_the_mean_of_weighted_terms(case: Case, rank: int) -> None:
    """Each row of the last axis has a weight: what it costs alone, times that."""
    x, y = numbers(rank, case.channels).astype(np.float64), case.target(rank, case.channels).astype(np.float64)
    weights = np.random.default_rng(1).random((*x.shape[:-1], 1))
    whole = Case(losses.Weighted(case.loss), case.definition, case.channels, case.target)
    given = np.concatenate([y, weights], -1).astype(np.float32)
    costs = [
        case.definition(case.loss, x[row][None], y[row][None]) * weights[row].item()
        for row in np.ndindex(*x.shape[:-1])
    ]
    value, gradient = graph(whole, x, given)
    feeds = {"x": x, "y": given}
    found, slopes = evaluate([value, gradient], feeds)
    assert float(found) == pytest.approx(np.mean(costs), rel=1e-5)
    np.testing.assert_allclose(slopes, central_differences(value, "x", feeds), rtol=1e-6, atol=1e-9)
    x = x.astype(np.float32)
    check(graph(whole, x, given), {"x": x, "y": given})


@pytest.mark.parametrize(
    ("loss", "words"),
    [(losses.dice(), "dice is no mean over samples"), (losses.cross_entropy(0.0, (1, 2)), "class_weights or weights")],
    ids=str,
)
def test_what_cannot_be_weighted_says_so(loss: Loss, words: str) -> None:
    x, y = leaf("input", "x", (3, 2)), leaf("input", "y", (3, 3))
    with pytest.raises(ConvolveError, match=words):
        losses.Weighted(loss)(x, y)


def test_losses_are_values() -> None:
    """They are part of the keys of programs."""
    assert losses.cross_entropy(0.1, [1, 2]) == losses.cross_entropy(0.1, np.array([1.0, 2.0]))
    assert hash(losses.binary_cross_entropy((1, 2))) == hash(losses.binary_cross_entropy([1.0, 2.0]))
    assert losses.binary_cross_entropy(np.float32(2)) == losses.binary_cross_entropy(2) != losses.binary_cross_entropy()
    for name, cls in losses.NAMES.items():
        assert losses.resolve(name) == cls() == getattr(losses, name)()
    with pytest.raises(ConvolveError, match="loss must be one of cross_entropy, binary_cross_entropy, mse, mae, huber"):
        losses.resolve("hinge")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: losses.cross_entropy(1.0), "smoothing must be from 0 to below 1. Received: smoothing=1.0"),
        (lambda: losses.cross_entropy(-0.1), "smoothing must be from 0"),
        (lambda: losses.cross_entropy(math.nan), "smoothing must be from 0"),
        (
            lambda: losses.cross_entropy(class_weights=(1, -1)),
            "class_weights are numbers in a row, none of them negative",
        ),
        (lambda: losses.cross_entropy(class_weights=(0, 0)), "class_weights are all 0"),
        (lambda: losses.cross_entropy(class_weights=()), "class_weights are numbers"),
        (lambda: losses.cross_entropy(class_weights=2.0), "class_weights are numbers in a row"),  # type: ignore[arg-type]
        (lambda: losses.cross_entropy(class_weights="ab"), "class_weights are numbers"),  # type: ignore[arg-type]
        (lambda: losses.cross_entropy(class_weights=[[1.0]]), "class_weights are numbers"),  # type: ignore[list-item]
        (lambda: losses.cross_entropy(class_weights=(1, math.inf)), "class_weights are numbers"),
        (lambda: losses.binary_cross_entropy(-1.0), "positive_weight are numbers in a row, none of them negative"),
        (lambda: losses.binary_cross_entropy(math.nan), "positive_weight"),
        (lambda: losses.binary_cross_entropy("x"), "positive_weight"),  # type: ignore[arg-type]
        (lambda: losses.huber(0), "delta must be positive. Received: delta=0"),
        (lambda: losses.huber(math.inf), "delta must be positive"),
        (lambda: losses.dice(0), "epsilon must be positive. Received: epsilon=0"),
    ],
)
def test_options_that_make_no_sense(make: Callable[[], Loss], words: str) -> None:
    with pytest.raises(ConvolveError, match=words):
        make()


# through a model


def classifier(classes: int = 3) -> Model:
    return Model(Sequential(Conv(5, 3), ReLU(), GlobalAvgPool(), Dense(classes)), (6, 6, 2), seed=1)


def segmenter(rank: int, channels: int) -> Model:
    return Model(Sequential(Conv(17, 3), ReLU(), Conv(channels, 1)), (*SPATIAL[rank], 2), seed=rank)


PIXEL_CASES = [case for case in CASES if case.target is not numbers]


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("case", PIXEL_CASES, ids=str)
def test_a_target_for_each_position(case: Case, rank: int) -> None:
    """Through gradients, step and evaluate: loss and gradients are the references'."""
    model, x = segmenter(rank, case.channels), normal((BATCH, *SPATIAL[rank], 2))
    model.network.arena.poison = True
    y = case.target(rank, case.channels)
    forward = model.network.forward(BATCH, training=True)
    value = case.loss(forward.output, target_leaf(y))
    leaves = [forward.construction.leaves[name] for name in model.parameters]
    feeds = {"x": x.astype(np.float64), "y": y, **{k: a.astype(np.float64) for k, a in model.parameters.items()}}
    output, expected, *slopes = evaluate([forward.output, value, *differentiate(value, leaves)], feeds)
    given: Any = y.astype(np.int64) if y.dtype == np.int32 else y.astype(np.float64)
    loss, found = model.gradients(x, given, case.loss)
    assert loss == pytest.approx(float(expected), rel=1e-5)
    for (name, array), slope in zip(found.items(), slopes, strict=True):
        np.testing.assert_allclose(array, slope, rtol=0, atol=1e-5 * np.abs(slope).max(), err_msg=name)
    metrics = model.evaluate(x, given, loss=case.loss)
    assert metrics["loss"] == pytest.approx(loss, rel=1e-6)
    assert metrics["accuracy"] == hits(case.loss, output, y).mean()
    assert model.trainer(case.loss).step(x, given) == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("case", PIXEL_CASES, ids=str)
def test_any_number_of_threads_gives_the_same_bits(case: Case) -> None:
    repeated = (1, 8, 5)  # enough for many pieces
    x, y = (
        np.tile(a, (*repeated, *(1,) * (a.ndim - 3))) for a in (normal((BATCH, 3, 4, 2)), case.target(2, case.channels))
    )
    net = Sequential(Conv(17, 3), ReLU(), Conv(case.channels, 1))
    made = [Model(net, x.shape[1:], threads=threads).gradients(x, y, case.loss) for threads in (1, 2, 3)]
    for loss, found in made[1:]:
        assert loss == made[0][0]
        for name, array in found.items():
            np.testing.assert_array_equal(array, made[0][1][name])


def test_a_one_hot_probability_is_its_label() -> None:
    model, x, y = classifier(), normal((8, 6, 6, 2)), np.arange(8) % 3
    for smoothing in (0.0, 0.1):
        loss = losses.cross_entropy(smoothing)
        hard, soft = (model.gradients(x, target, loss) for target in (y, np.eye(3)[y]))
        assert hard[0] == pytest.approx(soft[0], rel=1e-6)
        for name, array in hard[1].items():
            np.testing.assert_allclose(soft[1][name], array, rtol=1e-4, atol=1e-7)
    assert model.evaluate(x, y)["accuracy"] == model.evaluate(x, np.eye(3, dtype=int)[y])["accuracy"]


def test_mixed_up_labels_train_and_validate() -> None:
    """Soft labels in training, soft or hard ones in validation, through one model."""
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 60)
    centres = np.array([[0, 0], [2, 0], [0, 2]])
    x = (random.standard_normal((60, 6, 6, 2)) * 0.3 + centres[y][:, None, None]).astype(np.float32)
    part = random.beta(0.4, 0.4, 60)[:, None]
    other = random.permutation(60)
    mixed = part[..., None, None] * x + (1 - part[..., None, None]) * x[other]
    soft = part * np.eye(3)[y] + (1 - part) * np.eye(3)[y[other]]
    for held in (y, np.eye(3)[y]):
        model = classifier()
        history = model.fit(
            mixed, soft, epochs=40, batch_size=16, optimizer=optim.Adam(0.02), validation=(x, held), seed=1
        )
        assert history["validation_loss"][-1] < 0.5 * history["validation_loss"][0]
        assert history["validation_accuracy"][-1] > 0.9
        assert 0 < history["accuracy"][-1] <= 1
    assert model.evaluate(x, y)["accuracy"] == history["validation_accuracy"][-1]


def test_yes_or_no() -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((80, 6)).astype(np.float32)
    y = x[:, 0] + x[:, 1] > 0.5
    model = Model(Sequential(Dense(8), ReLU(), Dense(1)), (6,), seed=0)
    history = model.fit(x, y, epochs=60, optimizer=optim.Adam(0.02), loss="binary_cross_entropy", validation=(x, y))
    metrics = model.evaluate(x, y, loss="binary_cross_entropy")
    assert (
        metrics["accuracy"] == history["validation_accuracy"][-1] == ((model.predict(x)[:, 0] > 0) == y).mean() > 0.95
    )
    np.testing.assert_array_equal(model.classify(x), model.predict(x)[:, 0] > 0)
    model.classes = ("no", "yes")
    assert model.classify(x)[:3] == [("no", "yes")[int(v > 0)] for v in model.predict(x[:3])[:, 0]]


def test_several_labels_are_those_above_a_half() -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((60, 4)).astype(np.float32)
    model = Model(Dense(3), (4,), seed=0)
    model.fit(x, x[:, :3] > 0.2, epochs=30, optimizer=optim.Adam(0.05), loss="binary_cross_entropy")
    there = model.predict(x) > 0
    assert model.classify(x) == [np.flatnonzero(row).tolist() for row in there]
    model.classes = ("a", "b", "c")
    named = [[name for name, one in zip("abc", row, strict=True) if one] for row in there]
    assert model.classify(x) == named
    assert load(model.to_bytes()).classify(x) == named
    assert pickle.loads(pickle.dumps(model)).classify(x[:3]) == named[:3]
    model.replace_head(2)  # nothing is known of what the new one learns
    assert set(np.asarray(model.classify(x)).tolist()) <= {0, 1}


def test_values_are_no_classes() -> None:
    x = np.linspace(-1, 1, 8, dtype=np.float32)[:, None]
    model = Model(Dense(2), (1,))
    model.fit(x, np.repeat(x, 2, 1), loss="mse")
    with pytest.raises(ConvolveError, match=r"trained to give values, no classes: call predict"):
        load(model.to_bytes()).classify(x)


def test_a_segmenter_learns_and_classifies_each_position() -> None:
    random = np.random.default_rng(0)
    y = np.zeros((12, 8, 8), np.uint8)
    y[:, 2:6, 3:] = 1
    y[:6, :2] = 2
    x = (random.standard_normal((12, 8, 8, 2)) * 0.1 + y[..., None]).astype(np.float32)
    for loss in (losses.cross_entropy(class_weights=(1, 2, 3)), losses.dice()):
        model = Model(Sequential(Conv(8, 3), ReLU(), Conv(3, 1)), (8, 8, 2), seed=0)
        history = model.fit(x, y, epochs=100, batch_size=5, optimizer=optim.Adam(0.03), loss=loss)
        assert history["loss"][-1] < 0.3 * history["loss"][0]
        assert history["accuracy"][-1] > 0.9
        found = np.asarray(model.classify(x))
        assert found.shape == y.shape
        assert model.evaluate(x, y, loss=loss)["accuracy"] == (found == y).mean()
        model.classes = ("ground", "thing", "sky")
        named: Any = model.classify(x[:1])
        assert named[0][0][0] == model.classes[found[0, 0, 0]]


def test_accuracy_is_only_where_something_is_decided() -> None:
    x, y = normal((6, 4)), normal((6, 2))
    for loss in ("mse", "mae", "huber"):
        model = Model(Dense(2), (4,))
        assert model.evaluate(x, y, loss=loss).keys() == {"loss"}
        assert model.fit(x, y, epochs=1, loss=loss)["accuracy"] == []


class Labelled(Loss):
    """A person's own: the mean logit of what is not the label."""

    def targets(self, output_shape: tuple[int, ...]) -> losses.Targets:
        return "classes"

    def __call__(self, output: Value, target: Value) -> Value:
        hot = ops.equal(ops.reshape(target, (*target.shape, 1)), ops.vector(range(output.shape[-1])))
        return ops.mean(output * (1.0 - hot * output.shape[-1]))


def test_a_loss_of_ones_own_may_take_labels() -> None:
    model, x, y = classifier(), normal((8, 6, 6, 2)), np.arange(8) % 3
    made = model.predict(x).astype(np.float64)
    metrics = model.evaluate(x, y, loss=Labelled())
    assert metrics["loss"] == pytest.approx(np.mean(made * (1 - 3 * np.eye(3)[y])), abs=1e-6)
    assert metrics["accuracy"] == (made.argmax(-1) == y).mean()
    with pytest.raises(DataError, match="label 3 at index 7"):
        model.evaluate(x, [0] * 7 + [3], loss=Labelled())


# what does not fit


X = np.zeros((2, 6, 6, 2), np.float32)


@pytest.mark.parametrize(
    ("model", "loss", "y", "error", "words"),
    [
        (
            classifier(),
            "cross_entropy",
            [0, 3],
            DataError,
            "received label 3 at index 1; expected whole numbers 0 to 2",
        ),
        (classifier(), "cross_entropy", [0], DataError, "received 1 labels for 2 images"),
        (
            classifier(),
            "cross_entropy",
            np.eye(4)[:2],
            ShapeError,
            r"expected labels \(2,\).* or probabilities \(2, 3\)",
        ),
        (classifier(), "cross_entropy", np.eye(3)[:1], ShapeError, r"received shape \(1, 3\)"),
        (classifier(), "cross_entropy", [[1, 0, 0], [0.5, 0.6, 0]], DataError, "sum to 1.1 at index 1; .*softmax"),
        (classifier(), "cross_entropy", [[1, 0, 0], [1.5, -0.5, 0]], DataError, r"received -0.5 at index \(1, 1\)"),
        (classifier(), "cross_entropy", [[1, 0, 0], [np.nan, 1, 0]], DataError, "finite"),
        (classifier(), losses.cross_entropy(class_weights=(1, 2)), [0, 1], ShapeError, "2 class_weights, one a class"),
        (classifier(1), "cross_entropy", [0, 1], ShapeError, "over one class is always 0: use binary_cross_entropy"),
        (classifier(2), "binary_cross_entropy", [0, 1], ShapeError, r"received shape \(2,\); expected \(2, 2\)"),
        (classifier(1), "binary_cross_entropy", [0, 2], DataError, r"received 2.0 at index \(1, 0\); .* 0 \(no\) to 1"),
        (classifier(1), "binary_cross_entropy", [-0.1, 1], DataError, r"received -0.1.* at index \(0, 0\)"),
        (
            classifier(2),
            losses.binary_cross_entropy((1, 2, 3)),
            np.zeros((2, 2)),
            ShapeError,
            "3 numbers as positive_we",
        ),
        (segmenter(2, 3), "cross_entropy", [0, 1], ShapeError, r"expected labels \(2, 3, 4\).*end the net in Dense"),
        (segmenter(2, 3), "cross_entropy", np.zeros((2, 4, 3)), ShapeError, r"received shape \(2, 4, 3\)"),
        (segmenter(2, 3), "cross_entropy", np.full((2, 3, 4), 3), DataError, r"label 3 at index \(0, 0, 0\)"),
        (segmenter(2, 3), "dice", np.zeros((2, 3, 4, 3)), DataError, r"sum to 0 at index \(0, 0, 0\)"),
        (segmenter(2, 1), "dice", np.full((2, 3, 4), 2), DataError, r"received 2.0 at index \(0, 0, 0, 0\)"),
        (classifier(), "huber", [0, 1], ShapeError, r"received shape \(2,\); expected \(2, 3\)"),
        (classifier(), "mae", [["a"] * 3] * 2, ShapeError, "expected real numbers"),
    ],
)
def test_targets_that_do_not_fit_are_told_everywhere(model: Model, loss: Any, y: Any, error: Any, words: str) -> None:
    x = np.zeros((2, *model.input_shape), np.float32)
    for use in (model.evaluate, model.gradients, model.fit, lambda x, y, loss: model.trainer(loss).step(x, y)):
        with pytest.raises(error, match=words):
            use(x, y, loss=loss)


def test_targets_for_validation_are_looked_at_before_the_training() -> None:
    model = classifier()
    before = dict(model.parameters)
    for held in ((X, [0, 3]), (X[..., :1], [0, 1])):
        with pytest.raises(ConvolveError, match=r"received (label 3|shape)"):
            model.fit(X, [0, 1], validation=held)
    for name, array in model.parameters.items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "dice"])
@pytest.mark.parametrize("last", [Softmax(), Sigmoid()], ids=lambda layer: type(layer).__name__)
def test_logits_are_asked_for(last: Any, loss: str) -> None:
    model = Model(Sequential(Flatten(), Dense(3), last), (6, 6, 2))
    y = np.zeros((2, 3)) if loss == "binary_cross_entropy" else [0, 1]
    words = f"{loss} takes logits, and this net ends in {type(last).__name__}: remove that layer"
    for use in (model.evaluate, model.gradients, model.fit):
        with pytest.raises(ShapeError, match=words):
            use(X, y, loss=loss)
    model.evaluate(X, np.zeros((2, 3)), loss="mse")
