"""Ops of all kinds, one by one and together, mean in an exported file what their plain references mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from helpers import maps, normal, windows
from hypothesis import example, given
from hypothesis import strategies as st

from convolve import BatchNorm, Conv, Layer, Model, ops
from convolve.graph import OPS, Shape, Value, apply, evaluate
from convolve.onnx.export import to_bytes
from convolve.onnx.export.operators import WRITERS
from convolve.ops.convolution import Convolution, InputGradient, convolve, transposed
from convolve.ops.layout import Place
from convolve.ops.norm import Normalize, group_normalize, normalize
from convolve.ops.pool import Pool
from convolve.ops.resample import Map, Resample
from convolve.ops.softmax import Softmax
from convolve.window import Window, resolve

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

TOLERANCE = 1e-5
BATCH = 2
opsets = st.integers(18, onnx.defs.onnx_opset_version())

NOT_WRITTEN = {
    "leaf": "an array of the net, an initialiser",
    "constant": "an initialiser",
    "vector": "an initialiser",
    "dropout": "training's alone; the layer is written as a whole",
    "cross_entropy": "a loss",
    "cross_entropy_gradient": "a gradient",
    "convolution_filter_gradient": "a gradient",
    "pool_gradient": "a gradient",
}


def test_every_op_is_written_or_has_no_meaning_in_inference() -> None:
    assert {*WRITERS} | {*NOT_WRITTEN} == {*OPS}
    assert not {*WRITERS} & {*NOT_WRITTEN}


@dataclass(frozen=True)
class Composed(Layer):
    """A layer of one's own: what a function writes."""

    function: Callable[[Any, Value], Value]
    name: str | None = None

    def build(self, scope: Any, x: Value) -> Value:  # type: ignore[override]
        return self.function(scope, x)


def compare(function: Callable[[Any, Value], Value], shape: Shape, opset: int, scale: float = 0.0) -> None:
    """Export, run with ONNX Runtime, and compare with the references in float64; `scale` is that of the results."""
    model = Model(Composed(function), shape, seed=4)
    made = onnx.load_from_string(to_bytes(model.network, opset))
    onnx.checker.check_model(made, full_check=True)
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = normal((BATCH, *shape))
    [got] = session.run(None, {"input": np.moveaxis(x, -1, 1)})
    built = model.network.forward(BATCH)
    feeds = {"x": x.astype(np.float64)}
    feeds |= {name: array.astype(np.float64) for name, array in (*model.parameters.items(), *model.statistics.items())}
    [true] = evaluate([built.output], feeds)
    got = np.moveaxis(got, 1, -1)
    assert got.shape == true.shape
    finite = np.isfinite(true)
    np.testing.assert_array_equal(got[~finite], true[~finite])
    assert np.abs(got[finite] - true[finite]).max(initial=0) <= TOLERANCE * np.abs(true[finite]).max(initial=scale)


# windows and maps of all kinds


@example((Window((), (), (), ()), ()), (2, 4, 6), 18)
@given(windows(least=1), st.sampled_from([(1, 3, 4), (2, 4, 6), (3, 3, 6), (4, 4, 4)]), opsets)
def test_any_convolution(drawn: tuple[Window, Shape], groups: tuple[int, int, int], opset: int) -> None:
    (window, size), (parts, channels, filters) = drawn, groups
    shape = (filters, *window.kernel, channels // parts)
    compare(
        lambda scope, x: convolve(x, scope.parameter("weight", shape, "he_normal", 10), window, parts),
        (*size, channels),
        opset,
    )


@given(windows(least=1), st.sampled_from([(1, 3, 4), (2, 4, 6), (3, 6, 3), (4, 4, 4)]), opsets)
def test_any_transposed_convolution(drawn: tuple[Window, Shape], groups: tuple[int, int, int], opset: int) -> None:
    (window, size), (parts, filters, channels) = drawn, groups
    shape = (channels, *window.kernel, filters // parts)
    compare(
        lambda scope, x: transposed(x, scope.parameter("weight", shape, "he_normal", 10), window, size, parts) + 0.5,
        (*window.output(size), channels),
        opset,
    )


@given(windows(pooling=True, least=1), st.sampled_from(["max", "avg", "sum"]), st.sampled_from([0, 1, 2]), opsets)
def test_any_pooling(drawn: tuple[Window, Shape], kind: str, counted: int, opset: int) -> None:
    window, size = drawn
    parts = ((), window.pads, tuple((lo, hi // 2) for lo, hi in window.pads))
    op = Pool(kind, window, parts[counted] if kind == "avg" else ())
    compare(lambda scope, x: apply(op, x), (*size, 3), opset)


@given(maps(), st.booleans(), st.sampled_from([0.0, 1.5]), opsets)
def test_any_padding_and_resizing(drawn: tuple[Map, ...], turned: bool, fill: float, opset: int) -> None:
    op = Resample(drawn, turned, 0.0 if turned else fill)
    compare(lambda scope, x: apply(op, x), (*(m.output if turned else m.size for m in drawn), 2), opset)


# everything together, in any order of dimensions

SHAPE = (4, 5, 6)


def _weights(scope: Any, *shape: int) -> Value:
    taken = sum(name.rpartition(".")[2][1:].isdigit() for name in scope.construction.parameters)
    value: Value = scope.parameter(f"w{taken}", shape, "lecun_normal", 2)
    return value


def _batch_of(v: Value) -> int:
    return v.shape[0]


STEPS: dict[str, Callable[[Any, Value], Value]] = {
    "conv": lambda scope, v: scope.apply(Conv(6, 3), v),
    "norm": lambda scope, v: scope.apply(BatchNorm(), v),
    "pool": lambda scope, v: apply(Pool("max", resolve(3, 1, 1, "same", SHAPE[:2])), v),
    "relu": lambda scope, v: ops.relu(v),
    "square": lambda scope, v: ops.tanh(ops.square(v)),
    "scale": lambda scope, v: v * _weights(scope, 6) + ops.vector(range(6)),
    "rows": lambda scope, v: v * _weights(scope, 5, 1) - _weights(scope, 1, 6),
    "image": lambda scope, v: ops.maximum(v, _weights(scope, *SHAPE)) / 2.0,
    "standardised": lambda scope, v: v * (_weights(scope, 6) / ops.sqrt(ops.square(_weights(scope, 6)) + 0.5)),
    "means": lambda scope, v: v - ops.reshape(ops.mean(v, (1, 2)), (_batch_of(v), 1, 1, 6)),
    "spread": lambda scope, v: v + ops.broadcast(ops.reshape(ops.max(v, (1, 3)), (_batch_of(v), 1, 5, 1)), v.shape),
    "height": lambda scope, v: ops.minimum(v, ops.reshape(ops.sum(v, 1), (_batch_of(v), 1, 5, 6))),
    "single": lambda scope, v: v * ops.sigmoid(ops.reshape(ops.mean(v, (1, 2, 3)), (_batch_of(v), 1, 1, 1))),
    "flat": lambda scope, v: ops.reshape(ops.relu(ops.reshape(v, (_batch_of(v), 120))), v.shape),
    "folded": lambda scope, v: ops.reshape(ops.exp(ops.reshape(v, (_batch_of(v) * 4, 30)) * 0.1), v.shape),
    "lines": lambda scope, v: ops.reshape(apply(Softmax(), ops.reshape(v, (_batch_of(v), 20, 6))), v.shape),
    "joined": lambda scope, v: ops.cut(ops.concat(v, ops.absolute(v)), 3, 2, 8),
    "beside": lambda scope, v: ops.cut(ops.concat(v, ops.broadcast(_weights(scope, 5, 6), v.shape), axis=1), 1, 2, 6),
    "placed": lambda scope, v: apply(Place(2, 1, 5), ops.cut(v, 2, 0, 4)),
    "chosen": lambda scope, v: ops.where(ops.greater(v, ops.reshape(ops.mean(v, 3), (*v.shape[:3], 1))), v, -0.5),
    "equal": lambda scope, v: ops.where(ops.equal(ops.relu(v), 0.0) * 1.0, ops.erf(v), ops.softplus(v)),
    "padded": lambda scope, v: ops.cut(ops.cut(ops.pad(v, ((1, 0), (0, 2)), "reflect"), 1, 0, 4), 2, 2, 7),
    "dense": lambda scope, v: ops.reshape(_there_and_back(scope, ops.reshape(v, (_batch_of(v), 120))), v.shape),
    "moments": lambda scope, v: apply(Normalize(0.1, (0, 1, 2), 6), v, *_moments(scope), *_affine(scope)),
    "own moments": lambda scope, v: group_normalize(v, 3, 0.1, *_affine(scope)),
    "moments of rows": lambda scope, v: normalize(v, (1, 3), 0.1, _weights(scope, 4, 1, 6), _weights(scope, 4, 1, 6)),
}


def _there_and_back(scope: Any, v: Value) -> Value:
    """A product with a matrix, and one with its transpose."""
    window, w = Window((), (), (), ()), _weights(scope, 7, 120)
    return apply(InputGradient(window, ()), apply(Convolution(window), v, w * 0.1), w)


def _moments(scope: Any) -> tuple[Value, Value]:
    return _weights(scope, 6), ops.square(_weights(scope, 6))


def _affine(scope: Any) -> tuple[Value, Value]:
    return _weights(scope, 6), _weights(scope, 6)


@given(st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=6), opsets)
def test_any_ops_together(names: list[str], opset: int) -> None:
    def written(scope: Any, x: Value) -> Value:
        for name in names:
            x = STEPS[name](scope, x)
        return x

    compare(written, SHAPE, opset, scale=1.0)
