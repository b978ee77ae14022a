"""What filters look for: held against NumPy over the same activations, and against nets without the filter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.helpers import normal

from convolve import BatchNorm, Conv, Dense, Flatten, MaxPool, Model, ReLU, Residual, Sequential
from convolve.errors import ConvolveError, FileError, ShapeError
from convolve.storage import save
from convolve.view import excitation
from convolve.view.excitation import Excitation, beside, crop, measure

COUNT = 41


def model_of(rank: int = 2) -> Model:
    net = Sequential(
        *(Conv(5, 3), BatchNorm(), ReLU(), MaxPool(2), Residual(Conv(5, 3), ReLU()), Conv(6, 3, stride=2), ReLU()),
        *(Flatten(), Dense(3)),
    )
    model = Model(net, input_shape=(*(12, 11, 10)[:rank], 2))
    model.statistics["batch_norm1.mean"] = 0.1 * normal((5,))
    return model


def data(model: Model) -> tuple[np.ndarray, np.ndarray]:
    return normal((COUNT, *model.input_shape)), np.random.default_rng(0).integers(0, 3, COUNT)


def measured(model: Model, layer: str, top: int = 4) -> Excitation:
    *_, found = measure(model.network, layer, *data(model), top=top)
    return found


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_strongest_patches_are_those_numpy_finds(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(excitation, "MOST_AT_ONCE", 16)
    model = model_of(rank)
    x, y = data(model)
    found = measured(model, "conv1")
    assert (found.layer, found.heard, found.done) == ("conv1", "relu1", COUNT)
    activation = model.trace(x)["relu1"]
    flat = activation.reshape(COUNT, -1, 5)
    largest = flat.max(1)
    for number in range(5):
        order = np.argsort(-largest[:, number], kind="stable")[:4]
        np.testing.assert_array_equal(found.samples[number], order)
        np.testing.assert_allclose(found.values[number], largest[order, number], rtol=1e-5)
        for place, sample in enumerate(order):
            at = tuple(found.positions[number, place])
            assert activation[(sample, *at, number)] == largest[sample, number]
            assert found.box(number, place) == tuple((n - 1, n + 1) for n in at)
    means = np.stack([flat[y == c].mean((0, 1), np.float64) for c in range(3)], 1)
    np.testing.assert_allclose(found.means, means, rtol=1e-5)
    np.testing.assert_array_equal(found.favourite, means.argmax(1))
    best, rest = means.max(1), (means.sum(1) - means.max(1)) / 2
    np.testing.assert_allclose(found.selectivity, (best - rest) / (best + rest), rtol=1e-4)


@pytest.mark.parametrize("layer", ["conv1", "residual1.conv1", "conv2"])
def test_a_silenced_filter_is_a_net_without_it(layer: str) -> None:
    model = model_of()
    x, y = data(model)
    found = measured(model, layer)
    assert found.accuracy == pytest.approx(model.evaluate(x, y)["accuracy"])
    assert found.accuracy_without is not None
    assert len(set(found.accuracy_without)) > 1
    # Without scale and shift, or weight and bias, the activation is 0.
    arrays = ("batch_norm1.scale", "batch_norm1.shift") if layer == "conv1" else (f"{layer}.weight", f"{layer}.bias")
    for number, accuracy in enumerate(found.accuracy_without):
        without = model.copy()
        for name in arrays:
            array = np.array(without.parameters[name])
            array[number] = 0
            without.parameters[name] = array
        assert accuracy == pytest.approx(without.evaluate(x, y)["accuracy"])


def test_a_crop_is_all_that_a_value_depends_on() -> None:
    model = model_of()
    x, _ = data(model)
    found = measured(model, "conv2")
    box = found.box(2, 0)
    sample = x[found.samples[2, 0]]
    elsewhere = normal(sample.shape, 5)
    inside = tuple(slice(max(0, low), high + 1) for low, high in box)
    elsewhere[inside] = sample[inside]
    at = (0, *found.positions[2, 0], 2)
    assert model.trace(elsewhere[None])["relu2"][at] == pytest.approx(found.values[2, 0], rel=1e-5)
    cut = crop(sample, box, fill=7)
    assert cut.shape == (*(high - low + 1 for low, high in box), 2)
    np.testing.assert_array_equal(cut[tuple(slice(max(0, -low), None) for low, _ in box)][0, 0], sample[inside][0, 0])


def test_units_of_a_dense_layer_see_the_whole_sample() -> None:
    model = Model(Sequential(Flatten(), Dense(4), ReLU(), Dense(3)), input_shape=(6, 5, 1))
    found = measured(model, "dense1")
    assert found.positions.shape == (4, 4, 0)
    assert found.box(0, 0) == ((0, 5), (0, 4))
    assert crop(normal((6, 5, 1)), found.box(0, 0)).shape == (6, 5, 1)


def test_a_filter_that_never_answers_is_dead() -> None:
    model = model_of()
    model.parameters["conv2.bias"] = np.array([2, 2, 2, -1e6, 2, 2])
    assert measured(model, "conv2").dead.tolist() == [False, False, False, True, False, False]


def test_it_can_be_stopped_and_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(excitation, "MOST_AT_ONCE", 16)
    model = model_of()
    steps: list[tuple[int, int]] = []
    parts = measure(model.network, "conv1", *data(model), progress=lambda *step: steps.append(step))
    first = next(parts)
    assert (first.done, first.total) == (16, COUNT)
    assert steps == [(n, 18) for n in range(1, 7)]
    parts.close()
    assert [found.done for found in measure(model.network, "conv1", data(model)[0])] == [16, 32, 41]


def test_it_is_kept_beside_the_model(tmp_path: Path) -> None:
    model = model_of()
    x, y = data(model)
    path = beside(tmp_path / "model.safetensors", "conv1")
    found = measured(model, "conv1")
    found.save(path)
    read = Excitation.load(path)
    for name in ("layer", "heard", "done", "total", "accuracy", "marks"):
        assert getattr(read, name) == getattr(found, name)
    for name in ("values", "samples", "positions", "boxes", "means", "least", "accuracy_without"):
        np.testing.assert_array_equal(getattr(read, name), np.asarray(getattr(found, name), np.float32))
    assert read.fits(model.network, x)
    assert not read.fits(model.network, x[1:])
    assert not next(measure(model.network, "conv1", x[:2], y[:2])).fits(model.network, x)
    model.parameters["dense1.bias"] = normal((3,), 1)
    assert not read.fits(model.network, x)
    without_labels = next(measure(model.network, "conv1", x))
    without_labels.save(path)
    assert Excitation.load(path).accuracy_without is None


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    model_of().save(path)
    with pytest.raises(FileError, match="holds no measurement of filters"):
        Excitation.load(path)
    arrays = {name: np.zeros((2, 3), np.float32) for name in excitation.TENSORS}
    save(path, arrays, {"excitation": {}})
    with pytest.raises(FileError, match="holds no measurement"):
        Excitation.load(path)


def test_samples_may_be_made_when_they_are_asked_for() -> None:
    model = model_of()
    x, y = data(model)

    class Made:
        shape, dtype = x.shape, x.dtype

        def __len__(self) -> int:
            return COUNT

        def batch(self, indices: np.ndarray) -> np.ndarray:
            return x[indices]

    *_, found = measure(model.network, "conv1", Made(), y, top=4)
    np.testing.assert_array_equal(found.samples, measured(model, "conv1").samples)
    assert found.fits(model.network, x)


def test_data_that_do_not_suit_are_refused() -> None:
    model = model_of()
    x, y = data(model)
    with pytest.raises(ConvolveError, match="no layer is called 'conv9'"):
        measure(model.network, "conv9", x)
    with pytest.raises(ShapeError, match="expected x"):
        measure(model.network, "conv1", x[:, 1:])
    with pytest.raises(ShapeError, match="labels"):
        measure(model.network, "conv1", x, y[1:])
    with pytest.raises(ShapeError, match="from 0 on"):
        measure(model.network, "conv1", x, y - 1)
    with pytest.raises(ConvolveError, match="at least one sample"):
        measure(model.network, "conv1", x[:0])
