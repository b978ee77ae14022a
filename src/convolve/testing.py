"""A conformance suite for layers: convolve's own pass it, and so should yours.

>>> from dataclasses import dataclass
>>> from convolve import Layer, ops
>>> from convolve.testing import check_layer
>>> @dataclass(frozen=True)
... class Swish(Layer):
...     name: str | None = None
...     def build(self, scope, x):
...         return x * ops.sigmoid(x)
>>> check_layer(Swish(), (6, 6, 3))

With pytest, every check is a test of its own:

    @pytest.mark.parametrize("check", checks(Swish(), (6, 6, 3)), ids=str)
    def test_swish(check):
        check()
"""

from __future__ import annotations

import copy
import pickle
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convolve.errors import ConvolveError
from convolve.graph import Graph, Shape, Value, differentiate, evaluate, leaf
from convolve.layers import Input, Layer, Net, Sequential
from convolve.model import Model, load
from convolve.network import Forward
from convolve.training import losses, optim

Array = NDArray[Any]

TOLERANCE = 1e-5
"""Largest error of native code over the largest element of the result."""
STEP = 1e-6
"""Of central differences, in float64."""
ENTRIES = 8
"""Elements of each array whose derivatives are looked at one by one."""
RATE = 0.125
WRONG_SHAPES: tuple[Shape, ...] = ((1,), (5,), (1, 1), (2, 5), (1, 1, 1), (2, 2, 5), (1, 1, 1, 1), (2, 2, 2, 5))


def check_layer(
    layer: Layer, input_shape: Shape, *, batch: int = 3, seed: int = 0, tolerance: float = TOLERANCE
) -> None:
    """Run every check on one layer, or on any net of layers.

    Args:
        layer: what to check; a layer of several inputs comes as the `Net` that calls it.
        input_shape: (*spatial, channels) of a sample; small ones are checked as well, and faster.
        batch: samples at once.
        seed: of the parameters and of the data.
        tolerance: largest error of native code, over the largest element of a result; deep nets need more.

    Raises:
        AssertionError: a check failed; the message says which, where, what was found and what was expected.
    """
    for check in checks(layer, input_shape, batch=batch, seed=seed, tolerance=tolerance):
        check()


def checks(
    layer: Layer, input_shape: Shape, *, batch: int = 3, seed: int = 0, tolerance: float = TOLERANCE
) -> Iterator[Check]:
    """The checks of `check_layer`, one by one.

    >>> from convolve import ReLU
    >>> [str(check) for check in checks(ReLU(), (2, 3))][:3]
    ['shapes', 'definition', 'unfused']
    """
    for function in CHECKS:
        yield Check(function, layer, input_shape, batch, seed, tolerance)


@dataclass(frozen=True)
class Check:
    """One check of one layer: call it."""

    function: Callable[[Subject], None]
    layer: Layer
    input_shape: Shape
    batch: int
    seed: int
    tolerance: float

    def __call__(self) -> None:
        try:
            self.function(Subject(self))
        except AssertionError as error:
            raise AssertionError(f"{self.layer!r} over inputs {self.input_shape}, {self}: {error}") from None

    def __str__(self) -> str:
        return self.function.__name__.removeprefix("check_")


class Subject:
    """A layer with data: its model, whose arrays are all away from zero and whose working memory begins full of NaN."""

    def __init__(self, check: Check) -> None:
        self.check, self.layer, self.batch, self.tolerance = check, check.layer, check.batch, check.tolerance
        self.random = np.random.default_rng(check.seed)
        self.model = Model(check.layer, check.input_shape, seed=check.seed)
        self.network = self.model.network
        self.network.arena.poison = True
        for name, array in self.model.parameters.items():
            self.model.parameters[name] = array + 0.1 * self.normal(array.shape)
        for name, array in self.model.statistics.items():
            self.model.statistics[name] = array + 0.1 * np.abs(self.normal(array.shape))
        self.x = self.normal((check.batch, *self.model.input_shape))
        self.y = self.normal((check.batch, *self.model.output_shape))

    def normal(self, shape: Shape) -> Array:
        return self.random.standard_normal(shape, np.float32)

    def feeds(self) -> dict[str, Array]:
        """What the reference computes with, in float64."""
        arrays = {"x": self.x, "y": self.y, **self.model.parameters, **self.model.statistics}
        return {key: a.astype(np.float64) for key, a in arrays.items()} | {"random": np.zeros(2, np.int64)}

    def close(self, got: Array, true: Array, what: str, scale: float = 0.0, tolerance: float | None = None) -> None:
        """`got` equals `true`, measured by its largest element or by `scale`, whichever is larger."""
        tolerance = self.tolerance if tolerance is None else tolerance
        _require(got.shape == true.shape, f"{what} has shape {got.shape}, its definition {true.shape}")
        if true.size:
            wrong = ~(np.abs(got - true) <= tolerance * max(scale, float(np.abs(true).max())))
            index = tuple(int(i) for i in np.unravel_index(int(wrong.argmax()), wrong.shape))
            _require(
                not wrong.any(),
                f"{what} is {got[index]} at {index}, by definition {true[index]}; {wrong.sum()} of {wrong.size} differ",
            )


@dataclass(frozen=True)
class Step:
    """The graph of a training step of a subject: mean squared error, and what may be differentiated."""

    forward: Forward
    loss: Value
    leaves: dict[str, Value]
    gradients: dict[str, Value]

    @classmethod
    def of(cls, s: Subject) -> Step:
        forward = s.network.forward(s.batch, training=True)
        loss = losses.MeanSquaredError()(forward.output, leaf("input", "y", forward.output.shape))
        leaves = {"x": forward.input} | {name: forward.construction.leaves[name] for name in s.model.parameters}
        found = differentiate(loss, list(leaves.values()))
        return cls(forward, loss, leaves, dict(zip(leaves, found, strict=True)))


# the checks, in order


def check_shapes(s: Subject) -> None:
    """Shapes inferred when the net is built are those of what its definition computes."""
    for training in (False, True):
        rows = s.network.forward(s.batch, training=training).construction.rows
        for row, array in zip(rows, evaluate([row.output for row in rows], s.feeds()), strict=True):
            _require(
                row.output.shape == array.shape,
                f"{row.path} was inferred to give {row.output.shape} and gives {array.shape} by definition",
            )
    x = Input()
    called = Model(Net(x, s.layer(x)), s.model.input_shape).output_shape
    _require(called == s.model.output_shape, f"called on Input() it gives {called}, alone {s.model.output_shape}")


def check_definition(s: Subject) -> None:
    """Native predictions equal the plain references; bytes are taken as the same numbers in float32."""
    [true] = evaluate([s.network.forward(s.batch).output], s.feeds())
    s.close(s.model.predict(s.x), true, "predict(x)")
    bits = s.random.integers(0, 256, s.x.shape).astype(np.uint8)
    _same(s.model.predict(bits), s.model.predict(bits.astype(np.float32)), "predict of uint8 and of float32")


def check_unfused(s: Subject) -> None:
    """Every inner activation equals its definition, each in memory of its own."""
    rows = s.network.forward(s.batch).construction.rows
    true = evaluate([row.output for row in rows], s.feeds())
    found = s.model.trace(s.x)
    for row, array in zip(rows, true, strict=True):
        s.close(found[row.path], array, f"trace(x)[{row.path!r}]")


def check_derivatives(s: Subject) -> None:
    """The gradient rules, in float64, equal central differences of the definition."""
    step, feeds = Step.of(s), s.feeds()

    def loss_at(key: str, moved: Array) -> float:
        return float(evaluate([step.loss], {**feeds, key: moved})[0])

    def slope(key: str, direction: Array) -> float:
        ahead, behind = (loss_at(key, feeds[key] + sign * STEP * direction) for sign in (1, -1))
        return (ahead - behind) / (2 * STEP)

    found = dict(zip(step.leaves, evaluate(list(step.gradients.values()), feeds), strict=True))
    largest = _largest(found)
    for key, gradient in found.items():
        directions = {"a random direction": s.normal(gradient.shape)}
        for i in s.random.permutation(gradient.size)[:ENTRIES]:
            index = tuple(int(n) for n in np.unravel_index(int(i), gradient.shape))
            directions[str(index)] = np.zeros(gradient.shape)
            directions[str(index)][index] = 1
        for place, direction in directions.items():
            got, true = np.sum(gradient * direction), slope(key, direction)
            size = float(np.sqrt(np.sum(direction**2))) * largest
            s.close(got, np.asarray(true), f"the derivative by {key} along {place}", size, 1e-5)


def check_gradients(s: Subject) -> None:
    """Native gradients, by the input and by the parameters, equal the rules in float64."""
    step = Step.of(s)
    values = {"loss": step.loss, "output": step.forward.output} | step.gradients
    true = dict(zip(values, evaluate(list(values.values()), s.feeds()), strict=True))
    largest = _largest({key: true[key] for key in step.leaves})
    for fused in (True, False):
        executable = s.network.executable(("check", fused), lambda: Graph(values), fused)
        made = s.network.run(executable, {"x": s.x, "y": s.y}, tuple(values))
        for key, array in made.items():
            gradient = key in step.leaves
            what = f"the gradient by {key}" if gradient else f"the training {key}"
            s.close(array, true[key], f"{what}{'' if fused else ', unfused'}", largest if gradient else 0.0)
    loss, found = s.model.gradients(s.x, s.y, loss="mse")
    s.close(np.asarray(loss), true["loss"], "the loss of model.gradients")
    for name, array in found.items():
        s.close(array, true[name], f"model.gradients by {name}", largest)


def check_step(s: Subject) -> None:
    """A training step moves parameters against their gradients, and statistics as the layer says."""
    if not s.model.parameters:
        return
    before = dict(s.model.parameters)
    updates = Step.of(s).forward.construction.updates
    true = evaluate([value for _, value in updates], s.feeds())
    _, gradients = s.model.gradients(s.x, s.y, loss="mse")
    s.model.trainer(loss="mse", optimizer=optim.SGD(RATE)).step(s.x, s.y)
    largest = max(float(np.abs(a).max()) for a in before.values())
    for name, array in s.model.parameters.items():
        s.close(array, before[name] - RATE * gradients[name], f"{name} after a step", largest)
    for (statistic, _), array in zip(updates, true, strict=True):
        s.close(s.model.statistics[statistic.label], array, f"{statistic.label} after a step")


def check_threads(s: Subject) -> None:
    """1, 2 and 3 threads give the same bits, in prediction and in training."""
    found = []
    for threads in (1, 2, 3):
        model = Subject(s.check).model
        model.network.threads = threads
        made = {"predict(x)": model.predict(s.x)} | model.gradients(s.x, s.y, loss="mse")[1]
        if model.parameters:
            trainer = model.trainer(loss="mse", optimizer=optim.SGD(RATE, momentum=0.9))
            made["the loss of two steps"] = np.array([trainer.step(s.x, s.y) for _ in range(2)])
            made |= {f"{name} after two steps": a for name, a in (*model.parameters.items(), *model.statistics.items())}
        found.append(made)
    for what, array in found[0].items():
        for threads, other in zip((2, 3), found[1:], strict=True):
            _same(other[what], array, f"{what} on {threads} threads and on 1")


def check_batches(s: Subject) -> None:
    """A sample's prediction does not depend on its batch."""
    whole = s.model.predict(s.x)
    for count in range(1, s.batch):
        _same(s.model.predict(s.x[:count]), whole[:count], f"predict of {count} samples and of {s.batch}")


def check_copies(s: Subject) -> None:
    """Copies and pickled models predict the same bits, and have arrays of their own."""
    before = s.model.predict(s.x)
    for how, made in (
        ("model.copy()", s.model.copy()),
        ("copy.deepcopy(model)", copy.deepcopy(s.model)),
        ("a pickled model", pickle.loads(pickle.dumps(s.model))),
    ):
        _same(made.predict(s.x), before, f"predict of {how} and of the model")
        for name, array in made.parameters.items():
            made.parameters[name] = array * 0
        _same(s.model.predict(s.x), before, f"predict before and after a change to {how}")


def check_files(s: Subject) -> None:
    """A saved model loads with the same bits, and saves as the same file."""
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder) / "first.safetensors", Path(folder) / "second.safetensors"
        s.model.save(first)
        loaded = load(first)
        loaded.save(second)
        _require(first.read_bytes() == second.read_bytes(), "a loaded model is saved as another file")
    _same(loaded.predict(s.x), s.model.predict(s.x), "predict of a loaded model and of the model")
    mine, other = (model.gradients(s.x, s.y, loss="mse") for model in (s.model, loaded))
    _same(np.asarray(other[0]), np.asarray(mine[0]), "the training loss of a loaded model and of the model")


def check_errors(s: Subject) -> None:
    """An input that does not suit the layer is refused with its name and what was received, or works."""
    for shape in WRONG_SHAPES:
        try:
            Model(Sequential(s.layer), shape)
        except ConvolveError as error:
            text, name = str(error), s.layer.name or f"{s.layer.kind()}1"
            _require(name in text, f"an input of {shape} is refused without the layer's name, {name}: {text}")
            _require("Received: " in text, f"an input of {shape} is refused without what was received: {text}")


CHECKS: tuple[Callable[[Subject], None], ...] = (
    *(check_shapes, check_definition, check_unfused, check_derivatives, check_gradients, check_step),
    *(check_threads, check_batches, check_copies, check_files, check_errors),
)
"""What `check_layer` runs, in order."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _same(got: Array, true: Array, what: str) -> None:
    """The same bits."""
    _require(got.shape == true.shape, f"{what} differ: shapes {got.shape} and {true.shape}")
    differ = int(np.sum(got.view(f"u{got.itemsize}") != true.view(f"u{true.itemsize}")))
    _require(differ == 0, f"{what} differ in {differ} of {got.size} numbers")


def _largest(arrays: Mapping[str, Array]) -> float:
    return max((float(np.abs(a).max()) for a in arrays.values() if a.size), default=0.0)
