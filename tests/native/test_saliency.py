"""Where an answer comes from: against closed forms, finite differences and NumPy, and on a net that knows digits."""

from __future__ import annotations

import numpy as np
import pytest
from tests.helpers import normal

from convolve import (
    BatchNorm,
    Conv,
    Dense,
    Flatten,
    GlobalAvgPool,
    MaxPool,
    Model,
    Normalize,
    ReLU,
    Residual,
    Sequential,
    Softmax,
    Tanh,
    datasets,
    optim,
)
from convolve.errors import ConvolveError, ShapeError
from convolve.graph import Graph, evaluate, leaf
from convolve.layers import Construction, Scope
from convolve.view.saliency import enlarged, grad_cam, occlusion

SHAPES = {1: (21, 2), 2: (13, 11, 2), 3: (7, 6, 8, 2)}


@pytest.mark.parametrize("rank", SHAPES)
def test_before_a_global_mean_it_is_the_class_activation_map(rank: int) -> None:
    """There the gradient is known: the class's weight over the number of positions (Zhou et al., 2016)."""
    net = Sequential(Conv(6, 3), ReLU(), MaxPool(2), Residual(Conv(6, 3), ReLU()), GlobalAvgPool(), Dense(4), Softmax())
    model = Model(net, input_shape=SHAPES[rank])
    x = normal((1, *SHAPES[rank]))
    found = grad_cam(model.network, x, target=2)
    activation = model.trace(x)["residual1"][0].astype(np.float64)
    positions = activation[..., 0].size
    expected = np.maximum(activation @ model.parameters["dense1.weight"][2] / positions, 0)
    assert (found.layer, found.target, found.method) == ("residual1", 2, "Grad-CAM")
    assert found.coarse is not None
    np.testing.assert_allclose(found.coarse, expected, atol=1e-6 * expected.max())
    assert found.score == pytest.approx(model.trace(x)["dense1"][0, 2], rel=1e-5)
    assert found.map.shape == SHAPES[rank][:-1]
    np.testing.assert_array_equal(found.map, enlarged(found.coarse, found.map.shape))
    assert found.shares.max() == 1


def test_gradients_of_an_inner_layer_are_those_of_finite_differences() -> None:
    front = (Conv(3, 3, name="a"), Tanh(name="b"))  # no zeros, whose pooling has no derivative
    back = (MaxPool(2, name="c"), Conv(4, 3, name="d"), ReLU(name="e"), Flatten(name="f"), Dense(5, name="g"))
    model = Model(Sequential(*front, *back), input_shape=(6, 6, 2))
    x = normal((1, 6, 6, 2))
    activation = model.trace(x)["b"].astype(np.float64)
    value = leaf("input", "activation", activation.shape)
    scores = Scope(Construction(training=False)).build_net(Sequential(*back), value)["output"]
    arrays = {name: array.astype(np.float64) for name, array in model.parameters.items()}

    def score(a: np.ndarray) -> float:
        return float(evaluate(list(Graph({"y": scores}).outputs.values()), {"activation": a, **arrays})[0][0, 3])

    gradient = np.zeros_like(activation)
    for place in np.ndindex(activation.shape):
        step = np.zeros_like(activation)
        step[place] = 1e-6
        gradient[place] = (score(activation + step) - score(activation - step)) / 2e-6
    for averaged, method in ((True, "Grad-CAM"), (False, "HiResCAM")):
        weights = gradient[0].reshape(-1, 3).mean(0) if averaged else gradient[0]
        expected = np.maximum((activation[0] * weights).sum(-1), 0)
        found = grad_cam(model.network, x, target=3, layer="b", averaged=averaged)
        assert found.coarse is not None
        assert expected.max() > 0
        assert found.method == method
        np.testing.assert_allclose(found.coarse, expected, atol=1e-5 * expected.max())
    assert grad_cam(model.network, x, layer="b").method == "HiResCAM", "positions are flattened into features"


@pytest.mark.parametrize("rank", SHAPES)
def test_occlusion_is_what_covering_costs(rank: int) -> None:
    shape = SHAPES[rank]
    model = Model(Sequential(Conv(4, 3), ReLU(), Flatten(), Dense(3)), input_shape=shape)
    x = normal((1, *shape))
    told: list[tuple[int, int]] = []
    found = occlusion(model.network, x, size=3, stride=2, fill=0.5, progress=lambda *done: told.append(done))
    base = model.predict(x)[0].astype(np.float64)
    assert found.target == base.argmax()
    total, count = np.zeros(shape[:-1]), np.zeros(shape[:-1])
    # Starts within the input, the last where a window reaches the end.
    for start in np.ndindex(*(-(-(n - 3) // 2) + 1 for n in shape[:-1])):
        patch = tuple(slice(2 * s, 2 * s + 3) for s in start)
        covered = x.copy()
        covered[(0, *patch)] = 0.5
        total[patch] += base[found.target] - model.predict(covered)[0][found.target]
        count[patch] += 1
    assert count.min() > 0
    np.testing.assert_allclose(found.map, total / count, atol=1e-5 * np.abs(total).max())
    assert told[-1][0] == told[-1][1]
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_what_progress_raises_ends_the_work() -> None:
    model = Model(Sequential(Flatten(), Dense(3)), input_shape=(30, 30, 1))

    def stop(done: int, of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        occlusion(model.network, normal((1, 30, 30, 1)), size=2, stride=1, progress=stop)


def scattered(count: int, side: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Digits of half their size, each somewhere in a larger picture; their labels and corners."""
    mnist = datasets.load("mnist")
    small = mnist.x_train[:count, ..., 0].reshape(count, 14, 2, 14, 2).mean((2, 4)).astype(np.uint8)
    corners = np.random.default_rng(seed).integers(0, side - 14, (count, 2))
    pictures = np.zeros((count, side, side, 1), np.uint8)
    for picture, digit, (row, column) in zip(pictures, small, corners, strict=True):
        picture[row : row + 14, column : column + 14, 0] = digit
    return pictures, mnist.y_train[:count], corners


def test_the_region_that_is_marked_holds_the_digit() -> None:
    pictures, labels, corners = scattered(900, 32, 0)
    net = Sequential(
        *(Normalize(0, 255), Conv(8, 3), BatchNorm(), ReLU(), MaxPool(2), Conv(16, 3), BatchNorm(), ReLU(), MaxPool(2)),
        *(Conv(32, 3), BatchNorm(), ReLU(), GlobalAvgPool(), Dense(10)),
    )
    model = Model(net, input_shape=(32, 32, 1))
    model.fit(pictures[20:], labels[20:], epochs=4, batch_size=40, optimizer=optim.AdamW(5e-3))
    for method in (grad_cam, occlusion):
        within = []
        for i, (row, column) in enumerate(corners[:20]):
            found = method(model.network, pictures[i : i + 1]).shares
            box = np.zeros_like(found)
            box[max(0, row - 2) : row + 16, max(0, column - 2) : column + 16] = 1
            within.append(float((found * box).sum() / found.sum()))
        assert np.mean(within) > 0.75, f"{method.__name__}: the box is at most a third of the picture"


def test_a_model_tells_it_of_one_sample() -> None:
    model = Model(Sequential(Conv(4, 3), ReLU(), GlobalAvgPool(), Dense(3)), input_shape=(8, 8, 1))
    x = normal((1, 8, 8, 1))
    np.testing.assert_array_equal(model.saliency(x[0]).map, grad_cam(model.network, x).map)
    found = model.saliency(x, 1, "occlusion", size=4)
    np.testing.assert_array_equal(found.map, occlusion(model.network, x, 1, size=4).map)
    with pytest.raises(ConvolveError, match="method is grad_cam or occlusion"):
        model.saliency(x, method="magic")
    with pytest.raises(ShapeError, match="one sample"):
        model.saliency(normal((2, 8, 8, 1)))


def test_what_has_no_place_or_no_class_is_refused() -> None:
    model = Model(Sequential(Conv(4, 3), Flatten(), Dense(3)), input_shape=(8, 8, 1))
    x = normal((1, 8, 8, 1))
    with pytest.raises(ShapeError, match="one of 3 classes"):
        grad_cam(model.network, x, target=3)
    with pytest.raises(ShapeError, match="target=-1"):
        occlusion(model.network, x, target=-1)
    with pytest.raises(ShapeError, match="flatten1: Grad-CAM needs"):
        grad_cam(model.network, x, layer="flatten1")
    with pytest.raises(ConvolveError, match="no layer is called 'conv7'"):
        grad_cam(model.network, x, layer="conv7")
    with pytest.raises(ShapeError, match="one sample"):
        grad_cam(model.network, normal((2, 8, 8, 1)))
    with pytest.raises(ShapeError, match="fill is one number"):
        occlusion(model.network, x, fill=(0, 1, 2))
    flat = Model(Dense(3), input_shape=(8,))
    with pytest.raises(ConvolveError, match="no layer of this net has spatial dimensions"):
        grad_cam(flat.network, normal((1, 8)))
    with pytest.raises(ShapeError, match="an input with positions"):
        occlusion(flat.network, normal((1, 8)))
