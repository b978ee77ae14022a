"""convolve.sklearn against scikit-learn's own conformance suite, its searches and pipelines, and pickle."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from convolve import (
    Conv,
    Dense,
    Flatten,
    Input,
    MaxPool,
    Model,
    Net,
    Normalize,
    ReLU,
    Residual,
    Sequential,
    load,
    losses,
    optim,
)
from convolve.errors import ConvolveError, DataError, ShapeError
from convolve.sklearn import SMALL_CHANGES, Classifier, Regressor

NET = Sequential(Normalize(8.0, 6.0), Conv(8, 3), ReLU(), MaxPool(2), Flatten(), Dense(10))
DIGITS = load_digits()
IMAGES, LABELS = DIGITS.images[:400], DIGITS.target[:400]

EXPECTED = {
    "check_sample_weight_equivalence_on_dense_data": (
        "batches are drawn by the samples' places: one of weight two is not drawn as two of weight one are"
    )
}


@parametrize_with_checks(
    [Classifier(epochs=40, threads=1), Regressor(epochs=40, threads=1)], expected_failed_checks=lambda _: EXPECTED
)
def test_scikit_learn_accepts(estimator: Any, check: Any) -> None:
    check(estimator)


def classifier(**options: Any) -> Classifier:
    return Classifier(**{"net": NET, "epochs": 3, "augment": (), "random_state": 0, "threads": 1, **options})


@pytest.fixture(scope="module")
def trained() -> Classifier:
    return classifier(epochs=30).fit(IMAGES, LABELS)


# samples and labels


@pytest.mark.parametrize("flat", [False, True])
def test_images_and_rows_with_an_input_shape_train_alike(flat: bool, trained: Classifier) -> None:
    rows = classifier(epochs=30, input_shape=(8, 8, 1)).fit(DIGITS.data[:400], LABELS)
    test = DIGITS.data[400:600] if flat else DIGITS.images[400:600]
    found = (rows if flat else trained).predict_proba(test)
    np.testing.assert_array_equal(found, trained.predict_proba(DIGITS.images[400:600]))
    assert trained.score(DIGITS.images[400:600], DIGITS.target[400:600]) > 0.75


def test_labels_are_of_any_type() -> None:
    names = np.array(["zero", "one"], object)[LABELS[LABELS < 2]]
    fitted = classifier(epochs=30).fit(IMAGES[LABELS < 2], names)
    assert fitted.classes_.tolist() == ["one", "zero"]
    assert fitted.model_.output_shape == (2,)
    assert (fitted.predict(IMAGES[LABELS < 2]) == names).all()


def test_bytes_stay_bytes(trained: Classifier) -> None:
    found = trained.predict_proba(IMAGES.astype(np.uint8))
    np.testing.assert_array_equal(found, trained.predict_proba(IMAGES))


def test_probabilities_are_the_softmax_of_the_models_logits(trained: Classifier) -> None:
    logits = trained.model_.predict(IMAGES.astype(np.float32)).astype(float)
    powers = np.exp(logits)
    np.testing.assert_allclose(trained.predict_proba(IMAGES), powers / powers.sum(1, keepdims=True))
    np.testing.assert_allclose(np.exp(trained.predict_log_proba(IMAGES)), trained.predict_proba(IMAGES))


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((9,), "Dense"), ((8, 8), "Conv"), ((16, 1), "Conv"), ((6, 6, 6, 1), "Conv"), ((48, 48, 1), "Residual")],
    ids=str,
)
def test_default_nets_suit_the_samples(shape: tuple[int, ...], kind: str) -> None:
    x = np.random.default_rng(0).random((4, *shape)).astype(np.float32)
    given = {"input_shape": shape} if len(shape) == 2 and shape[-1] == 1 else {}
    fitted = Classifier(epochs=1, random_state=0, threads=1, **given).fit(x, [0, 1, 0, 1])
    assert kind in {type(layer).__name__ for layer in fitted.model_.net.layers}


def test_images_are_changed_a_little_unless_told_otherwise() -> None:
    """Rows of features and numbers' images are not."""
    found = {}
    for x in (IMAGES[:64], DIGITS.data[:64]):
        for augment in ("auto", SMALL_CHANGES[: x.ndim - 2], ()):
            fitted = Classifier(epochs=1, augment=augment, random_state=0, threads=1).fit(x, LABELS[:64])
            found[x.ndim, str(augment)] = fitted.model_.to_bytes()
    assert found[3, "auto"] == found[3, str(SMALL_CHANGES)] != found[3, "()"]
    assert found[2, "auto"] == found[2, "()"]
    plain = Regressor(epochs=1, augment=(), random_state=0, threads=1).fit(IMAGES[:64], LABELS[:64])
    assert clone(plain).set_params(augment="auto").fit(IMAGES[:64], LABELS[:64]).score(IMAGES, LABELS) == plain.score(
        IMAGES, LABELS
    )


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda: classifier(input_shape=(9, 9, 1)).fit(IMAGES, LABELS), ShapeError, "81 values"),
        (lambda: classifier().fit(IMAGES, np.zeros(400)), DataError, "one class"),
        (lambda: classifier().fit(IMAGES, LABELS, np.zeros(400)), ValueError, "non-zero|not all of them 0"),
        (lambda: classifier().fit(IMAGES, LABELS, np.arange(400) - 1.0), DataError, "Received: -1 to 398"),
        (lambda: classifier(net=Conv(10, 3)).fit(IMAGES, LABELS), ShapeError, "Flatten"),
        (lambda: classifier(net=7).fit(IMAGES, LABELS), ConvolveError, "net=7"),
        (lambda: classifier(net="nonet").fit(IMAGES, LABELS), ConvolveError, "nonet"),
        (lambda: classifier(loss="dice").fit(IMAGES, LABELS, np.ones(400)), ConvolveError, "dice"),
        (lambda: classifier(augment="more").fit(IMAGES, LABELS), ConvolveError, "augment='more'"),
        (lambda: classifier(loss=max).fit(IMAGES, LABELS), ConvolveError, "loss="),
    ],
)
def test_what_cannot_work_is_said(change: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        change()


# parameters


def test_parameters_reach_down_to_the_net() -> None:
    given = Classifier(NET, optimizer=optim.AdamW(1e-3))
    params = given.get_params()
    assert params["net__conv1__filters"] == 8
    assert params["optimizer__rate"] == 1e-3
    changed = clone(given).set_params(net__conv1__filters=4, net__relu1=ReLU(name="first"), optimizer__rate=0.5)
    assert changed.net == Sequential(
        Normalize(8.0, 6.0), Conv(4, 3), ReLU(name="first"), MaxPool(2), Flatten(), Dense(10)
    )
    assert changed.optimizer == optim.AdamW(0.5)
    assert given.net == NET


def test_layers_in_blocks_and_graphs_are_parameters() -> None:
    x = Input()
    graph = Net(x, Flatten()(Residual(Conv(4, 3, name="c"), shortcut=Conv(4, 1))(x)))
    given = Classifier(Sequential(graph, Dense(2)))
    changed = given.set_params(net__net1__residual1__c__kernel_size=5, net__net1__residual1__conv1__bias=False).net
    names = {name: tuple(shape) for name, shape in shapes(Model(changed, (6, 6, 1))).items()}
    assert names["net1.residual1.c.weight"] == (4, 5, 5, 1)
    assert "net1.residual1.conv1.bias" not in names


def shapes(model: Model) -> Mapping[str, Any]:
    return {name: array.shape for name, array in model.parameters.items()}


@pytest.mark.parametrize("name", ["nothing", "net__conv9__filters", "net__conv1__colour", "epochs__least"])
def test_parameters_that_are_not_there_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name.partition("__")[0]):
        classifier().set_params(**{name: 1})


# in company


def test_searches_in_processes_divide_the_threads() -> None:
    given = classifier(optimizer=optim.AdamW())
    search = GridSearchCV(given, {"net__conv1__filters": [1, 8], "optimizer__rate": [1e-2]}, cv=2, n_jobs=2)
    search.fit(IMAGES, LABELS)
    assert search.best_params_["net__conv1__filters"] == 8
    alone = clone(search).set_params(n_jobs=1).fit(IMAGES, LABELS)
    np.testing.assert_array_equal(search.predict_proba(IMAGES), alone.predict_proba(IMAGES))


def threads_of(estimator: Classifier) -> int:
    return estimator.fit(IMAGES[:64], LABELS[:64]).model_.network.threads


def test_workers_of_joblib_take_their_share_of_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    workers = Parallel(n_jobs=2)(delayed(threads_of)(classifier(threads=None)) for _ in range(2))
    assert sum(workers) <= max(2, os.cpu_count() or 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert threads_of(classifier(threads=None)) == 1
    assert threads_of(classifier(threads=2)) == 2


def test_pipelines_and_scores() -> None:
    x, y = load_iris(return_X_y=True)
    found = cross_val_score(make_pipeline(StandardScaler(), Classifier(random_state=0, threads=1)), x, y, cv=3)
    assert found.mean() > 0.9


# weights and chunks


def test_weights_are_as_good_as_copies() -> None:
    """In one batch a step, where the order does not matter, up to rounding."""
    x, y = IMAGES[:30], LABELS[:30]
    times = np.arange(30) % 3
    options = {"batch_size": 100, "epochs": 4, "optimizer": optim.SGD(0.01)}
    weighted = classifier(**options).fit(x, y, sample_weight=times * 7.0)
    copied = classifier(**options).fit(x.repeat(times, 0), y.repeat(times))
    np.testing.assert_allclose(weighted.predict_proba(x), copied.predict_proba(x), rtol=1e-4, atol=1e-6)
    plain = classifier(**options).fit(x, y)
    assert np.abs(plain.predict_proba(x) - copied.predict_proba(x)).max() > 1e-3


@pytest.mark.parametrize(("loss", "best"), [("mse", 9.0), ("mae", 10.0), (losses.Huber(0.1), 10.0)], ids=str)
def test_numbers_are_drawn_to_what_weighs_more(loss: Any, best: float) -> None:
    x, y = np.zeros((20, 1)), np.repeat([0.0, 10.0], 10)
    fitted = Regressor(Dense(1), loss=loss, optimizer=optim.AdamW(0.3), epochs=300, random_state=0)
    fitted.fit(x, y, sample_weight=np.repeat([1.0, 9.0], 10))
    np.testing.assert_allclose(fitted.predict(x[:1]), [best], atol=0.15)


def test_several_numbers_keep_their_units() -> None:
    x = np.random.default_rng(0).random((200, 3))
    y = np.stack([x[:, 0] * 1000, x[:, 1] - 50], 1)
    fitted = Regressor(epochs=40, random_state=0).fit(x, y)
    assert fitted.predict(x).shape == (200, 2)
    assert fitted.score(x, y) > 0.9
    np.testing.assert_array_equal(fitted.model_.predict(x), fitted.predict(x))


def test_chunks_train_on() -> None:
    parts = [slice(i, i + 100) for i in range(0, 400, 100)]
    given = classifier(optimizer=optim.AdamW(1e-2))
    given.partial_fit(IMAGES[:5], LABELS[:5], classes=range(10))
    for _ in range(5):
        for part in parts:
            given.partial_fit(IMAGES[part], LABELS[part], sample_weight=np.full(100, 2.0))
    assert given.score(IMAGES, LABELS) > 0.9
    assert given.n_iter_ == 21
    assert len(given.history_) == 21
    with pytest.raises(DataError, match="none of the classes"):
        given.partial_fit(IMAGES[:2], [3, 11])
    with pytest.raises(DataError, match="first call"):
        given.partial_fit(IMAGES[:2], [3, 4], classes=range(5))


# keeping them


def test_pickles_hold_the_models_file(trained: Classifier) -> None:
    data = pickle.dumps(trained)
    assert trained.model_.to_bytes() in data
    again = pickle.loads(data)
    np.testing.assert_array_equal(again.predict_proba(IMAGES), trained.predict_proba(IMAGES))
    np.testing.assert_array_equal(load(trained.model_.to_bytes()).predict(IMAGES), trained.model_.predict(IMAGES))
    again.partial_fit(IMAGES, LABELS)
    assert again.n_iter_ == trained.n_iter_ + 1


def test_numbers_after_pickling() -> None:
    x = np.linspace(0, 1, 20)[:, None]
    fitted = Regressor(epochs=2, random_state=0).fit(x, x[:, 0])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict(x), fitted.predict(x))


def test_the_same_seed_gives_the_same_bits(trained: Classifier) -> None:
    assert clone(trained).set_params(threads=2).fit(IMAGES, LABELS).model_.to_bytes() == trained.model_.to_bytes()
