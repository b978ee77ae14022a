"""Values and gradients of ops against PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from helpers import Array, assert_close, leaf_for, normal, run

from convolve import (
    ELU,
    GELU,
    SELU,
    AvgPool,
    Clip,
    ConvTranspose,
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
    MaxPool,
    Mish,
    Model,
    PReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
    ops,
)
from convolve.graph import Value, apply, differentiate
from convolve.layers import Construction, Scope
from convolve.ops.convolution import Convolution, convolve, transposed
from convolve.ops.norm import moments, normalize
from convolve.ops.pool import Pool
from convolve.ops.softmax import CrossEntropy
from convolve.window import resolve

torch: Any = pytest.importorskip("torch")

SIZES = {1: (13,), 2: (9, 8), 3: (6, 5, 7)}


def foreign(array: Array) -> Any:
    """As PyTorch wants it: channels second, in float64, with a gradient if it is a float."""
    tensor = torch.from_numpy(array)
    if not tensor.is_floating_point():
        return tensor.long()
    return (tensor.movedim(-1, 1) if tensor.ndim > 2 else tensor).double().contiguous().requires_grad_()


def ours(tensor: Any) -> Array:
    """Back to channels last."""
    return (tensor.movedim(1, -1) if tensor.ndim > 2 else tensor).detach().numpy()


def compare(
    make: Callable[..., Value], theirs: Callable[..., Any], *arrays: Array, kinds: str = "", tolerance: float = 1e-5
) -> None:
    """The value, and the gradients of a sum of it with weights of its own for each element."""
    feeds = {f"x{i}": array for i, array in enumerate(arrays)}
    kinds = kinds or "i" * len(arrays)
    leaves = [
        leaf_for(key, array, {"i": "input", "p": "parameter"}[kind])
        for (key, array), kind in zip(feeds.items(), kinds, strict=True)
    ]
    y = make(*(ops.cast(v) if kind == "i" and v.dtype == "f4" else v for v, kind in zip(leaves, kinds, strict=True)))
    feeds["weights"] = normal(y.shape, 77)
    floats = [v for v in leaves if v.dtype == "f4"]
    gradients = differentiate(ops.sum(y * leaf_for("weights", feeds["weights"])), floats)
    tensors = [foreign(array) for array in arrays]
    expected = theirs(*tensors)
    expected.backward(foreign(feeds["weights"]).detach())
    for got, true in zip(
        run([y, *gradients], feeds), [expected, *(t.grad for t in tensors if t.requires_grad)], strict=True
    ):
        assert_close(got, ours(true), tolerance)


def convolve_with(rank: int) -> Callable[..., Any]:
    return (torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d)[rank - 1]


@pytest.mark.parametrize(
    ("rank", "stride", "dilation", "padding"), list(product((1, 2, 3), (1, 2, 3), (1, 2), (0, 1, 2))), ids=str
)
def test_convolution(rank: int, stride: int, dilation: int, padding: int) -> None:
    size = SIZES[rank]
    window = resolve(3, stride, dilation, padding, size)
    compare(
        lambda x, w, b: apply(Convolution(window), x, w) + b,
        lambda x, w, b: convolve_with(rank)(x, w, b, stride=stride, padding=padding, dilation=dilation),
        *(normal((2, *size, 5)), normal((18, *window.kernel, 5), 1), normal((18,), 2)),
        kinds="ipp",
    )


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_same_padding(rank: int, size: int) -> None:
    kernel = tuple(range(size, size + rank))
    window = resolve(kernel, 1, 1, "same", SIZES[rank])
    compare(
        lambda x, w: apply(Convolution(window), x, w),
        lambda x, w: convolve_with(rank)(x, w, padding="same"),
        *(normal((2, *SIZES[rank], 3)), normal((4, *kernel, 3), 1)),
        kinds="ip",
    )


GROUPS = {
    "two": (2, 4, 6),
    "three": (3, 9, 51),
    "depthwise": (17, 17, 17),
    "several a channel": (5, 5, 10),
    "four": (5, 20, 20),
}
"""Groups, channels and filters."""


@pytest.mark.parametrize(
    ("rank", "kind", "stride", "dilation", "pads"),
    list(product((1, 2, 3), GROUPS, (1, 2), (1, 2), ((1, 1), (0, 2)))),
    ids=str,
)
def test_grouped_convolution(rank: int, kind: str, stride: int, dilation: int, pads: tuple[int, int]) -> None:
    (groups, channels, filters), size = GROUPS[kind], SIZES[rank]
    window = resolve(3, stride, dilation, (pads,) * rank, size)
    compare(
        lambda x, w: convolve(x, w, window, groups),
        lambda x, w: convolve_with(rank)(
            torch.nn.functional.pad(x, pads * rank), w, stride=stride, dilation=dilation, groups=groups
        ),
        *(normal((2, *size, channels)), normal((filters, *window.kernel, channels // groups), 1)),
        kinds="ip",
    )


@pytest.mark.parametrize(
    ("rank", "kind", "stride", "dilation", "padding"),
    list(product((1, 2, 3), ("one", *GROUPS), (1, 2, 3), (1, 2), (0, 1))),
    ids=str,
)
def test_transposed_convolution(rank: int, kind: str, stride: int, dilation: int, padding: int) -> None:
    groups, channels, filters = GROUPS.get(kind, (1, 6, 5))
    layer = ConvTranspose(filters, 3, stride, padding, dilation, output_padding=stride - 1, groups=groups, name="t")
    model = Model(layer, (*SIZES[rank], channels))
    window, size = layer.window(Scope(Construction(False)), model.network.forward(2).input)
    transposed_by = (
        torch.nn.functional.conv_transpose1d,
        torch.nn.functional.conv_transpose2d,
        torch.nn.functional.conv_transpose3d,
    )[rank - 1]
    compare(
        lambda x, w, b: transposed(x, w, window, size, groups) + b,
        lambda x, w, b: transposed_by(x, w, b, stride, padding, stride - 1, groups, dilation),
        *(normal((2, *SIZES[rank], channels)), normal(model.parameters["t.weight"].shape, 1), normal((filters,), 2)),
        kinds="ipp",
    )


def test_dense() -> None:
    compare(
        lambda x, w, b: apply(Convolution(resolve((), (), (), "valid", ())), x, w) + b,
        torch.nn.functional.linear,
        *(normal((9, 50)), normal((21, 50), 1), normal((21,), 2)),
        kinds="ipp",
    )


def function(name: str, rank: int) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(torch.nn.functional, f"{name}{rank}d")
    return found


def built(layer: Layer, *names: str, training: bool = False) -> Callable[..., Value]:
    """What a layer writes, its parameters given by name."""

    def make(x: Value, *parameters: Value) -> Value:
        leaves = dict(zip(names, parameters, strict=True))
        return layer.build(Scope(Construction(training, leaves=leaves)), x)

    return make


def outputs(layer: Layer, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """A layer's output positions, as an index for what PyTorch makes."""
    made = built(layer)(leaf_for("x", np.empty(shape, np.float32)))
    return (slice(None), slice(None), *(slice(n) for n in made.shape[1:-1]))


POOLS = list(product((1, 2, 3), ((2, 2, 0), (3, 2, 1), (3, 1, 1), (2, 3, 0), (4, 2, 2), (2, 3, 1)), (False, True)))


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize(("rank", "window", "ceil_mode"), POOLS, ids=str)
def test_max_pool(rank: int, window: tuple[int, int, int], ceil_mode: bool, dilation: int) -> None:
    compare(
        built(MaxPool(*window, dilation, ceil_mode)),
        lambda x: function("max_pool", rank)(x, *window, dilation, ceil_mode),
        normal((2, *SIZES[rank], 11)),
    )


@pytest.mark.parametrize("count_padding", [True, False])
@pytest.mark.parametrize(("rank", "window", "ceil_mode"), POOLS, ids=str)
def test_avg_pool(rank: int, window: tuple[int, int, int], ceil_mode: bool, count_padding: bool) -> None:
    compare(
        built(AvgPool(*window, count_padding, ceil_mode=ceil_mode)),
        lambda x: function("avg_pool", rank)(x, *window, ceil_mode, count_padding),
        normal((2, *SIZES[rank], 11)),
    )


@pytest.mark.parametrize("p", [1, 2, 3, 4, 2.5])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_lp_pool(rank: int, p: float) -> None:
    compare(
        built(LpPool(2, 3, p=p)),
        lambda x: function("lp_pool", rank)(x.abs(), p, 2, 3),
        normal((2, *SIZES[rank], 11)),
    )


ANY_POOLS = list(product((1, 2, 3), (1, 2, 3), (0, 1, "same", ((0, 2), (1, 0), (2, 1))), (1, 2), (False, True)))
"""Rank, stride, padding, dilation, ceil_mode."""


def sums(x: Any, rank: int, stride: int, dilation: int) -> Any:
    """Sums over windows of 3, as a convolution with ones; zeros behind the end let further windows in."""
    planes = torch.nn.functional.pad(x, (0, 4) * rank).flatten(0, 1)[:, None]
    ones = torch.ones(1, 1, *(3,) * rank, dtype=x.dtype)
    return convolve_with(rank)(planes, ones, stride=stride, dilation=dilation)[:, 0].unflatten(0, x.shape[:2])


@pytest.mark.parametrize(("rank", "stride", "padding", "dilation", "ceil_mode"), ANY_POOLS, ids=str)
def test_any_pool(rank: int, stride: int, padding: Any, dilation: int, ceil_mode: bool) -> None:
    """Padding is explicit there, so that it may differ between the ends; what that adds behind ours is cut off."""
    padding = padding[:rank] if isinstance(padding, tuple) else padding
    size, x = SIZES[rank], normal((2, *SIZES[rank], 5))
    pads = resolve(3, stride, dilation, padding, size).pads
    flat = [p for pair in reversed(pads) for p in pair]
    at = outputs(MaxPool(3, stride, padding, dilation, ceil_mode), x.shape)

    def padded(v: Any, value: float = 0.0) -> Any:
        return torch.nn.functional.pad(v, flat, value=value)

    def theirs(v: Any) -> Any:
        largest = function("max_pool", rank)(padded(v, -math.inf), 3, stride, 0, dilation, ceil_mode)[at]
        total, inside, counted, cubes = (
            sums(padded(a, value), rank, stride, dilation)[at]
            for a, value in ((v, 0), (torch.ones_like(v), 0), (torch.ones_like(v), 1), (v.abs() ** 3, 0))
        )
        return torch.cat([largest, total / inside, total / counted, cubes ** (1 / 3)], 1)

    average = AvgPool(3, stride, padding, dilation=dilation, ceil_mode=ceil_mode)
    layers = (
        MaxPool(3, stride, padding, dilation, ceil_mode),
        average,
        replace(average, count_padding=True),
        LpPool(3, stride, padding, 3, dilation, ceil_mode),
    )
    compare(lambda v: ops.concat(*(built(layer)(v) for layer in layers)), theirs, x)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_global_pools(rank: int) -> None:
    axes = tuple(range(2, rank + 2))
    x = normal((3, *SIZES[rank], 11))
    compare(built(GlobalMaxPool()), lambda v: v.amax(axes), x)
    compare(built(GlobalAvgPool()), lambda v: v.mean(axes), x)


def test_max_pool_lets_nan_win() -> None:
    x = normal((1, 8, 8, 3))
    x[0, 3, 3, 1] = np.nan
    compare(
        lambda v: apply(Pool("max", resolve(3, 2, 1, 1, (8, 8))), v),
        lambda v: torch.nn.functional.max_pool2d(v, 3, 2, 1),
        x,
    )


PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


@pytest.mark.parametrize("mode", PAD_MODES)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_pad(rank: int, mode: str) -> None:
    pads = ((2, 1), (0, 3), (4, 2))[:rank]
    flat = [n for pair in reversed(pads) for n in pair]
    more = {"value": -0.5} if mode == "constant" else {}
    compare(
        lambda x: ops.pad(x, pads, mode, -0.5),
        lambda x: torch.nn.functional.pad(x, flat, PAD_MODES[mode], **more),
        normal((2, *SIZES[rank], 5)),
    )


LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


@pytest.mark.parametrize("mode", ["nearest", "linear", "area"])
@pytest.mark.parametrize("size", [(26, 16, 14), (13, 24, 5), (5, 3, 9), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_resize(rank: int, size: tuple[int, ...], mode: str) -> None:
    """Of integer scales and of any other."""
    theirs = LINEAR[rank] if mode == "linear" else mode
    compare(
        lambda x: ops.resize(x, size[:rank], mode),
        lambda x: torch.nn.functional.interpolate(x, size[:rank], mode=theirs),
        normal((2, *SIZES[rank], 5)),
    )


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_upsample(rank: int, scale: int, mode: str) -> None:
    theirs = LINEAR[rank] if mode == "linear" else mode
    compare(
        lambda x: ops.resize(x, tuple(n * scale for n in SIZES[rank]), mode),
        lambda x: torch.nn.functional.interpolate(x, scale_factor=scale, mode=theirs),
        normal((2, *SIZES[rank], 11)),
    )


@pytest.mark.parametrize("size", [(1, 1, 1), (4, 3, 2), (13, 5, 7), (20, 11, 3)], ids=str)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_adaptive_avg_pool(rank: int, size: tuple[int, ...]) -> None:
    functional = torch.nn.functional
    pool = (functional.adaptive_avg_pool1d, functional.adaptive_avg_pool2d, functional.adaptive_avg_pool3d)[rank - 1]
    compare(lambda x: ops.resize(x, size[:rank], "area"), lambda x: pool(x, size[:rank]), normal((2, *SIZES[rank], 11)))


@pytest.mark.parametrize("shape", [(6, 9), (4, 13, 5), (3, 7, 6, 5), (2, 4, 3, 5, 7)], ids=str)
def test_batch_norm(shape: tuple[int, ...]) -> None:
    """In training: normalised by the batch's moments, through which gradients flow."""
    compare(
        lambda x, scale, shift: normalize(x, range(len(shape) - 1), 1e-5, scale, shift),
        lambda x, scale, shift: torch.nn.functional.batch_norm(x, None, None, scale, shift, training=True),
        *(normal(shape) * 2 + 3, normal(shape[-1:], 1), normal(shape[-1:], 2)),
        kinds="ipp",
        tolerance=3e-5,  # dx is a difference of sums over the batch
    )


def affine(shape: tuple[int, ...]) -> tuple[Array, Array]:
    return normal(shape, 1), normal(shape, 2)


@pytest.mark.parametrize(("rank", "groups"), [*product((0, 1, 2, 3), (1, 2, 4)), (1, 12), (2, 12), (3, 12)], ids=str)
def test_group_norm(rank: int, groups: int) -> None:
    x = normal((3, *SIZES.get(rank, ()), 12)) * 2 + 3
    compare(
        built(GroupNorm(groups, 1e-3), "scale", "shift"),
        lambda x, scale, shift: torch.nn.functional.group_norm(x, groups, scale, shift, 1e-3),
        *(x, *affine((12,))),
        kinds="ipp",
        tolerance=3e-5,
    )


@pytest.mark.parametrize("learnt", [False, True])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_instance_norm(rank: int, learnt: bool) -> None:
    x = normal((3, *SIZES[rank], 11)) * 2 + 3
    layer = InstanceNorm(learnt)
    names, arrays = (("scale", "shift"), affine((11,))) if learnt else ((), ())
    compare(
        built(layer, *names),
        lambda x, *more: torch.nn.functional.instance_norm(x, None, None, *more),
        *(x, *arrays),
        kinds="i" + "p" * len(arrays),
        tolerance=3e-5,
    )


@pytest.mark.parametrize(("rank", "first"), [(r, first) for r in (0, 1, 2, 3) for first in range(1, r + 2)], ids=str)
def test_layer_norm(rank: int, first: int) -> None:
    """PyTorch's is over all dimensions from one on."""
    x = normal((3, *SIZES.get(rank, ()), 11)) * 2 + 3
    axes, shape = tuple(range(first, rank + 2)), x.shape[first:]

    def theirs(x: Any, scale: Any, shift: Any) -> Any:
        turned = x.movedim(1, -1)
        scale, shift = (v.movedim(1, -1) if v.ndim > 2 else v for v in (scale, shift))
        return torch.nn.functional.layer_norm(turned, shape, scale, shift).movedim(-1, 1)

    compare(built(LayerNorm(axes), "scale", "shift"), theirs, *(x, *affine(shape)), kinds="ipp", tolerance=3e-5)


def test_running_moments() -> None:
    """decay = 1 - momentum, and the variance unbiased."""
    x = normal((4, 5, 6, 7)) * 2 + 3
    count, decay = x.size // 7, 0.9
    got = [v.ravel() for v in run(moments(ops.cast(leaf_for("x", x)), (0, 1, 2)), {"x": x})]
    mean, variance = torch.zeros(7).double(), torch.ones(7).double()
    torch.nn.functional.batch_norm(foreign(x).detach(), mean, variance, training=True, momentum=1 - decay)
    assert_close((1 - decay) * got[0], mean.numpy())
    assert_close(decay + (1 - decay) * got[1] * count / (count - 1), variance.numpy())


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("classes", [2, 10, 37])
def test_cross_entropy(classes: int, smoothing: float) -> None:
    labels = (np.arange(12, dtype=np.int32) * 5) % classes
    compare(
        lambda x, known: apply(CrossEntropy(smoothing), x, known),
        lambda x, known: torch.nn.functional.cross_entropy(x, known, reduction="none", label_smoothing=smoothing),
        *(normal((12, classes)) * 5, labels),
    )


ACTIVATIONS: dict[Layer, Callable[[Any], Any]] = {
    ReLU(): torch.nn.ReLU(),
    LeakyReLU(): torch.nn.LeakyReLU(),
    LeakyReLU(0.2): torch.nn.LeakyReLU(0.2),
    ELU(): torch.nn.ELU(),
    ELU(0.3): torch.nn.ELU(0.3),
    SELU(): torch.nn.SELU(),
    GELU(): torch.nn.GELU(),
    SiLU(): torch.nn.SiLU(),
    HardSwish(): torch.nn.Hardswish(),
    HardSigmoid(): torch.nn.Hardsigmoid(),
    Sigmoid(): torch.nn.Sigmoid(),
    Tanh(): torch.nn.Tanh(),
    Softplus(): torch.nn.Softplus(threshold=60),
    Mish(): torch.nn.Mish(),
    Softmax(): torch.nn.Softmax(1),
    Clip(0, 6): torch.nn.ReLU6(),
    Clip(-1, 1.5): lambda x: x.clamp(-1, 1.5),
    Clip(low=-1): lambda x: x.clamp(min=-1),
    Clip(high=0.5): lambda x: x.clamp(max=0.5),
}


@pytest.mark.parametrize("rank", [0, 1, 2, 3])
@pytest.mark.parametrize("layer", ACTIVATIONS, ids=str)
def test_activation(layer: Layer, rank: int) -> None:
    """Numbers of every size: straight pieces, bends and where exponentials overflow."""
    x = normal((4, *SIZES.get(rank, ()), 11)) * np.float32([0.1, 1, 3, 10, 40] * 2 + [100])
    compare(built(layer), ACTIVATIONS[layer], x)


@pytest.mark.parametrize("rank", [0, 1, 2, 3])
def test_prelu(rank: int) -> None:
    x, slope = normal((4, *SIZES.get(rank, ()), 11)), normal((11,), 1)
    compare(built(PReLU(), "slope"), torch.nn.functional.prelu, x, slope, kinds="ip")
    module = torch.nn.PReLU(11)
    assert (Model(PReLU(), x.shape[1:]).parameters["prelu1.slope"] == module.weight.detach().numpy()).all()


FUNCTIONS: dict[str, tuple[Callable[[Value], Value], Callable[[Any], Any]]] = {
    "erf": (ops.erf, torch.erf),
    "exp": (ops.exp, torch.exp),
    "expm1": (ops.expm1, torch.expm1),
    "log": (lambda x: ops.log(ops.square(x) + 0.1), lambda x: torch.log(x**2 + 0.1)),
    "sqrt": (lambda x: ops.sqrt(ops.absolute(x) + 0.1), lambda x: torch.sqrt(x.abs() + 0.1)),
    "reciprocal": (lambda x: 1.0 / (ops.square(x) + 1.0), lambda x: 1 / (x**2 + 1)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(name: str) -> None:
    make, theirs = FUNCTIONS[name]
    compare(make, theirs, normal((3, 37)) * 3)


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)], ids=str)
def test_reductions(axes: tuple[int, ...]) -> None:
    x = normal((7, 21))
    compare(lambda v: ops.mean(ops.square(v), axes), lambda v: (v**2).mean(axes), x)
    compare(lambda v: ops.max(v, axes), lambda v: v.amax(axes), x)


def test_mean_squared_error() -> None:
    compare(lambda x, t: ops.mean(ops.square(x - t)), torch.nn.functional.mse_loss, normal((5, 6)), normal((5, 6), 1))
