"""The loop around the step: averages, the best epoch, patience, and going on within an epoch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from convolve import BatchNorm, Conv, Dense, Dropout, Flatten, Model, ReLU, Sequential, losses, optim
from convolve.errors import ConvolveError
from convolve.training.fit import History, Progress, Underway, fit
from convolve.training.schedule import OneCycle
from convolve.training.trainer import Trainer

RANDOM = np.random.default_rng(3)
X = RANDOM.standard_normal((44, 6, 6, 2), np.float32)
Y = RANDOM.integers(0, 3, 44).astype(np.int32)


def small(threads: int | None = None) -> Model:
    net = Sequential(Conv(5, 3), BatchNorm(), ReLU(), Dropout(0.2), Flatten(), Dense(3))
    return Model(net, input_shape=(6, 6, 2), threads=threads)


def test_averages_are_as_defined_and_change_no_other_bit() -> None:
    plain, averaged = small(), small()
    one = Trainer(plain.network, "cross_entropy", optim.AdamW(1e-2))
    two = Trainer(averaged.network, "cross_entropy", optim.AdamW(1e-2), average=0.2)
    wanted: dict[str, np.ndarray] = {}
    for step in range(6):
        one.step(X[:16], Y[:16])
        two.step(X[:16], Y[:16])
        keep = np.float32(min(0.2, step / (step + 9)))
        new = plain.network.arrays()
        wanted = {key: keep * wanted.get(key, np.float32(0)) + (1 - keep) * array for key, array in new.items()}
        for key, array in averaged.network.arrays().items():
            np.testing.assert_array_equal(array, new[key], key)
    with two.averaged():
        for key, array in averaged.network.arrays().items():
            np.testing.assert_allclose(array, wanted[key], rtol=1e-5, atol=1e-6, err_msg=key)
    for key, array in averaged.network.arrays().items():
        np.testing.assert_array_equal(array, new[key], key)
    two.settle()
    np.testing.assert_allclose(averaged.parameters["conv1.weight"], wanted["parameter:conv1.weight"], atol=1e-6)
    assert "statistic:batch_norm1.mean" in wanted


@pytest.mark.parametrize("average", [1.0, 0.0, -0.1])
def test_an_average_keeps_a_part(average: float) -> None:
    with pytest.raises(ConvolveError, match="average must be between 0 and 1"):
        small().fit(X, Y, average=average)


def test_the_best_epoch_is_that_of_the_highest_accuracy_then_of_the_lowest_loss() -> None:
    def epoch(accuracy: float, loss: float) -> dict[str, float]:
        return {"loss": 1.0, "validation_loss": loss, "validation_accuracy": accuracy}

    assert History().best is None
    assert History([{"loss": 1.0}]).best is None
    assert History([epoch(0.5, 0.1), epoch(0.7, 0.3), epoch(0.7, 0.2), epoch(0.7, 0.2)]).best == 3
    assert History([epoch(float("nan"), float("nan")), epoch(0.1, 9.0)]).best == 2


def test_patience_leaves_the_best_parameters() -> None:
    model, best = small(), small()
    wrong = (Y[:12] + 1) % 3  # what is learned makes this worse
    history = model.fit(X, Y, 20, 11, optim.AdamW(1e-2), validation=(X[:12], wrong), patience=3)
    assert history.best is not None
    assert len(history) == history.best + 3 < 20
    reached = model.evaluate(X[:12], wrong)
    assert reached["accuracy"] == history["validation_accuracy"][history.best - 1]
    assert reached["loss"] == history["validation_loss"][history.best - 1]
    best.fit(X, Y, history.best, 11, optim.AdamW(1e-2))
    np.testing.assert_array_equal(model.parameters["dense1.weight"], best.parameters["dense1.weight"])


def test_patience_needs_validation() -> None:
    with pytest.raises(ConvolveError, match=r"give validation=\(x, y\)"):
        small().fit(X, Y, patience=2)


@pytest.mark.parametrize("stop", [2, 4, 7])
def test_a_training_goes_on_within_an_epoch_bit_for_bit(stop: int) -> None:
    """4 steps an epoch: stopped within the first, after it, and within the second; resumed on another thread count."""

    def trained(model: Model, trainer: Trainer, history: History, *callbacks: object) -> None:
        validate = lambda: model.evaluate(X[:7], Y[:7])  # noqa: E731
        fit(model.network, trainer, X, Y, 3, 11, OneCycle(), callbacks, validate, 5, history)  # type: ignore[arg-type]

    def trainer_of(model: Model) -> Trainer:
        return Trainer(model.network, "cross_entropy", optim.AdamW(1e-2), 5, average=0.9)

    whole, history = small(2), History()
    trained(whole, trainer_of(whole), history)

    class Kill(Exception):
        pass

    first, begun = small(1), History()
    trainer = trainer_of(first)

    def kill(progress: Progress) -> None:
        if progress.step == stop and progress.epoch_done == (stop == 4):
            raise Kill

    with pytest.raises(Kill):
        trained(first, trainer, begun, kill)

    second = small(2)
    for key, array in first.network.arrays().items():
        second.network[key] = array
    other = trainer_of(second)
    other.resume(trainer.state, trainer.steps, X[:11], Y[:11])
    went_on = History([*begun.epochs], replace(begun.underway))
    assert went_on.underway == Underway(seconds=went_on.underway.seconds) or stop != 4
    trained(second, other, went_on)
    for key, array in whole.network.arrays().items():
        np.testing.assert_array_equal(array, second.network[key], key)
    for one, two in zip(history.epochs, went_on.epochs, strict=True):
        assert one | {"seconds": 0.0} == two | {"seconds": 0.0}


def test_balanced_weights_let_classes_count_alike() -> None:
    weights = losses.balanced([0, 0, 0, 2, 2, 0], classes=4)
    assert weights == (0.75, 0.0, 1.5, 0.0)
    model = small()
    rare = np.where(np.arange(44) % 11 == 0, 1, 0)
    loss = losses.cross_entropy(class_weights=losses.balanced(rare, 3))
    one = model.evaluate(X[rare == 1], rare[rare == 1])["loss"]
    two = model.evaluate(X[rare == 0], rare[rare == 0])["loss"]
    assert model.evaluate(X, rare, loss=loss)["loss"] == pytest.approx((one + two) / 2, rel=1e-5)


def test_what_reads_as_a_copy_is_one() -> None:
    model = Model(Dense(1), input_shape=(1,))
    before = model.network.arrays()
    kept = before["parameter:dense1.weight"].copy()
    model.parameters["dense1.weight"] = kept + 1
    np.testing.assert_array_equal(before["parameter:dense1.weight"], kept)
