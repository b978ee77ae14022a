"""What a value is made of equals the value: for every layer, at any rank; and it says what NumPy says."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.helpers import normal

from convolve import (
    GELU,
    AdaptiveAvgPool,
    AvgPool,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    GroupNorm,
    Input,
    InstanceNorm,
    LayerNorm,
    LeakyReLU,
    LpPool,
    MaxPool,
    Model,
    Net,
    Pad,
    Parallel,
    PReLU,
    ReLU,
    Reshape,
    Residual,
    Sequential,
    Sigmoid,
    Softmax,
    Upsample,
    zoo,
)
from convolve.errors import ConvolveError, ShapeError
from convolve.layers import Layer
from convolve.view.made import Joined, Mapped, Normalised, Pooled, Products, Shares, Taken
from convolve.view.pixel import Pixel, Traced

EXACT = 1e-6


def shaken(net: Layer, shape: tuple[int, ...]) -> Model:
    """A model with no parameter at its start: biases, scales and statistics are told apart."""
    model = Model(net, input_shape=shape)
    for place, name in enumerate(model.parameters):
        array = model.parameters[name]
        model.parameters[name] = array + 0.1 * normal(array.shape, place)
    for place, name in enumerate(model.statistics):
        model.statistics[name] = np.abs(normal(model.statistics[name].shape, place)) + 0.3
    return model


def traced(model: Model) -> Traced:
    return Traced(model.network, normal((1, *model.input_shape)))


def bound(pixel: Pixel) -> float:
    """1e-6, and what adding up many numbers one after the other may cost in float32 (Higham, 1993)."""
    return max(EXACT, 2.0**-24 * pixel.made.patch.size) if isinstance(pixel.made, Pooled) else EXACT


def gated() -> Net:
    x = Input()
    return Net(x, x * Sigmoid()(Conv(8, 1)(ReLU()(Conv(2, 1)(AdaptiveAvgPool(1)(x))))))


NETS = {
    "planes": (
        Sequential(
            *(Conv(8, 3, stride=2, dilation=2, groups=2), BatchNorm(), LeakyReLU()),
            *(MaxPool(3, stride=2, padding="same"), ConvTranspose(6, 3, stride=2, groups=2), GELU()),
            *(AvgPool(2, count_padding=True, padding=1), Residual(Conv(6, 3), BatchNorm(), ReLU(), Conv(6, 3))),
            Parallel(Conv(4, 1), Sequential(Conv(2, 3), ReLU()), MaxPool(3, stride=1, padding="same")),
            *(Upsample(2), Pad(2), GlobalAvgPool(), Dense(5), Softmax()),
        ),
        (23, 21, 4),
    ),
    "traces": (
        Sequential(
            *(Conv(8, 3), LayerNorm(), GroupNorm(2), Conv(16, 3, groups="depthwise"), PReLU(), Dropout()),
            *(InstanceNorm(), LpPool(2), Upsample(2, mode="linear"), AdaptiveAvgPool(3), Flatten()),
            *(Reshape((3, -1)), GlobalMaxPool(), Dense(3)),
        ),
        (17, 3),
    ),
    "volumes": (Sequential(Conv(4, 3), ReLU(), MaxPool(2), ConvTranspose(3, 2, stride=2), Flatten()), (7, 6, 5, 2)),
    "gated": (gated(), (6, 6, 8)),
    "mobilenet": (zoo.mobilenet_v2(), (32, 32, 3)),
}


@pytest.mark.parametrize("name", NETS)
def test_every_value_is_what_it_is_said_to_be_made_of(name: str) -> None:
    found = traced(shaken(*NETS[name]))
    random = np.random.default_rng(0)
    for path, row in found.anatomy.rows.items():
        shape = row.output.shape[1:]
        corners = (tuple(0 for _ in shape), tuple(n - 1 for n in shape))
        for position in (*corners, tuple(int(random.integers(n)) for n in shape)):
            pixel = found.pixel(path, position)
            assert pixel.value == found.results[path][(0, *position)]
            assert pixel.error < bound(pixel), pixel
            read = json.loads(json.dumps(pixel.as_dict()))
            assert read["made"]["total"] == pytest.approx(pixel.value, abs=bound(pixel) * pixel.made.scale)


def test_a_convolution_shows_its_patch_its_filter_and_what_lies_in_padding() -> None:
    model = shaken(Sequential(Conv(4, 3, stride=2), BatchNorm(), ReLU()), (6, 5, 2))
    found = traced(model)
    made = found.pixel("conv1", (2, 0, 3)).made
    assert isinstance(made, Products)
    padded = np.pad(found.x[0], ((0, 1), (1, 1), (0, 0)))  # "same" at stride 2: 0 + 1 of 6, 1 + 1 of 5
    np.testing.assert_array_equal(made.patch, padded[4:7, 0:3])
    np.testing.assert_array_equal(made.weights, model.parameters["conv1.weight"][3])
    np.testing.assert_array_equal(made.inside, [[False, True, True], [False, True, True], [False, False, False]])
    assert made.bias == model.parameters["conv1.bias"][3]
    assert made.places[0, 1].tolist() == [4, 0]
    assert made.sources == ("",)
    np.testing.assert_allclose(made.by_channel.sum() + made.bias, made.total)
    at, x, w, product = made.largest(1)[0]
    assert abs(product) == np.abs(made.products).max() == abs(made.patch[at] * np.float64(made.weights[at]))
    assert (x, w) == (made.patch[at], made.weights[at])


def test_what_follows_a_convolution_is_told_with_it() -> None:
    found = traced(shaken(Sequential(Conv(4, 3), BatchNorm(), ReLU(), Conv(4, 3)), (6, 2)))
    steps = found.pixel("conv1", (3, 1)).after
    assert [(step.layer, step.kind) for step in steps] == [("batch_norm1", "BatchNorm"), ("relu1", "ReLU")]
    assert [step.value for step in steps] == [found.results[name][0, 3, 1] for name in ("batch_norm1", "relu1")]
    assert found.pixel("relu1", (3, 1)).after == ()


def test_grouped_filters_see_their_own_channels() -> None:
    found = traced(shaken(Sequential(Conv(6, 1), Conv(4, 3, groups=2, bias=False)), (5, 5, 3)))
    made = found.pixel("conv2", (2, 2, 3)).made
    assert isinstance(made, Products)
    assert (made.first_channel, made.patch.shape, made.sources) == (3, (3, 3, 3), ("conv1",))
    np.testing.assert_array_equal(made.patch, found.results["conv1"][0, 1:4, 1:4, 3:])
    assert made.bias == 0


def test_predictions_by_winograd_are_marked() -> None:
    for exact in (False, True):
        model = Model(Conv(64, 3), input_shape=(28, 28, 64), exact=exact)
        made = traced(model).pixel("conv1", (3, 3, 0)).made
        assert isinstance(made, Products)
        assert made.winograd is not exact


def test_a_pool_shows_its_window_and_the_winner() -> None:
    found = traced(Model(MaxPool(3, stride=2, padding=1), input_shape=(6, 6, 2)))
    made = found.pixel("max_pool1", (0, 1, 1)).made
    assert isinstance(made, Pooled)
    window = found.x[0, 0:2, 1:4, 1]
    np.testing.assert_array_equal(made.patch[1:], window)
    assert not made.inside[0].any()
    assert made.winner is not None
    assert made.patch[made.winner] == window.max() == made.total
    assert found.x[(0, *made.places[made.winner], 1)] == window.max()


def test_a_mean_over_everything_is_a_pool() -> None:
    found = traced(Model(GlobalAvgPool(), input_shape=(3, 5, 2)))
    made = found.pixel("global_avg_pool1", (1,)).made
    assert isinstance(made, Pooled)
    assert (made.kind, made.divisor, made.channel) == ("avg", pytest.approx(15), 1)
    np.testing.assert_array_equal(made.patch, found.x[0, ..., 1])


def test_batch_norm_shows_its_four_numbers() -> None:
    model = shaken(BatchNorm(epsilon=0.25), (4, 3))
    found = traced(model)
    made = found.pixel("batch_norm1", (2, 1)).made
    assert isinstance(made, Normalised)
    arrays = [model.statistics[f"batch_norm1.{n}"][1] for n in ("mean", "variance")]
    arrays += [model.parameters[f"batch_norm1.{n}"][1] for n in ("scale", "shift")]
    assert [made.mean, made.variance, made.by, made.shift] == arrays
    assert (made.x, made.epsilon) == (found.x[0, 2, 1], 0.25)


def test_a_dense_layer_a_softmax_and_an_activation() -> None:
    model = shaken(Sequential(Flatten(), Dense(6), ReLU(), Dense(4), Softmax()), (3, 3, 2))
    found = traced(model)
    taken, dense, mapped, shares = (
        found.pixel(layer, (2,)).made for layer in ("flatten1", "dense1", "relu1", "softmax1")
    )
    assert isinstance(taken, Taken)
    assert (taken.position, taken.x) == ((0, 1, 0), found.x[0, 0, 1, 0])
    assert isinstance(dense, Products)
    assert dense.patch.shape == (18,)
    contributions = found.x.reshape(-1) * model.parameters["dense1.weight"][2].astype(np.float64)
    assert [at for (at,), *_ in dense.largest(3)] == np.argsort(-np.abs(contributions))[:3].tolist()
    assert isinstance(mapped, Mapped)
    assert mapped.y == max(0.0, mapped.x)
    assert isinstance(shares, Shares)
    np.testing.assert_array_equal(shares.logits, found.results["dense2"][0])
    np.testing.assert_allclose(shares.shares, found.results["softmax1"][0], rtol=1e-5)


def test_a_residual_block_is_the_sum_of_its_sides() -> None:
    found = traced(shaken(Sequential(Conv(2, 1), Residual(Conv(2, 3), ReLU(), Conv(2, 3))), (5, 5, 2)))
    made = found.pixel("residual1", (1, 2, 0)).made
    assert isinstance(made, Joined)
    assert made.names == ("residual1.conv2", "conv1")
    assert made.terms == tuple(float(found.results[name][0, 1, 2, 0]) for name in made.names)


def test_explanations_print() -> None:
    found = traced(shaken(*NETS["planes"]))
    text = str(found.pixel("conv1", (0, 0, 0)))
    assert text.splitlines()[0].startswith("conv1 [0, 0, 0] = ")
    assert "(0)" in text
    assert "leaky_relu1" in text
    for path, row in found.anatomy.rows.items():
        assert str(found.pixel(path, tuple(0 for _ in row.output.shape[1:]))).count("\n") >= 1


def test_a_layer_or_a_position_that_is_not_there_is_refused() -> None:
    found = traced(shaken(Conv(2, 3), (5, 5, 2)))
    with pytest.raises(ConvolveError, match="no layer is called 'conv9'"):
        found.pixel("conv9", (0, 0, 0))
    for position in ((0, 0), (0, 0, 2), (-1, 0, 0)):
        with pytest.raises(ShapeError, match="conv1: expected a position within"):
            found.pixel("conv1", position)
    with pytest.raises(ShapeError, match="one sample"):
        Traced(found.network, normal((2, 5, 5, 2)))
