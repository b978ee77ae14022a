"""First values of parameters: variances by the true fan-in, and activations that keep theirs through deep nets."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from helpers import Array
from hypothesis import given
from hypothesis import strategies as st

from convolve import (
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    PReLU,
    ReLU,
    Sequential,
)
from convolve.errors import ShapeError
from convolve.graph import Value, evaluate, leaf
from convolve.layers import Construction, Layer, Parameter, Scope
from convolve.layers.base import INITS, SAMPLED

SIGMAS = 5
"""Standard deviations that a statistic may lie off."""


def built(layer: Layer, shape: tuple[int, ...], batch: int = 1) -> tuple[Value, Construction]:
    construction = Construction(training=False)
    made = Scope(construction).build_net(layer, leaf("input", "x", (batch, *shape)))
    return made["output"], construction


def weight_of(layer: Layer, shape: tuple[int, ...]) -> Parameter:
    _, construction = built(layer, shape)
    [spec] = [p for name, p in construction.parameters.items() if name.endswith("weight")]
    return spec


def test_large_parameters_are_drawn_in_pieces_of_one_stream() -> None:
    spec = Parameter((3, SAMPLED // 2 + 5), "he_normal", fan_in=8, fan_out=1, decay=True)
    whole = np.random.default_rng(1).standard_normal(spec.shape) * 0.5
    np.testing.assert_array_equal(spec.sample(np.random.default_rng(1)), whole.astype(np.float32))


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Any, tuple[int, ...]]:
    """A convolution or a transposed one, of any rank and groups, and an input shape that holds a few of its windows."""
    rank = draw(st.integers(1, 3))
    several = st.tuples(*[st.integers(1, (5, 4, 3)[rank - 1])] * rank)
    kernel, stride = draw(several), draw(several)
    dilation = draw(st.tuples(*[st.integers(1, 2)] * rank))
    groups = draw(st.integers(1, 3))
    channels, filters = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    cls = draw(st.sampled_from([Conv, ConvTranspose]))
    depthwise = channels == groups and draw(st.booleans())
    layer = cls(
        filters,
        kernel,
        stride,
        "valid",
        dilation,
        bias=False,
        init=draw(st.sampled_from(["he_normal", "lecun_normal", "glorot_uniform"])),
        groups="depthwise" if depthwise else groups,
    )
    return layer, (*(d * (k - 1) + 2 for k, d in zip(kernel, dilation, strict=True)), channels)


def products(layer: Any, shape: tuple[int, ...]) -> float:
    """How many products an output sums: what it is where inputs and weights are one, on average, away from borders."""
    value, construction = built(layer, shape)
    feeds = {name: np.ones(spec.shape) for name, spec in construction.parameters.items()}
    [y] = evaluate([value], {"x": np.ones((1, *shape)), **feeds})
    if isinstance(layer, ConvTranspose):
        # Borders are reached by fewer taps and there are more outputs for it: count each input's as its own.
        return float(y.sum() / (math.prod(shape[:-1]) * math.prod(layer.stride) * layer.filters))
    assert (y == y.flat[0]).all()
    return float(y.flat[0])


@given(convolutions())
def test_fan_in_counts_the_products_of_an_output(drawn: tuple[Any, tuple[int, ...]]) -> None:
    layer, shape = drawn
    assert weight_of(layer, shape).fan_in == pytest.approx(products(layer, shape), rel=1e-12)


@pytest.mark.parametrize(
    ("layer", "shape", "fan_in", "fan_out"),
    [
        (Dense(7), (5,), 5, 7),
        (Conv(8, 3), (9, 4), 12, 24),
        (Conv(8, 3), (9, 9, 4), 36, 72),
        (Conv(8, 3), (9, 9, 9, 4), 108, 216),
        (Conv(8, 3, stride=2, dilation=2), (9, 9, 4), 36, 72),
        (Conv(8, 3, groups=2), (9, 9, 4), 18, 36),
        (Conv(8, 3, groups="depthwise"), (9, 9, 4), 9, 18),
        (Conv(8, (5, 1, 1), groups=4), (9, 9, 9, 4), 5, 10),
        (ConvTranspose(8, 4, stride=2), (9, 9, 6), 24, 128),
        (ConvTranspose(8, 3, stride=2), (9, 6), 9, 24),
        (ConvTranspose(8, 3, stride=2, groups=2), (9, 9, 9, 6), 10.125, 108),
        (ConvTranspose(6, 2, stride=2, groups="depthwise"), (9, 9, 6), 1, 4),
    ],
    ids=str,
)
def test_fans(layer: Layer, shape: tuple[int, ...], fan_in: float, fan_out: float) -> None:
    spec = weight_of(layer, shape)
    assert (spec.fan_in, spec.fan_out) == (fan_in, fan_out)


def variance(spec: Parameter) -> float:
    return {
        "he_normal": 2 / spec.fan_in,
        "lecun_normal": 1 / spec.fan_in,
        "glorot_uniform": 2 / (spec.fan_in + spec.fan_out),
    }[spec.init]


@given(convolutions(), st.integers(0, 2**32))
def test_sampled_variance_is_the_formula(drawn: tuple[Any, tuple[int, ...]], seed: int) -> None:
    """Many samples of one parameter; the mean square of n normal numbers spreads by sqrt(2 / n) of itself."""
    spec = weight_of(*drawn)
    random = np.random.default_rng(seed)
    samples = np.stack([spec.sample(random) for _ in range(-(-20_000 // math.prod(spec.shape)))])
    assert samples.dtype == np.float32
    wide = samples.astype(np.float64).ravel()
    expected = variance(spec)
    assert abs(wide.mean()) <= SIGMAS * math.sqrt(expected / wide.size)
    assert abs(np.mean(wide**2) / expected - 1) <= SIGMAS * math.sqrt(2 / wide.size)
    if spec.init == "glorot_uniform":
        assert np.abs(wide).max() <= math.sqrt(3 * expected) * (1 + 1e-6)


def stack(depth: int, *layers: Layer) -> list[Layer]:
    """`layers` in turn with ReLU between, none behind the last."""
    chosen = [layers[i % len(layers)] for i in range(depth)]
    return [layer for inner in chosen for layer in (inner, ReLU())][:-1]


DEEP: dict[str, tuple[list[Layer], tuple[int, ...]]] = {
    "dense": (stack(10, Dense(128)), (128,)),
    "rank 1": (stack(6, Conv(64, 3, padding="valid")), (16, 64)),
    "rank 2, groups": (stack(5, Conv(64, 3, padding="valid", groups=8)), (12, 12, 64)),
    "rank 3, groups": (stack(3, Conv(32, (1, 3, 3), padding="valid", groups=4)), (2, 8, 8, 32)),
    "separable": (stack(6, Conv(64, 3, padding="valid", groups="depthwise"), Conv(64, 1)), (10, 10, 64)),
    "transposed": (stack(3, ConvTranspose(48, 3, stride=2, padding="valid", groups=4)), (4, 4, 48)),
}
SEEDS = 16


@pytest.mark.parametrize("name", DEEP)
def test_activations_keep_their_variance_through_a_deep_relu_net(name: str) -> None:
    """The mean square of the last layer's sums is twice that of the input, whatever the depth, groups and rank.

    Over random weights that is exact for the mean; a layer of n filters adds 5 / n to the relative variance (the fourth
    moment of half a normal distribution is 6 times its squared second, minus 1), which bounds what seeds may do.
    """
    layers, shape = DEEP[name]
    value, construction = built(Sequential(*layers), shape, batch=2)
    found = []
    for seed in range(SEEDS):
        random = np.random.default_rng(seed)
        feeds: dict[str, Array] = {"x": random.standard_normal((2, *shape))}
        feeds |= {key: spec.sample(random).astype(np.float64) for key, spec in construction.parameters.items()}
        [y] = evaluate([value], feeds)
        inner = [layer for layer in layers if not isinstance(layer, ReLU)]
        positions = math.prod(y.shape[1:-1])
        if isinstance(inner[0], ConvTranspose):
            positions = math.prod(shape[:-1]) * 2 ** (len(shape[1:]) * len(inner))  # not the thinner borders
        found.append((y**2).sum() / (2 * positions * y.shape[-1]))
    filters = min(spec.shape[0] for key, spec in construction.parameters.items() if key.endswith("weight"))
    depth = sum(not isinstance(layer, ReLU) for layer in layers)
    spread = math.sqrt(((1 + 5 / filters) ** depth - 1) / SEEDS)
    assert abs(np.mean(found) / 2 - 1) <= 4 * spread < 0.8


@pytest.mark.parametrize("layer", [BatchNorm(), GroupNorm(2), InstanceNorm(affine=True), LayerNorm()], ids=str)
def test_norms_begin_by_changing_nothing_and_do_not_decay(layer: Layer) -> None:
    _, construction = built(Sequential(layer), (5, 4))
    scale, shift = construction.parameters.values()
    assert (scale.init, shift.init, scale.shape, shift.shape) == ("ones", "zeros", (4,), (4,))
    assert not scale.decay
    assert not shift.decay


def test_zeros_ones_numbers_and_what_is_unknown() -> None:
    random = np.random.default_rng(0)
    for init in INITS:
        sample = Parameter((3, 4), init, 4, 3, True).sample(random)
        assert (sample.shape, sample.dtype) == ((3, 4), np.float32)
        assert (len(np.unique(sample)) == 1) == (init in ("zeros", "ones"))
    np.testing.assert_array_equal(Parameter((2,), 0.25, 1, 1, False).sample(random), np.float32([0.25, 0.25]))
    with pytest.raises(ShapeError, match=r"init must be one of he_normal, .*Received: init='orthogonal'"):
        built(Dense(3, init="orthogonal"), (4,))
    with pytest.raises(ShapeError, match=r"prelu1: init must be .* a finite number\. Received: init=nan"):
        built(Sequential(PReLU(math.nan)), (4,))
