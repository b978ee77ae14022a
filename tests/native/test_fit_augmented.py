"""Training on augmented samples and on sources; predictions that are averaged over views."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from convolve import Conv, Dense, Flatten, GlobalAvgPool, Model, ReLU, Sequential, augment, optim
from convolve.errors import ConvolveError, ShapeError
from convolve.source import Source, Subset, batch, subset
from convolve.training.fit import History, Underway, fit
from convolve.training.trainer import Trainer

RANDOM = np.random.default_rng(0)
X = RANDOM.integers(0, 256, (40, 8, 8, 1), np.uint8)
Y = RANDOM.integers(0, 3, 40)
STEPS = (augment.Shift(1), augment.Rotate(10), augment.Noise(0.1), augment.Erase(), augment.Mixup())


class Made:
    """A source that keeps which thread asked it for what."""

    def __init__(self, x: NDArray[Any]) -> None:
        self.x, self.asked = x, list[tuple[str, int]]()

    shape = property(lambda self: self.x.shape)
    dtype = property(lambda self: self.x.dtype)

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices: NDArray[np.integer[Any]]) -> NDArray[Any]:
        self.asked.append((threading.current_thread().name, len(indices)))
        return self.x[indices]


def small(threads: int = 2) -> Model:
    net = Sequential(Conv(4, 3), ReLU(), GlobalAvgPool(), Dense(3))
    return Model(net, (8, 8, 1), threads=threads)


def parameters(model: Model) -> dict[str, NDArray[Any]]:
    return {name: np.array(value) for name, value in model.parameters.items()}


def same(a: dict[str, NDArray[Any]], b: dict[str, NDArray[Any]]) -> bool:
    return all(np.array_equal(a[name], b[name]) for name in a)


def trained(threads: int = 2, x: Any = X, steps: tuple[augment.Augmentation, ...] = STEPS) -> dict[str, NDArray[Any]]:
    model = small(threads)
    model.fit(x, Y, 2, 16, optim.SGD(0.01), augment=steps)
    return parameters(model)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    first = trained(1)
    assert same(first, trained(3))
    assert not same(first, trained(1, steps=()))


@pytest.mark.parametrize("steps", [(), STEPS])
def test_a_source_trains_as_its_array_does(steps: tuple[augment.Augmentation, ...]) -> None:
    source = Made(X)
    assert isinstance(source, Source)
    assert same(trained(x=source, steps=steps), trained(steps=steps))
    assert {count for _, count in source.asked} == {16, 8}
    assert all(name.startswith("convolve-feed") for name, _ in source.asked)


def test_a_source_is_read_ahead_when_it_is_predicted_and_evaluated() -> None:
    model = small()
    for call in (
        lambda x: model.predict(x, 16),
        lambda x: model.predict(x, 16, [augment.Flip()]),
        lambda x: model.evaluate(x, Y, 16)["loss"],
        lambda x: np.concatenate(list(model.outputs(x, 16))),
    ):
        source = Made(X)
        np.testing.assert_array_equal(call(source), call(X))
        assert len(source.asked) == 3
        assert all(name.startswith("convolve-feed") for name, _ in source.asked)


def test_a_resumed_training_goes_on_with_the_same_bits() -> None:
    def begun(model: Model) -> Trainer:
        return Trainer(model.network, "cross_entropy", optim.SGD(0.01, momentum=0.9))

    y = Y.astype(np.int32)
    pipeline = augment.Pipeline(STEPS, classes=3)
    whole, stopped = small(), small()
    fit(whole.network, begun(whole), X, y, 2, 16, augment=pipeline)

    class Stop(Exception):
        pass

    history, first = History(), begun(stopped)

    def stop(progress: Any) -> None:
        if progress.step == 2:
            raise Stop

    with pytest.raises(Stop):
        fit(stopped.network, first, X, y, 2, 16, callbacks=[stop], history=history, augment=pipeline)
    assert isinstance(history.underway, Underway)
    resumed = small(1)
    for name, value in parameters(stopped).items():
        resumed.parameters[name] = value
    second = begun(resumed)
    second.resume(first.state, first.steps, X[:16], y[:16])
    fit(resumed.network, second, X, y, 2, 16, history=history, augment=pipeline)
    assert same(parameters(resumed), parameters(whole))
    assert 0 < history.waiting < 1


def test_an_own_loop_trains_alike() -> None:
    model = small()
    trainer = model.trainer(optimizer=optim.SGD(0.01), augment=STEPS)
    made = [trainer.step(X[:16], Y[:16]) for _ in range(2)]
    assert made[0] != made[1]
    again = small().trainer(optimizer=optim.SGD(0.01), augment=STEPS)
    assert made == [again.step(X[:16], Y[:16]) for _ in range(2)]


def test_evaluation_and_prediction_take_sources() -> None:
    model = small()
    source = Made(X)
    np.testing.assert_array_equal(model.predict(source, 16), model.predict(X, 16))
    assert model.evaluate(source, Y, 16) == model.evaluate(X, Y, 16)
    with pytest.raises(ShapeError, match="received a source of uint8, shape"):
        model.predict(Made(X[:, :7]))


def test_subsets_of_sources() -> None:
    source = Made(X)
    part = subset(subset(source, [5, 3, 9, 1]), [2, 0])
    assert isinstance(part, Subset)
    assert part.shape == (2, 8, 8, 1)
    np.testing.assert_array_equal(part.batch(np.array([0, 1])), X[[9, 5]])
    np.testing.assert_array_equal(batch(part, 1, 7), X[[5]])


def test_predictions_are_averaged_over_views() -> None:
    net = Sequential(Flatten(), Dense(3))
    model = Model(net, (8, 8, 1), classes=("a", "b", "c"))
    x = X / np.float32(255)

    def probabilities(x: NDArray[Any]) -> NDArray[Any]:
        grown = np.exp(model.predict(x))
        return np.asarray(grown / grown.sum(-1, keepdims=True))

    wanted = (probabilities(x) + probabilities(x[:, :, ::-1])) / 2
    np.testing.assert_allclose(np.exp(model.predict(x, augment=[augment.Flip()])), wanted, rtol=1e-4)
    np.testing.assert_array_equal(
        model.classify(x, augment=[augment.Flip()]), np.array(model.classes)[wanted.argmax(-1)]
    )
    scores = model.evaluate(x, Y, augment=[augment.Flip()])
    assert scores["accuracy"] == (wanted.argmax(-1) == Y).mean()
    np.testing.assert_allclose(scores["loss"], -np.log(wanted[np.arange(40), Y]).mean(), rtol=1e-4)
    values = Model(net, (8, 8, 1))
    mean = (values.predict(x) + values.predict(x[:, ::-1])) / 2
    np.testing.assert_allclose(values.predict(x, augment=[augment.Flip(-2)]), mean, atol=1e-5)


def test_views_of_places_are_moved_back() -> None:
    model = Model(Sequential(Conv(2, 1)), (8, 8, 1))  # sees a place alone, so that moving there and back is nothing
    x = X / np.float32(255)
    made = model.predict(x, augment=[augment.Flip(), augment.Shift(1, "edge")])
    np.testing.assert_allclose(made[:, 1:-1, 1:-1], model.predict(x)[:, 1:-1, 1:-1], atol=1e-5)


def test_explain_says_how_long_training_waits_for_data() -> None:
    source = Made(X)
    found = small().explain(8, data=source, augment=STEPS[:3])
    assert found.waiting is not None
    assert 0 <= found.waiting < 1
    assert len(source.asked) == 5
    assert f"waits for them {found.waiting:.1%} of the time" in str(found)
    assert small().explain(8).waiting is None


def test_samples_without_places_are_refused() -> None:
    with pytest.raises(ConvolveError, match="have no places"):
        Model(Dense(3), (4,)).fit(np.zeros((8, 4), np.float32), np.zeros(8), augment=[augment.Flip()])
