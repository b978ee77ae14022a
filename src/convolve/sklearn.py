"""Nets as scikit-learn's estimators: `Classifier` and `Regressor`. They need `pip install 'convolve[sklearn]'`.

They go wherever scikit-learn's own do: pipelines, searches, cross-validation. Rows of features get a fully-connected
net; images (n, height, width) or (n, height, width, channels), and rows with `input_shape`, a convolutional one.

>>> from sklearn.datasets import load_digits
>>> from sklearn.model_selection import cross_val_score
>>> digits = load_digits()
>>> scores = cross_val_score(Classifier(epochs=10, random_state=0), digits.images[:600], digits.target[:600], cv=2)
>>> bool(scores.mean() > 0.85)
True
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, column_or_1d, validate_data

from convolve import zoo
from convolve.augment import Affine, Augmentation, Pipeline
from convolve.errors import ConvolveError, DataError, ShapeError
from convolve.graph import Shape
from convolve.layers import Construction, Dense, Layer, Net, Normalize, ReLU, Scope, Sequential
from convolve.model import Model, load
from convolve.native.workers import default_threads
from convolve.training import losses
from convolve.training.fit import History, fit
from convolve.training.losses import Loss, Weighted
from convolve.training.optim import AdamW, Optimizer
from convolve.training.schedule import OneCycle, Schedule
from convolve.training.trainer import Trainer

HIDDEN = 100
"""Units of the fully-connected net."""
MOST_CHANNELS = 16
"""Channels up to which each is normalised by numbers of its own."""
SMALL = 40 * 40
"""Positions up to which an image gets the zoo's `digits`, above which its `resnet20`."""
EPOCHS, STEPS, MOST_EPOCHS = 6, 1500, 100
"""How often a set is seen: at least this, and more often until it makes so many steps, but not above the last."""
FEW, BATCH, LARGE_BATCH = 10_000, 32, 128
"""Up to so many samples, batches are of the first size, beyond of the second."""
RATE = 5e-3
SMALL_CHANGES = (Affine(rotate=10, shift=0.08, scale=(0.9, 1.1), shear=5),)
"""What is done to images: nothing that makes another class of them."""


class _Estimator(BaseEstimator):  # type: ignore[misc]
    """What both estimators share. The classes below say what the parameters are."""

    model_: Model

    def __init__(
        self,
        net: Layer | str | None = None,
        *,
        input_shape: Shape | None = None,
        loss: str | Loss | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        optimizer: Optimizer | None = None,
        schedule: Schedule | None = None,
        augment: str | Sequence[Augmentation] = "auto",
        random_state: Any = None,
        threads: int | None = None,
    ) -> None:
        self.net = net
        self.input_shape = input_shape
        self.loss = loss
        self.epochs = epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.schedule = schedule
        self.augment = augment
        self.random_state = random_state
        self.threads = threads

    # parameters, down to the net's

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name; if `deep`, those of net, optimizer and schedule too: `net__conv1__filters`.

        Layers are named as the summary names them.
        """
        params: dict[str, Any] = super().get_params(deep)
        if deep:
            for name, value in list(params.items()):
                params |= {f"{name}__{path}": part for path, part in _nested(value)}
        return params

    def set_params(self, **params: Any) -> Any:
        """Set parameters by the names of `get_params`. Nets are values: a changed one is a new one.

        Raises:
            ValueError: there is no parameter of that name.
        """
        inner = {name: value for name, value in params.items() if "__" in name}
        super().set_params(**{name: value for name, value in params.items() if name not in inner})
        for name, value in inner.items():
            owner, _, path = name.partition("__")
            if name not in self.get_params():
                raise ValueError(
                    f"{type(self).__name__} has no parameter {name!r}. Valid ones are {sorted(self.get_params())}"
                )
            setattr(self, owner, _changed(getattr(self, owner), path, value))
        return self

    # training

    def _begin(self, x: np.ndarray, outputs: int, *last: Layer) -> None:
        """Make the model for such samples, with `last` behind its net."""
        self._seed = int(check_random_state(self.random_state).randint(2**31))
        self._trainer: Trainer | None = None
        net = self.net if isinstance(self.net, Layer) else _default_net(self.net, x, outputs)
        threads = _threads(self.threads)
        self.model_ = Model(net, x.shape[1:], self._seed, threads)
        if self.model_.output_shape != (outputs,):
            self.model_.replace_head(outputs, self._seed)
        if self.model_.output_shape != (outputs,):
            raise ShapeError(
                f"net: its output has shape {self.model_.output_shape}; expected ({outputs},), so end it in "
                f"Dense({outputs}), with Flatten or GlobalAvgPool before"
            )
        if last:
            net = self.model_.net
            layers = net.layers if isinstance(net, Sequential) else (net,)
            self.model_ = Model(Sequential(*layers, *last), x.shape[1:], self._seed, threads)

    def _trained(self, x: np.ndarray, y: np.ndarray, loss: Loss) -> None:
        """Train the model from its first step to its last."""
        size = self.batch_size or (BATCH if len(x) <= FEW else LARGE_BATCH)
        epochs = self.epochs or max(EPOCHS, min(MOST_EPOCHS, -(-STEPS // -(-len(x) // size))))
        trainer = Trainer(self.model_.network, loss, self.optimizer or AdamW(RATE, weight_decay=0.02), self._seed)
        schedule, augment = self.schedule or OneCycle(), self._pipeline(x)
        self.history_ = fit(
            self.model_.network, trainer, x, y, epochs, size, schedule, seed=self._seed, augment=augment
        )
        self.n_iter_ = len(self.history_)

    def _pass(self, x: np.ndarray, y: np.ndarray, loss: Loss) -> None:
        """Train the model on more samples, once each, at a constant rate."""
        if self._trainer is None:
            self._trainer = Trainer(self.model_.network, loss, self.optimizer or AdamW(), self._seed)
        made = fit(
            self.model_.network, self._trainer, x, y, 1, self.batch_size or BATCH, seed=self._seed + self.n_iter_
        )
        self.history_.epochs.extend(made.epochs)
        self.n_iter_ += 1

    def _pipeline(self, x: np.ndarray) -> Pipeline | None:
        """What is done to batches of such samples."""
        chosen = self.augment
        if isinstance(chosen, str):
            if chosen != "auto":
                raise ConvolveError(f'augment is "auto" or augmentations in a list. Received: augment={chosen!r}')
            chosen = SMALL_CHANGES if x.ndim == 4 and self._classes else ()
        return Pipeline(tuple(chosen), classes=self._classes) if chosen else None

    @property
    def _classes(self) -> int | None:
        """How many classes there are, for a classifier."""
        return len(self.classes_) if hasattr(self, "classes_") else None

    def _loss(self, default: str) -> Loss:
        chosen = losses.resolve(default if self.loss is None else self.loss)
        if not isinstance(chosen, Loss):
            raise ConvolveError(f"loss is the name of one or a convolve.losses.Loss. Received: loss={self.loss!r}")
        return chosen

    def _samples(self, x: Any, y: Any = "no_validation", reset: bool = False, **options: Any) -> Any:
        """X as the net takes it, with y where it is given."""
        options |= {"dtype": [np.float32, np.uint8], "allow_nd": True, "reset": reset}
        found = validate_data(self, x, y, **options)
        samples = found[0] if isinstance(found, tuple) else found
        samples = np.require(samples, requirements=["C", "A"])
        shape = samples.shape[1:]
        if self.input_shape is not None:
            shape = tuple(self.input_shape)
            if math.prod(samples.shape[1:]) != math.prod(shape):
                raise ShapeError(
                    f"X: expected {math.prod(shape)} values a sample for input_shape={shape}. "
                    f"Received: shape {samples.shape}"
                )
        elif samples.ndim == 3:
            shape = (*shape, 1)
        samples = samples.reshape(len(samples), *shape)
        return (samples, *found[1:]) if isinstance(found, tuple) else samples

    def _output(self, x: Any) -> np.ndarray:
        check_is_fitted(self, "model_")
        return np.asarray(self.model_.predict(self._samples(x)))

    # keeping it

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def __getstate__(self) -> dict[str, Any]:
        """Pickles hold the model as the bytes of its file. What `partial_fit`'s optimizer keeps is not in them."""
        state = dict(super().__getstate__())
        state.pop("_trainer", None)
        if "model_" in state:
            state["model_"] = self.model_.to_bytes()
        return state

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        state = dict(state)
        if "model_" in state:
            state["model_"] = load(state["model_"], _threads(state["threads"]))
            state["_trainer"] = None
        super().__setstate__(state)


class Classifier(ClassifierMixin, _Estimator):  # type: ignore[misc]
    """A net that tells classes apart.

    Args:
        net: a layer that ends in a logit a class (another number of them is exchanged for the right one), or the name
            of a net of the zoo. By default a fully-connected net for rows of features, and a convolutional one for
            images, behind a `Normalize` by the mean and the deviation of the training samples.
        input_shape: (*spatial, channels), when X are rows that stand for images, signals or volumes. Without it, X (n,
            features) are features, (n, height, width) grey images, and longer shapes (n, *spatial, channels).
        loss: "cross_entropy", or one of `convolve.losses` that takes logits a class.
        epochs: how often each sample is seen; by default as often as it takes for 1500 steps, from 6 to 100 times.
        batch_size: samples a step; by default 32, of more than 10,000 samples 128.
        optimizer, schedule: of `convolve.optim` and `convolve.schedule`; by default AdamW and one cycle.
        augment: what is done to training samples, a list of augmentations of `convolve.augment`. By default images are
            turned (by up to 10 degrees), moved, sheared and scaled a little, and other samples stay as they are.
        random_state: seed of the first parameters, of the order of the samples and of augmentation.
        threads: to compute with. By default what the process may use, and in joblib's workers their share of it.

    Attributes:
        classes_: labels in the order of `predict_proba`'s columns.
        model_: the `convolve.Model`.
        history_: what each epoch reached.

    >>> from convolve import Conv, Dense, Flatten, MaxPool, ReLU, Sequential
    >>> net = Sequential(Conv(8, 3), ReLU(), MaxPool(2), Flatten(), Dense(2))
    >>> images = np.zeros((20, 8, 8))
    >>> images[::2, :, 4:] = 1
    >>> sides = np.array(["right", "left"] * 10)
    >>> Classifier(net, epochs=40, random_state=0).fit(images, sides).predict(images[:2])
    array(['right', 'left'], dtype='<U5')
    >>> Classifier(net).set_params(net__conv1__filters=4).net.layers[0].filters
    4
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Classifier:
        """Train on samples X and labels y of any type; samples may weigh differently.

        Raises:
            ShapeError, DataError: X, y or the weights do not suit each other or the net.
            DivergenceError: the loss left the finite numbers.
        """
        x, y = self._samples(X, y, reset=True)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError(f"a classifier needs two classes or more. Received: one class, {self.classes_[0]!r}")
        loss = self._loss("cross_entropy")
        self._begin(x, len(self.classes_))
        if sample_weight is None:
            self._trained(x, labels.astype(np.int32), loss)
        else:
            weights = _weights(sample_weight, x)
            kept = weights[:, 0] > 0
            y = np.concatenate([self._one_hot(labels), weights], 1)
            self._trained(x[kept], y[kept], Weighted(loss))
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Classifier:
        """Train on a chunk of samples, once each, at the optimizer's rate.

        The first chunk decides on the net and its `Normalize`; `classes` are all labels there will be, needed then
        unless that chunk has them all.

        Raises:
            DataError: a label that is none of the classes.
        """
        first = not hasattr(self, "model_")
        x, y = self._samples(X, y, reset=first)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        if first:
            self.classes_ = np.unique(y if classes is None else classes)
            self._begin(x, len(self.classes_))
            self.history_, self.n_iter_ = History(), 0
        elif classes is not None and not np.array_equal(self.classes_, np.unique(classes)):
            raise DataError(f"classes: not those of the first call, {self.classes_}. Received: {classes}")
        if not np.isin(y, self.classes_).all():
            odd = np.setdiff1d(y, self.classes_)
            raise DataError(f"y: {odd[0]!r} is none of the classes {self.classes_}: give the first call all classes")
        labels = np.searchsorted(self.classes_, y)
        target = np.concatenate([self._one_hot(labels), _weights(sample_weight, x)], 1)
        self._pass(x, target, Weighted(self._loss("cross_entropy")))
        return self

    def _one_hot(self, labels: np.ndarray) -> np.ndarray:
        return np.asarray(labels[:, None] == np.arange(len(self.classes_)), np.float32)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes, (n, classes): the softmax of the net's logits."""
        logits = self._output(X).astype(np.float64)
        shares = np.exp(logits - logits.max(1, keepdims=True))
        return np.asarray(shares / shares.sum(1, keepdims=True))

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Logarithms of `predict_proba`, finite however small."""
        logits = self._output(X).astype(np.float64)
        logits -= logits.max(1, keepdims=True)
        return np.asarray(logits - np.log(np.exp(logits).sum(1, keepdims=True)))

    def predict(self, X: Any) -> np.ndarray:
        """The most probable label of each sample."""
        best = self._output(X).argmax(1)
        return np.asarray(self.classes_[best])


class Regressor(RegressorMixin, _Estimator):  # type: ignore[misc]
    """A net that finds numbers, one a sample or several.

    Its parameters are those of `Classifier`; `loss` is "mse" by default, "mae" and "huber" resist outliers; images stay
    as they are unless `augment` says otherwise. The net's output has mean 0 and deviation 1, and a last layer brings it
    to the numbers' own scale, so that `model_` gives what `predict` gives.

    >>> x = np.linspace(-1, 1, 200)[:, None]
    >>> bool(Regressor(random_state=0, epochs=100).fit(x, np.sin(3 * x[:, 0])).score(x, np.sin(3 * x[:, 0])) > 0.95)
    True
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Regressor:
        """Train on samples X and numbers y, (n,) or (n, outputs); samples may weigh differently.

        Raises:
            ShapeError, DataError: X, y or the weights do not suit each other or the net.
            DivergenceError: the loss left the finite numbers.
        """
        x, y = self._samples(X, y, reset=True, multi_output=True, y_numeric=True)
        loss = self._loss("mse")
        self._begin_for(x, y)
        target = _columns(y)
        if sample_weight is None:
            self._trained(x, target, loss)
        else:
            weights = _weights(sample_weight, x)
            kept = weights[:, 0] > 0
            self._trained(x[kept], np.concatenate([target, weights], 1)[kept], Weighted(loss))
        return self

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Regressor:
        """Train on a chunk of samples, once each, at the optimizer's rate.

        The first chunk decides on the net, and by which means and deviations it scales samples and numbers.
        """
        first = not hasattr(self, "model_")
        x, y = self._samples(X, y, reset=first, multi_output=True, y_numeric=True)
        if first:
            self._begin_for(x, y)
            self.history_, self.n_iter_ = History(), 0
        self._pass(x, np.concatenate([_columns(y), _weights(sample_weight, x)], 1), Weighted(self._loss("mse")))
        return self

    def _begin_for(self, x: np.ndarray, y: np.ndarray) -> None:
        mean, std = _moments(_columns(y))
        back = Normalize(tuple((-mean / std).tolist()), tuple((1 / std).tolist()), name="units")
        self._begin(x, len(mean), back)
        self._one_row = y.ndim == 1

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def predict(self, X: Any) -> np.ndarray:
        """Numbers as `fit` got them, (n,) or (n, outputs)."""
        made = self._output(X).astype(np.float64)
        return made[:, 0] if self._one_row else made


def _default_net(name: object, x: np.ndarray, outputs: int) -> Layer:
    """A net of the zoo, or one that suits the samples, behind their own `Normalize`."""
    spatial = x.shape[1:-1]
    mean, std = _moments(x if spatial and x.shape[-1] > MOST_CHANNELS else x.reshape(-1, x.shape[-1]))
    normalize = Normalize(tuple(mean.tolist()), tuple(std.tolist()), name="normalize")
    if name is not None and not isinstance(name, str):
        raise ConvolveError(f"net is a layer, the name of one of the zoo, or None. Received: net={name!r}")
    if name is not None:
        return zoo.by_name(name).make(classes=outputs, normalize=normalize)
    if not spatial:
        return Sequential(normalize, Dense(HIDDEN), ReLU(), Dense(outputs))
    if min(spatial) < 4:
        return zoo.mlp(outputs, HIDDEN, normalize)
    make = zoo.digits if math.prod(spatial) <= SMALL else zoo.resnet20
    return make(classes=outputs, normalize=normalize)


def _moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column, the latter 1 where all are equal."""
    mean, std = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
    return mean, np.where(std > 0, std, 1.0)


def _columns(y: np.ndarray) -> np.ndarray:
    return np.asarray(y, np.float32).reshape(len(y), -1)


def _weights(given: Any, x: np.ndarray) -> np.ndarray:
    """Weights of samples with mean 1 over those that count, (n, 1)."""
    weights = _check_sample_weight(given, x, dtype=np.float64)
    if weights.min() < 0 or not weights.any():
        raise DataError(
            "sample_weight: expected weights of 0 and more, not all of them 0. "
            f"Received: {weights.min():g} to {weights.max():g}"
        )
    return np.asarray(weights / weights[weights > 0].mean(), np.float32)[:, None]


def _threads(asked: int | None) -> int:
    """Threads to compute with: at most those that joblib (or whoever sets OMP_NUM_THREADS) grants this process."""
    granted = os.environ.get("OMP_NUM_THREADS", "")
    limit = default_threads()
    return asked or (min(limit, int(granted)) if granted.isdigit() and int(granted) else limit)


# parameters of what estimators are made with


def _fields(value: Any) -> list[str]:
    return [field.name for field in fields(value)]


def _layers(value: Any) -> dict[str, Layer]:
    """The layers that a block holds, by their names in the net."""
    if isinstance(value, Net):
        held = [symbol.layer for symbol in value.order() if symbol.layer is not None]
    else:
        parts = [getattr(value, name) for name in _fields(value)]
        held = [v for part in parts for v in (part if isinstance(part, tuple) else (part,)) if isinstance(v, Layer)]
    scope = Scope(Construction(training=False))
    return {scope.name(layer): layer for layer in held}


def _nested(value: Any) -> Iterator[tuple[str, Any]]:
    """Fields of a layer, optimizer, schedule or loss by path: those of a block are the layers it holds."""
    if not isinstance(value, (Layer, Optimizer, Schedule, Loss)):
        return
    layers = _layers(value)
    if not layers:
        yield from ((name, getattr(value, name)) for name in _fields(value))
    for name, layer in layers.items():
        yield name, layer
        yield from ((f"{name}__{path}", part) for path, part in _nested(layer))


def _changed(value: Any, path: str, new: Any) -> Any:
    """The value with what is found at `path` in it exchanged."""
    name, _, rest = path.partition("__")
    layers = _layers(value)
    if name not in layers:
        return replace(value, **{name: new})
    layer = layers[name]
    return value.swapped(layer, _changed(layer, rest, new) if rest else new)
