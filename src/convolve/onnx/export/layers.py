"""Layers that ONNX has an operator for. All others are written as the layers and ops that they consist of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from convolve.graph import Value, leaf
from convolve.layers import (
    ELU,
    GELU,
    SELU,
    AdaptiveAvgPool,
    BatchNorm,
    Clip,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    GlobalAvgPool,
    GlobalMaxPool,
    GroupNorm,
    HardSigmoid,
    HardSwish,
    InstanceNorm,
    Layer,
    LayerNorm,
    LeakyReLU,
    LpPool,
    Mish,
    PReLU,
    Scope,
)
from convolve.onnx.export.draft import Dims, Draft, Order, Scan, first, last
from convolve.onnx.export.operators import convolution, outside, pads_of, product, transposed, write
from convolve.window import resolve

L = TypeVar("L", bound=Layer)
Write = Callable[[Draft, Any, "Written"], bool]

WRITERS: dict[type[Layer], Write] = {}
"""How layers are written; one that returns False is written op by op."""


@dataclass(frozen=True)
class Written:
    """A layer in its place: its input, what it made of it, its scope, and the value that its result is written as."""

    scope: Scope
    x: Value
    made: Value
    result: Value

    def leaf(self, name: str) -> Value:
        """A parameter or statistic of the layer."""
        return self.scope.construction.leaves[f"{self.scope.path}.{name}"]


@dataclass(frozen=True)
class Writer(Scope):
    """A scope that writes each layer applied in it to a file."""

    draft: Draft = field(kw_only=True)

    def apply(self, layer: Layer, *inputs: Value) -> Value:
        path, draft = self.name(layer), self.draft
        for value in inputs:
            self._write(value, self.path)
        known = WRITERS.get(type(layer))
        if known and len(inputs) == 1:
            scope = Scope(self.construction, path)
            made = layer.build(scope, *inputs)
            result = leaf("result", path, made.shape)
            draft.path = path
            if known(draft, layer, Written(scope, inputs[0], made, result)):
                return result
        else:
            made = layer.build(Writer(self.construction, path, set(), self.depth + 1, draft=draft), *inputs)
        self._write(made, path)
        return made

    def _write(self, value: Value, path: str) -> None:
        self.draft.path = path
        write(self.draft, value)


def _writes(*layers: type[Layer]) -> Callable[[Write], Write]:
    def enter(write: Write) -> Write:
        WRITERS.update(dict.fromkeys(layers, write))
        return write

    return enter


@_writes(Conv)
def _conv(draft: Draft, layer: Conv, at: Written) -> bool:
    weight, window = at.leaf("weight"), layer.window(at.scope, at.x)
    bias = at.leaf("bias") if layer.bias else None
    groups = at.x.shape[-1] // weight.shape[-1]
    convolution(draft, at.result, at.x, weight, window, groups, bias, draft.path)
    return True


@_writes(ConvTranspose)
def _conv_transpose(draft: Draft, layer: ConvTranspose, at: Written) -> bool:
    weight, (window, _) = at.leaf("weight"), layer.window(at.scope, at.x)
    bias = at.leaf("bias") if layer.bias else None
    groups = layer.filters // weight.shape[-1]
    transposed(draft, at.result, at.x, weight, window, groups, bias, draft.path)
    return True


@_writes(Dense)
def _dense(draft: Draft, layer: Dense, at: Written) -> bool:
    product(draft, at.result, at.x, at.leaf("weight"), at.leaf("bias") if layer.bias else None, draft.path)
    return True


@_writes(BatchNorm)
def _batch_norm(draft: Draft, layer: BatchNorm, at: Written) -> bool:
    order = draft.order(at.x)
    across = order if isinstance(order, Scan) else last(1)
    if not isinstance(order, Scan):
        order = first(len(at.x.shape))
    arrays = [draft.at(at.leaf(name), across) for name in ("scale", "shift", "mean", "variance")]
    made = draft.node("BatchNormalization", [draft.at(at.x, order), *arrays], draft.path, epsilon=float(layer.epsilon))
    draft.put(at.result, made, order)
    return True


@_writes(GroupNorm)
def _group_norm(draft: Draft, layer: GroupNorm, at: Written) -> bool:
    rank, channels, epsilon = len(at.x.shape), at.x.shape[-1], float(layer.epsilon)
    order, [scale, shift] = first(rank), [at.leaf(name) for name in ("scale", "shift")]
    x = draft.at(at.x, order)
    if draft.opset >= 21 and rank > 2:
        inputs = [x, *(draft.at(w, last(1)) for w in (scale, shift))]
        made = draft.node("GroupNormalization", inputs, draft.path, num_groups=layer.groups, epsilon=epsilon)
    else:  # before, the operator took a scale for each group: each becomes an instance of a channel
        grouped = draft.node("Reshape", [x, draft.integers(0, layer.groups, -1)])
        normal = draft.node("InstanceNormalization", [grouped, *_plain(draft, layer.groups)], epsilon=epsilon)
        normal = draft.node("Reshape", [normal, draft.integers(0, channels, *at.x.shape[1:-1])])
        scaled = draft.node("Mul", [normal, draft.operand(scale, rank, order)])
        made = draft.node("Add", [scaled, draft.operand(shift, rank, order)], draft.path)
    draft.put(at.result, made, order)
    return True


@_writes(InstanceNorm)
def _instance_norm(draft: Draft, layer: InstanceNorm, at: Written) -> bool:
    order = first(len(at.x.shape))
    learnt = [draft.at(at.leaf(name), last(1)) for name in ("scale", "shift")] if layer.affine else None
    inputs = [draft.at(at.x, order), *(learnt or _plain(draft, at.x.shape[-1]))]
    made = draft.node("InstanceNormalization", inputs, draft.path, epsilon=float(layer.epsilon))
    draft.put(at.result, made, order)
    return True


def _plain(draft: Draft, channels: int) -> list[str]:
    """Scale and shift that do nothing, where an operator insists on them."""
    arrays = {"scale": np.ones(channels, np.float32), "shift": np.zeros(channels, np.float32)}
    return [draft.initialiser(array, draft.inner(name)) for name, array in arrays.items()]


@_writes(LayerNorm)
def _layer_norm(draft: Draft, layer: LayerNorm, at: Written) -> bool:
    """The operator takes the last dimensions: those of one order or another are the axes."""
    rank, axes, made = len(at.x.shape), layer.over(at.scope, at.x), draft.order(at.x)
    order: Order = made
    own: Order = made
    if not isinstance(made, Scan):
        rest = tuple(d for d in range(rank) if d not in axes)
        orders = (made, first(rank), last(rank), Dims((*rest, *axes)))
        order = next(o for o in orders if {*o.order[-len(axes) :]} == {*axes})
        own = Dims(tuple(axes.index(d) for d in order.order[-len(axes) :]))
    inputs = [draft.at(at.x, order), *(draft.at(at.leaf(name), own) for name in ("scale", "shift"))]
    attributes = {"epsilon": float(layer.epsilon), "axis": rank - len(axes)}
    draft.put(at.result, draft.node("LayerNormalization", inputs, draft.path, **attributes), order)
    return True


def _same(draft: Draft, at: Written, operator: str, *inputs: str, **attributes: Any) -> bool:
    """An operator for which the order of dimensions does not matter."""
    order = draft.order(at.x)
    draft.put(at.result, draft.node(operator, [draft.at(at.x, order), *inputs], draft.path, **attributes), order)
    return True


@_writes(Dropout)
def _dropout(draft: Draft, layer: Dropout, at: Written) -> bool:
    return not layer.channels and _same(draft, at, "Dropout", draft.number(layer.rate))  # ONNX drops single values


@_writes(LeakyReLU)
def _leaky_relu(draft: Draft, layer: LeakyReLU, at: Written) -> bool:
    return _same(draft, at, "LeakyRelu", alpha=float(layer.slope))


@_writes(PReLU)
def _prelu(draft: Draft, layer: PReLU, at: Written) -> bool:
    return _same(draft, at, "PRelu", draft.operand(at.leaf("slope"), len(at.x.shape), draft.order(at.x)))


@_writes(ELU)
def _elu(draft: Draft, layer: ELU, at: Written) -> bool:
    return _same(draft, at, "Elu", alpha=float(layer.alpha))


@_writes(SELU)
def _selu(draft: Draft, layer: SELU, at: Written) -> bool:
    return _same(draft, at, "Selu")


@_writes(Mish)
def _mish(draft: Draft, layer: Mish, at: Written) -> bool:
    return _same(draft, at, "Mish")


@_writes(HardSigmoid)
def _hard_sigmoid(draft: Draft, layer: HardSigmoid, at: Written) -> bool:
    return _same(draft, at, "HardSigmoid", alpha=1 / 6, beta=0.5)


@_writes(HardSwish)
def _hard_swish(draft: Draft, layer: HardSwish, at: Written) -> bool:
    return _same(draft, at, "HardSwish")


@_writes(Clip)
def _clip(draft: Draft, layer: Clip, at: Written) -> bool:
    bounds = ["" if bound is None else draft.number(float(bound)) for bound in (layer.low, layer.high)]
    return _same(draft, at, "Clip", *bounds)


@_writes(GELU)
def _gelu(draft: Draft, layer: GELU, at: Written) -> bool:
    return draft.opset >= 20 and _same(draft, at, "Gelu")


@_writes(LpPool)
def _lp_pool(draft: Draft, layer: LpPool, at: Written) -> bool:
    if not float(layer.p).is_integer():
        return False
    size, order = at.x.shape[1:-1], first(len(at.x.shape))
    window = resolve(layer.pool_size, layer.stride or layer.pool_size, layer.dilation, layer.padding, size)
    window = window.ceiled(size) if layer.ceil_mode else window
    tensor, pads = outside(draft, draft.at(at.x, order), window, 0.0)
    made = draft.node(
        "LpPool",
        [tensor],
        draft.path,
        kernel_shape=window.kernel,
        strides=window.stride,
        dilations=window.dilation,
        pads=pads_of(pads),
        p=int(layer.p),
    )
    draft.put(at.result, made, order)
    return True


@_writes(GlobalAvgPool, GlobalMaxPool)
def _global_pool(draft: Draft, layer: GlobalAvgPool | GlobalMaxPool, at: Written) -> bool:
    operator = "GlobalAveragePool" if isinstance(layer, GlobalAvgPool) else "GlobalMaxPool"
    means = draft.node(operator, [draft.at(at.x, first(len(at.x.shape)))])
    draft.put(at.result, draft.node("Flatten", [means], draft.path, axis=1), last(2))
    return True


@_writes(AdaptiveAvgPool)
def _adaptive_avg_pool(draft: Draft, layer: AdaptiveAvgPool, at: Written) -> bool:
    if set(at.made.shape[1:-1]) != {1}:
        return False
    order = first(len(at.x.shape))
    draft.put(at.result, draft.node("GlobalAveragePool", [draft.at(at.x, order)], draft.path), order)
    return True
