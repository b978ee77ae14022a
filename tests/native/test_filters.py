"""Filters: which weights they are, their orders, and what became of them from one checkpoint to another."""

from __future__ import annotations

import numpy as np
import pytest
from tests.helpers import normal

from convolve import Conv, ConvTranspose, Dense, Flatten, MaxPool, Model, ReLU, Residual, Sequential
from convolve.errors import ConvolveError
from convolve.view.anatomy import Anatomy
from convolve.view.filters import Filters, compare, filters, with_filters
from convolve.view.made import Products
from convolve.view.pixel import Traced


def model_of(seed: int = 0) -> Model:
    net = Sequential(
        *(Conv(6, 3, groups=2), ReLU(), Residual(Conv(6, 3), ReLU()), MaxPool(2)),
        *(ConvTranspose(4, 3, stride=2, groups=2), Flatten(), Dense(5)),
    )
    return Model(net, input_shape=(6, 6, 2), seed=seed)


def test_filters_are_what_a_value_is_multiplied_with() -> None:
    model = model_of()
    layers = with_filters(Anatomy(model.network))
    assert layers == ["conv1", "residual1.conv1", "conv_transpose1", "dense1"]
    traced = Traced(model.network, normal((1, 6, 6, 2)))
    for layer in layers:
        found = filters(model.network, layer)
        shape = traced.results[layer].shape[1:]
        assert len(found.weights) == shape[-1]
        for number in range(shape[-1]):
            made = traced.pixel(layer, (*(n // 2 for n in shape[:-1]), number)).made
            assert isinstance(made, Products)
            np.testing.assert_array_equal(made.weights, found.weights[number])


def test_strongest_first_and_the_dead_are_known() -> None:
    found = Filters("conv1", normal((5, 3, 3, 2)) * np.array([1, 3, 0, 2, 1e-6], np.float32).reshape(5, 1, 1, 1))
    assert found.order("index").tolist() == [0, 1, 2, 3, 4]
    strength = np.linalg.norm(found.weights.reshape(5, -1), axis=1)
    np.testing.assert_allclose(found.strength, strength, rtol=1e-6)
    assert found.order("strength").tolist() == np.argsort(-strength).tolist()
    assert found.dead.tolist() == [False, False, True, False, True]
    with pytest.raises(ConvolveError, match="Received: 'colour'"):
        found.order("colour")


def test_by_similarity_alike_filters_are_neighbours() -> None:
    kinds = normal((3, 1, 9, 1))
    weights = np.concatenate([kinds + 0.05 * normal((3, 1, 9, 1), seed) for seed in range(1, 5)])[:, 0]
    found = Filters("conv1", weights)
    order = found.order("similarity")
    assert sorted(order) == list(range(12))
    kind = order % 3
    assert np.count_nonzero(np.diff(kind)) == 2, "each kind is one run"
    assert order[0] == found.strength.argmax()
    np.testing.assert_allclose(np.diag(found.similarity), 1)


def test_what_changed_most_comes_first() -> None:
    before, after = model_of(), model_of()
    array = np.array(after.parameters["conv1.weight"])
    array[3] = -array[3]
    array[1] *= 1.5
    after.parameters["conv1.weight"] = array
    first, *others = compare(before.network, after.network)
    assert first.layer == "conv1"
    assert first.order[:2].tolist() == [3, 1]
    np.testing.assert_allclose(first.distance, [0, 0.4, 0, 2, 0, 0], atol=1e-6)
    np.testing.assert_allclose(first.cosine, [1, 1, 1, -1, 1, 1])
    assert [change.layer for change in others] == ["residual1.conv1", "conv_transpose1", "dense1"]
    assert all((change.distance == 0).all() for change in others)


def test_other_nets_and_layers_without_filters_are_refused() -> None:
    model = model_of()
    with pytest.raises(ConvolveError, match=r"relu1: has no filters\. Layers that have are conv1, residual1\.conv1"):
        filters(model.network, "relu1")
    with pytest.raises(ConvolveError, match=r"residual1\.conv1, conv_transpose1"):
        filters(model.network, "residual1")
    other = Model(Conv(4, 3), input_shape=(6, 6, 2))
    with pytest.raises(ConvolveError, match="two checkpoints of one net"):
        compare(model.network, other.network)
    with pytest.raises(ConvolveError, match="filters of one shape"):
        compare(Model(Conv(5, 3), input_shape=(6, 6, 2)).network, other.network)
