"""Model: what a person holds. A net, its parameters, and everything one does with them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convolve.data.arrays import as_classes, as_images, as_rows, as_shares, as_targets
from convolve.deferred import Deferred
from convolve.errors import ConvolveError, FileError, ShapeError
from convolve.network import Network, View
from convolve.page import PORT
from convolve.source import Pairs, Rows, Source, batch, in_order

if TYPE_CHECKING:
    from convolve import layers
    from convolve.augment import Augmentation, Pipeline, Views
    from convolve.graph import Graph, Shape, leaf
    from convolve.layers import Layer, Sequential
    from convolve.layers.heads import headed
    from convolve.onnx.export import DType, Layout, export_onnx
    from convolve.ops import softmax
    from convolve.page.export import as_file
    from convolve.page.opening import Framed, in_notebook, open_page, write_page
    from convolve.page.subject import subject
    from convolve.storage import describe, dumps, loads, restore
    from convolve.storage import load as load_file
    from convolve.storage import save as save_file
    from convolve.training import losses, optim
    from convolve.training import trainer as training
    from convolve.training.feed import Feed
    from convolve.training.feed import waiting as share_waiting
    from convolve.training.fit import Callback, History, Progress, fit
    from convolve.training.losses import LossFunction
    from convolve.training.optim import Optimizer
    from convolve.training.schedule import Schedule
    from convolve.training.trainer import Trainer
    from convolve.view.explain import Explanation, explain
    from convolve.view.html import table_of
    from convolve.view.pixel import Pixel, Traced
    from convolve.view.saliency import Saliency, grad_cam, occlusion
    from convolve.view.summary import Summary, summarise
else:  # what predictions do not need
    Pipeline = Deferred("convolve.augment:Pipeline")
    Views = Deferred("convolve.augment:Views")
    Graph = Deferred("convolve.graph:Graph")
    leaf = Deferred("convolve.graph:leaf")
    layers = Deferred("convolve.layers")
    Sequential = Deferred("convolve.layers:Sequential")
    headed = Deferred("convolve.layers.heads:headed")
    export_onnx = Deferred("convolve.onnx.export:export_onnx")
    softmax = Deferred("convolve.ops.softmax")
    as_file = Deferred("convolve.page.export:as_file")
    Framed = Deferred("convolve.page.opening:Framed")
    in_notebook = Deferred("convolve.page.opening:in_notebook")
    open_page = Deferred("convolve.page.opening:open_page")
    subject = Deferred("convolve.page.subject:subject")
    write_page = Deferred("convolve.page.opening:write_page")
    describe = Deferred("convolve.storage:describe")
    dumps = Deferred("convolve.storage:dumps")
    loads = Deferred("convolve.storage:loads")
    restore = Deferred("convolve.storage:restore")
    load_file = Deferred("convolve.storage:load")
    save_file = Deferred("convolve.storage:save")
    losses = Deferred("convolve.training.losses")
    optim = Deferred("convolve.training.optim")
    training = Deferred("convolve.training.trainer")
    Feed = Deferred("convolve.training.feed:Feed")
    share_waiting = Deferred("convolve.training.feed:waiting")
    History = Deferred("convolve.training.fit:History")
    fit = Deferred("convolve.training.fit:fit")
    Trainer = Deferred("convolve.training.trainer:Trainer")
    explain = Deferred("convolve.view.explain:explain")
    table_of = Deferred("convolve.view.html:table_of")
    Traced = Deferred("convolve.view.pixel:Traced")
    grad_cam = Deferred("convolve.view.saliency:grad_cam")
    occlusion = Deferred("convolve.view.saliency:occlusion")
    summarise = Deferred("convolve.view.summary:summarise")

PREDICT_BYTES = 256 * 1024 * 1024
"""What the inputs of one prediction batch may take, unless `batch_size` says otherwise."""
PREDICT_BATCH = 256
CANONICAL: dict[str, Callable[..., np.ndarray]] = {"classes": as_classes, "shares": as_shares, "values": as_targets}
"""How targets of each kind (`losses.Targets`) are made ready."""
Validation = tuple[Any, Any]
SALIENCIES: dict[str, Callable[..., Saliency]] = {"grad_cam": grad_cam, "occlusion": occlusion}


class Model:
    """A net that met its input shape.

    >>> from convolve import Conv, Dense, Flatten, MaxPool, Model, ReLU, Sequential
    >>> net = Sequential(Conv(8, 3), ReLU(), MaxPool(2), Flatten(), Dense(10))
    >>> model = Model(net, input_shape=(28, 28, 1), seed=0)
    >>> model.predict(np.zeros((2, 28, 28, 1), np.float32)).shape
    (2, 10)
    """

    targets: losses.Targets | None = None
    """What the net was trained to give, as its loss has it (see `convolve.losses`); None where that is not known."""

    def __init__(
        self,
        net: Layer,
        input_shape: Shape,
        seed: int = 0,
        threads: int | None = None,
        exact: bool = False,
        classes: Sequence[str] | None = None,
    ) -> None:
        """
        Args:
            net: a layer, usually a `Sequential` or a `Net`.
            input_shape: (*spatial, channels) of one sample, as in (28, 28, 1).
            seed: of the parameters' first values.
            threads: to compute with; by default what this process may use (see `convolve doctor`).
            exact: convolutions as they are defined, never by Winograd's algorithm, which is faster and as accurate.
            classes: names of the classes, for `classify`.

        Raises:
            ShapeError: a layer does not suit its input; the message names it.
        """
        if not isinstance(net, layers.Layer):
            raise ConvolveError(f"a model is made of a layer, for instance Sequential(...). Received: {net!r}")
        self.network = Network(net, input_shape, seed, threads, exact=exact)
        self.exact, self._threads = exact, threads
        self.classes = tuple(classes) if classes is not None else None

    # what it is

    @property
    def net(self) -> Layer:
        return self.network.net

    @property
    def input_shape(self) -> Shape:
        return self.network.input_shape

    @property
    def output_shape(self) -> Shape:
        return self.network.output_shape

    @property
    def parameters(self) -> View:
        """Parameters by name: float32 arrays, read-only; assign a new array to change one."""
        return View(self.network, "parameter")

    @property
    def statistics(self) -> View:
        """Running means and variances by name, likewise."""
        return View(self.network, "statistic")

    @property
    def parameter_count(self) -> int:
        return sum(int(np.prod(spec.shape)) for spec in self.network.specs.values())

    def summary(self, audit: bool = False) -> Summary:
        """A table of the layers: output shape, true pads, parameters, multiply-adds, receptive field. Prints itself.

        With `audit` it says for each layer which rule its padding comes from.
        """
        return summarise(self.net, self.network.bound, audit)

    def explain(
        self, batch_size: int = 1, training: bool = False, data: Any = None, augment: Sequence[Augmentation] = ()
    ) -> Explanation:
        """Every kernel call of a prediction (or training step): op, algorithm, pieces, share of time, GFLOP/s.

        Runs a network of the same shape, so that this one's arrays stay as they are. The training step is that of SGD
        with momentum on cross_entropy, or on mse where the output is not one row of logits.

        With `data`, an array of samples or a source of them, some steps are made on it, which say what share of the
        time training waits for data: until they are read, decoded and augmented.
        """
        if batch_size < 1:
            raise ConvolveError(f"explain: batch_size must be 1 or more. Received: batch_size={batch_size!r}")
        network = Network(self.net, self.network.bound and self.input_shape, 0, self.network.threads, exact=self.exact)
        noise, waiting = np.random.default_rng(0), None
        made = [noise.standard_normal(feed.shape, np.float32) for feed in network.feeds(batch_size)]
        whole = ["float" not in port.dtype for port in network.ports]
        feeds, inputs = network.fed([x * 0 if zero else x for x, zero in zip(made, whole, strict=True)])
        if training or data is not None:
            row_of_logits = len(self.output_shape) == 1 and self.output_shape[0] > 1
            loss = losses.resolve("cross_entropy" if row_of_logits else "mse")
            y = np.zeros((batch_size, *self.output_shape), np.float32)
            inputs["y"] = y[..., 0].astype(np.int32) if row_of_logits else y
            trainer = Trainer(network, loss, optim.SGD(momentum=0.9))
            executable = trainer.executable(inputs["x"], inputs["y"])
            if data is not None:
                rows = as_rows(data, self.input_shape)
                y = np.broadcast_to(inputs["y"][:1], (len(rows), *inputs["y"].shape[1:]))
                feed = Feed(rows, y, batch_size, self._pipeline(augment, loss), 0, network.threads)
                waiting = share_waiting(feed, lambda x, y: trainer.step(x, np.ascontiguousarray(y), rate=0.0))
        else:
            executable = network.prediction(feeds)
        return replace(explain(executable, inputs, network.threads), waiting=waiting)

    def __repr__(self) -> str:
        port = self.network.ports[0]
        known = not any(isinstance(n, str) for n in port.shape[1:])
        shapes = f"input_shape={self.input_shape}, output_shape={self.output_shape}" if known else f"input {port}"
        return f"Model({shapes}, {self.parameter_count:,} parameters)"

    def _repr_html_(self) -> str | None:
        """The table of layers, as notebooks show it; None where sizes are known only when the net is called."""
        if any(isinstance(n, str) for n in self.network.ports[0].shape[1:]):
            return None
        return table_of(self.summary(), "Model")

    # using it

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        augment: Sequence[Augmentation] = (),
        targets: losses.Targets | None = None,
    ) -> Any:
        """The net's output (n, ...) for x (n, *input_shape), an array or a `convolve.source.Source`.

        With `augment`, flips and shifts, each sample is seen in several ways (`convolve.augment.Views`) and the outputs
        are averaged. `targets` is what the net was trained to give (see `convolve.losses`): of "classes" and "shares"
        the probabilities are averaged, and given as logits; by default of classes where the model knows their names.

        An imported net takes x as its file says, a dict of arrays by name where it has several inputs; several outputs
        are a dict by name. A file for batches of one size takes any number of such batches.

        Raises:
            ShapeError: rank, shape or type of x does not suit the model.
            DataError: x holds NaN or infinity.
        """
        if augment:
            return self._averaged(
                x, batch_size, augment, targets or self.targets or ("classes" if self.classes else "values")
            )
        network, arrays = self.network, self._given(x)
        size = self.batch_size(arrays[0], batch_size)
        if len(arrays[0]) <= size:
            made = network.predict(*(batch(a, 0, len(a)) for a in arrays))
        else:
            parts = [network.predict(*batches) for batches in zip(*(in_order(a, size) for a in arrays), strict=False)]
            made = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return next(iter(made.values())) if len(made) == 1 else made

    def _given(self, x: Any) -> list[Rows]:
        """Samples for each of the net's inputs: x alone, or a dict of arrays by name."""
        network = self.network
        names = [port.name for port in network.ports]
        given = x if isinstance(x, Mapping) else {names[0]: x}
        if sorted(given) != sorted(names):
            raise ShapeError(
                f"expected a dict with an array for each of {', '.join(names)}. Received: {', '.join(map(str, given))}"
            )
        ports = [(port, given[port.name]) for port in network.ports]
        return [as_rows(array, network.sample(port, _shape(array))) for port, array in ports]

    def outputs(
        self,
        x: Any,
        batch_size: int | None = None,
        augment: Sequence[Augmentation] = (),
        targets: losses.Targets | None = None,
    ) -> Iterator[np.ndarray]:
        """As `predict`, a batch after the other, so that neither samples nor outputs need to fit into memory.

        Those of a source are read ahead, while the net computes.
        """
        rows = as_rows(x, self.input_shape)
        size = self.batch_size(rows, batch_size)
        for samples in in_order(rows, size):
            yield self.predict(samples, size, augment, targets)

    def _averaged(
        self, x: Any, batch_size: int | None, augment: Sequence[Augmentation], kind: losses.Targets
    ) -> np.ndarray:
        """The mean output over the views of each sample: of probabilities where targets are classes or shares."""
        views, images = Views(tuple(augment)), as_rows(x, self.input_shape)
        size = self.batch_size(images, batch_size)
        parts = []
        for samples in in_order(images, size):
            seen = views.of(samples, self.network.threads)
            made = [self.predict(view, batch_size) for view in seen]
            if len(self.output_shape) == len(self.input_shape):
                made = views.back(made, self.network.threads)
            parts.append(losses.mean_output(made, kind, self._ends_in_softmax))
        return np.concatenate(parts)

    @property
    def _ends_in_softmax(self) -> bool:
        return isinstance(self.network.forward(1).output.op, softmax.Softmax)

    def batch_size(self, images: Rows, asked: int | None = None) -> int:
        """Samples of one run: as many as the net's file says, as asked, or as fit into memory."""
        fixed = self.network.ports[0].shape[0]
        if isinstance(fixed, int):
            if len(images) % fixed:
                raise ShapeError(f"the net takes batches of {fixed}. Received: {len(images)} samples")
            return fixed
        each = max(1, math.prod(images.shape[1:]) * images.dtype.itemsize)
        return asked or max(1, min(PREDICT_BATCH, PREDICT_BYTES // each))

    def classify(
        self, x: Any, batch_size: int | None = None, augment: Sequence[Augmentation] = ()
    ) -> list[Any] | np.ndarray:
        """The most probable class of each sample, or of each position of it where the output has spatial dimensions.

        Its name (in a list, nested as the positions are) where the model knows names, else its number. Of one channel,
        a logit above 0 is class 1, another class 0, as binary_cross_entropy trains it. Of several channels that were
        trained by that, each is a label by itself: a list of those that are there, whose logit is above 0 and whose
        probability above a half.

        Raises:
            ConvolveError: the model was trained to give values (mse, say).

        >>> from convolve import Dense
        >>> model = Model(Dense(3), input_shape=(2,), classes=["cat", "dog", "bird"])
        >>> x, y = np.float32([[1, 0], [0, 1]]), [[1, 1, 0], [0, 0, 0]]
        >>> history = model.fit(x, y, 60, optimizer=optim.AdamW(0.1), loss="binary_cross_entropy")
        >>> model.classify(x)
        [['cat', 'dog'], []]
        """
        if self.targets == "values":
            raise ConvolveError(
                "classify: this model was trained to give values, no classes: call predict. Where its largest value "
                "stands for a class, that is predict(x).argmax(-1)"
            )
        if augment:
            one = self.output_shape[-1] == 1
            made = self._averaged(x, batch_size, augment, self.targets or ("shares" if one else "classes"))
        else:
            made = self.predict(x, batch_size)
        if self.targets == "shares" and (made.shape[-1] > 1 or len(self.classes or ()) == 1):
            return _labels(made > 0, self.classes or range(made.shape[-1]))
        best = made.argmax(-1) if made.shape[-1] > 1 else (made[..., 0] > 0).astype(np.int64)
        return list(np.array(self.classes)[best].tolist()) if self.classes else best

    def evaluate(
        self,
        x: Any,
        y: Any,
        batch_size: int | None = None,
        loss: str | LossFunction = "cross_entropy",
        augment: Sequence[Augmentation] = (),
    ) -> dict[str, float]:
        """Mean loss over (x, y), and accuracy where the loss decides between classes.

        The accuracy is the share of labels (a pixel each, in segmentation) that the largest logit hits; where y are
        probabilities, their most probable class counts; for yes or no (binary_cross_entropy), the logit's sign.

        Batches count by their samples. The loss of class weights or dice is a ratio in each batch: it depends a little
        on `batch_size`. With `augment`, flips and shifts, what counts is the mean over the views of each sample.
        """
        chosen = losses.resolve(loss)
        images = as_rows(x, self.input_shape)
        return self._evaluate(images, self._target(y, len(images), chosen), chosen, batch_size, augment)

    def _evaluate(
        self,
        images: Rows,
        target: Any,
        loss: LossFunction,
        batch_size: int | None = None,
        augment: Sequence[Augmentation] = (),
    ) -> dict[str, float]:
        size = self.batch_size(images, batch_size)
        total, right, decided = 0.0, 0, 0
        for samples, wanted in Pairs(images, target).in_order(size):
            if augment:
                output = self._averaged(samples, batch_size, augment, losses.targets(loss, self.output_shape))
                made = self._losses_of(output, wanted, loss)
            else:
                made = self._losses(samples, wanted, loss)
            total += float(made["loss"]) * len(samples)
            found = losses.hits(loss, made["output"], wanted)
            right, decided = right + int(found.sum()), decided + found.size
        return {"loss": total / len(images)} | ({"accuracy": right / decided} if decided else {})

    def _losses(self, x: np.ndarray, y: np.ndarray, loss: LossFunction) -> dict[str, np.ndarray]:
        network, dtype = self.network, "u1" if x.dtype == np.uint8 else "f4"

        def build() -> Graph:
            found = network.forward(len(x), dtype)
            made = {"output": found.output, "loss": loss(found.logits, losses.target_leaf(y))}
            return Graph(made, prediction=True)

        executable = network.executable(("evaluate", len(x), dtype, y.shape, y.dtype, loss), build)
        return network.run(executable, {"x": x, "y": y}, ("output", "loss"))

    def _losses_of(self, output: np.ndarray, y: np.ndarray, loss: LossFunction) -> dict[str, np.ndarray]:
        """The same of outputs that are known."""

        def build() -> Graph:
            value = leaf("input", "x", output.shape)
            return Graph({"loss": loss(value, losses.target_leaf(y))}, prediction=True)

        executable = self.network.executable(("loss", output.shape, y.shape, y.dtype, loss), build)
        return {"output": output, **self.network.run(executable, {"x": output, "y": y}, ("loss",))}

    def _target(self, y: Any, count: int, loss: LossFunction) -> Any:
        """Targets as the loss takes them; a source of labels as it is."""
        kind, shape = losses.targets(loss, self.output_shape), (count, *self.output_shape)
        if isinstance(y, Source):
            if kind != "classes" or y.shape != shape[:-1] or y.dtype != np.int32:
                raise ShapeError(
                    f"y: expected a source of labels, int32 of shape {shape[:-1]}. Received: {y.dtype} of {y.shape}"
                )
            return y
        return CANONICAL[kind](y, shape)

    def trace(self, x: Any) -> dict[str, np.ndarray]:
        """Every layer's activation for x, by name: unfused and direct, each equal to its definition.

        x is as `predict` takes it, in memory.
        """
        return self.network.trace(*(batch(rows, 0, len(rows)) for rows in self._given(x)))

    def pixel(self, x: Any, layer: str, position: Sequence[int]) -> Pixel:
        """What one value of a layer is made of, number by number. Prints itself.

        Args:
            x: one sample, (*input_shape) or a batch of one.
            layer: as the summary names it.
            position: (*spatial, channel) in the layer.

        Raises:
            ConvolveError: there is no such layer.
            ShapeError: it has no such position; x is not one sample.

        >>> from convolve import Dense
        >>> model = Model(Dense(2, init=0.5), input_shape=(3,))
        >>> model.pixel([1, 2, 4], "dense1", (1,))
        dense1 [1] = 3.5  (Dense)
          3 products, largest first
            2                  4 *          0.5 =            2
            1                  2 *          0.5 =            1
            0                  1 *          0.5 =          0.5
          sum 3.5 + bias 0 = 3.5
        """
        return Traced(self.network, as_sample(x, self.input_shape)).pixel(layer, position)

    def saliency(self, x: Any, target: int | None = None, method: str = "grad_cam", **options: Any) -> Saliency:
        """Which part of a sample an answer comes from: a map of the input's size.

        Args:
            x: one sample, (*input_shape) or a batch of one.
            target: the class; by default the one with the largest logit.
            method: "grad_cam" or "occlusion".
            options: of `convolve.view.saliency.grad_cam` (layer, averaged) or `occlusion` (size, stride, fill).

        Raises:
            ConvolveError: there is no such method, or no layer with positions.
            ShapeError: x is not one sample; there is no such class.
        """
        if method not in SALIENCIES:
            raise ConvolveError(f"method is {' or '.join(SALIENCIES)}. Received: method={method!r}")
        return SALIENCIES[method](self.network, as_sample(x, self.input_shape), target, **options)

    def look(
        self, x: Any = None, y: Any = None, html: str | Path | None = None, port: int = PORT, browser: bool = True
    ) -> Framed | None:
        """A page that explains the net down to one multiplication: in the browser, until its tab is closed.

        In a notebook it is shown there, for the first sample.

        Args:
            x: samples to look at, (n, *input_shape), or one; a made-up one by default.
            y: their labels, (n,), where they are known.
            html: write the page for the first sample to this file instead, which works offline.
            port: where the page is served, or on the next port that is free; to this computer alone.
            browser: whether to open the address, which is printed, too.

        Raises:
            ConvolveError: the net takes several inputs, or an extra is missing: pip install 'convolve[look]'.
            ShapeError, DataError: x or y does not suit the model.
            FileError: the file cannot be written.
        """
        shown = subject(self.network, type(self.net).__name__, self.classes, x, y)
        if html is not None:
            write_page(shown, html)
        elif in_notebook():
            return Framed(as_file(shown))
        else:
            open_page(shown, port, browser)
        return None

    # training it

    def fit(
        self,
        x: Any,
        y: Any,
        epochs: int = 3,
        batch_size: int = 64,
        optimizer: Optimizer | None = None,
        schedule: Schedule | None = None,
        loss: str | LossFunction = "cross_entropy",
        validation: Validation | None = None,
        callbacks: Sequence[Callback] = (),
        seed: int = 0,
        patience: int | None = None,
        average: float | None = None,
        augment: Sequence[Augmentation] = (),
    ) -> History:
        """Train on x (n, *input_shape) and y as the loss takes it. x may be a `convolve.source.Source`, and
        so may labels of places (int32), which are then read with it.

        For cross_entropy, y are labels (n, *spatial), with no spatial dimension where a row of logits stands for an
        image, or probabilities (n, *spatial, classes); for the other losses, values of the output's shape (see
        `convolve.losses`).

        Args:
            x, y: what to learn from.
            epochs, batch_size: how often each sample is seen, and how many a step.
            optimizer: AdamW by default.
            schedule: of the rate; constant by default.
            loss: a name or an object of `convolve.losses`, for instance cross_entropy(smoothing=0.1,
                class_weights=losses.balanced(y)).
            validation: (x, y) that are not learned from: measured after each epoch.
            callbacks: called with a `Progress` after each step and each epoch.
            seed: of the orders and of dropout.
            patience: stop after so many epochs without a better one, and leave the parameters of the best: the one with
                the highest validation accuracy, or the lowest loss where that decides nothing (`History.best`).
            average: keep an exponential average of the parameters, of which each step keeps this part (0.99, 0.999);
                that is what is validated, and what training leaves.
            augment: what is done to the samples, as in [augment.Flip(), augment.Shift(2)]; see `convolve.augment`.

        Ctrl-C ends training within a step. The same data, seed and settings give the same bits on any number of
        threads.

        Raises:
            ShapeError, DataError: x or y does not suit the model; the message says what came and what was expected.
            DivergenceError: the loss left the finite numbers; the last good parameters were kept.

        >>> from convolve import Dense, Model
        >>> x = np.linspace(-1, 1, 64, dtype=np.float32)[:, None]
        >>> model = Model(Dense(1), input_shape=(1,))
        >>> held = (x[::4], 3 * x[::4])
        >>> history = model.fit(x, 3 * x, 900, 16, optim.AdamW(0.1), loss="mse", validation=held, patience=9)
        >>> len(history) == history.best + 9
        True
        >>> bool(model.evaluate(*held, loss="mse")["loss"] == min(history["validation_loss"]))
        True
        """
        self._described()  # a layer that cannot be saved fails here, not after the training
        images = as_rows(x, self.input_shape)
        chosen = losses.resolve(loss)
        target = self._target(y, len(images), chosen)
        self.targets = losses.targets(chosen, self.output_shape)
        pipeline = self._pipeline(augment, chosen)
        trainer = training.Trainer(self.network, chosen, optimizer or optim.AdamW(), seed, average)
        validate = None
        if validation is not None:
            held = as_rows(validation[0], self.input_shape)
            wanted = self._target(validation[1], len(held), chosen)
            validate = lambda: self._evaluate(held, wanted, chosen)  # noqa: E731 - a name for what runs later
        history, best = History(), dict[str, np.ndarray]()

        def keep(progress: Progress) -> None:
            if progress.epoch_done and history.best == len(history):
                with trainer.averaged():
                    best.update(self.network.arrays())

        called = callbacks if patience is None else (keep, *callbacks)
        fit(
            self.network,
            trainer,
            images,
            target,
            epochs,
            batch_size,
            schedule,
            called,
            validate,
            seed,
            history,
            patience,
            pipeline,
        )
        for key, array in best.items():
            self.network[key] = array
        return history

    def trainer(
        self,
        loss: str | LossFunction = "cross_entropy",
        optimizer: Optimizer | None = None,
        batch_size: int | None = None,
        seed: int = 0,
        augment: Sequence[Augmentation] = (),
    ) -> Stepper:
        """For people who write their own loop: an object whose `step(x, y)` makes one optimizer step."""
        trainer = training.Trainer(self.network, loss, optimizer or optim.SGD(), seed)
        self.targets = losses.targets(trainer.loss, self.output_shape)
        return Stepper(self, trainer, batch_size, self._pipeline(augment, trainer.loss))

    def _pipeline(self, steps: Sequence[Augmentation], loss: LossFunction) -> Pipeline | None:
        """Augmentations for the samples and targets of this model; None where there are none."""
        if not steps:
            return None
        if len(self.input_shape) < 2:
            raise ConvolveError(f"augment: samples of shape {self.input_shape} have no places; leave it out")
        kind, places = losses.targets(loss, self.output_shape), len(self.output_shape) == len(self.input_shape)
        return Pipeline(tuple(steps), self.output_shape[-1] if kind == "classes" else None, places)

    def gradients(
        self, x: Any, y: Any, loss: str | LossFunction = "cross_entropy"
    ) -> tuple[float, dict[str, np.ndarray]]:
        """The loss of a batch and its gradient by each parameter."""
        images = as_images(x, self.input_shape)
        chosen = losses.resolve(loss)
        return training.gradients(self.network, images, self._target(y, len(images), chosen), chosen)

    # for images, for other classes

    def channels_last(self) -> Model:
        """A model with the same arrays that takes signals, images and volumes channels last, as data sets hold them.

        Nets of ONNX files take them channels first, as a rule; other models come back as they are.
        """
        if not isinstance(self.net, layers.Imported) or (net := self.net.channels_last()) is self.net:
            return self
        bound = self.network.bound
        if bound is not None and net.inputs[0] != self.net.inputs[0]:
            bound = (*bound[1:], bound[0])
        return self._as(net, bound, self.network.arrays())

    def closed(self, shapes: Mapping[str, Shape]) -> Model:
        """A model with the same arrays and sizes for all that the inputs of an ONNX file leave open.

        Args:
            shapes: of samples, by the input's name; what they do not say becomes some size that suits the net.

        Raises:
            ShapeError: a sample does not fit its input, or no size suits.
        """
        network = self.network.closed(shapes)
        return self if network is self.network else self._of(network)

    def behind(self, *layers: Layer, input_shape: Shape) -> Model:
        """A model of some layers without arrays, a Normalize say, and then this net, whose names begin with "net."."""
        if not layers:
            return self._as(self.net, input_shape, self.network.arrays())
        net: Any = self.net
        return self._as(Sequential(*layers, replace(net, name="net")), input_shape, self._inner())

    def before(self, *then: Layer) -> Model:
        """A model of this net and then some layers without arrays; see `behind` for the names."""
        if isinstance(self.net, layers.Sequential):
            net = Sequential(*self.net.layers, *then, name=self.net.name)
            return self._as(net, self.network.bound, self.network.arrays())
        inner: Any = self.net
        return self._as(Sequential(replace(inner, name="net"), *then), self.input_shape, self._inner())

    def _inner(self) -> dict[str, np.ndarray]:
        """The arrays, by the names that they have where the net is called "net" in another."""
        return {key.replace(":", ":net.", 1): array for key, array in self.network.arrays().items()}

    def _as(self, net: Layer, input_shape: Shape | None, arrays: Mapping[str, np.ndarray]) -> Model:
        """Another net with the settings of this model."""
        return self._of(Network(net, input_shape, 0, self._threads, arrays, self.exact))

    def _of(self, network: Network) -> Model:
        made = Model.__new__(Model)
        made.exact, made._threads, made.classes, made.targets = self.exact, self._threads, self.classes, self.targets
        made.network = network
        return made

    def replace_head(self, classes: int | Sequence[str], seed: int = 0) -> str:
        """Give the net a new last layer, for other classes: a start for one's own photos.

        The last layer with a weight (a Dense, a Conv, or a Gemm, MatMul or Conv of an imported net) makes a logit for
        each class, its weight random again; a softmax behind it is left out, because losses take logits, and so is a
        Normalize, the scale of old values; maps of a single position, as imported nets may give, become a row. All
        other parameters stay, and keep their names.

        Args:
            classes: how many, or their names, which `classify` gives.
            seed: of the new weight.

        Returns:
            The layer's path: what `freeze` takes to train it alone first.

        Raises:
            ConvolveError: fewer than one class, or a net that does not end so.

        >>> from convolve import Conv, Dense, Flatten, Model, ReLU, Sequential
        >>> model = Model(Sequential(Conv(8, 3), ReLU(), Flatten(), Dense(10)), input_shape=(8, 8, 1))
        >>> head = model.replace_head(["cat", "dog"])
        >>> model.freeze(until=head)
        >>> model.output_shape, model.network.trained
        ((2,), ['dense1.weight', 'dense1.bias'])
        """
        names = None if isinstance(classes, int) else tuple(map(str, classes))
        count = classes if isinstance(classes, int) else len(classes)
        if isinstance(classes, (bool, str)) or count < 1:
            raise ConvolveError(f"replace_head: classes is their number, 1 or more, or their names: {classes!r}")
        old = self.network
        built = old.built()
        rows = built.construction.rows
        net, paths = headed(self.net, rows, built.output.shape, count)
        new = Network(net, old.bound, seed, self._threads, exact=self.exact)
        for key, array in old.arrays().items():
            if key.partition(":")[2].rpartition(".")[0] not in paths:
                new[key] = array
        self.network, self.classes, self.targets = new, names, None
        return next(row.path for row in rows if row.path in paths)

    def freeze(self, until: str | None) -> None:
        """Let the layers before the one named `until` learn no more: `fit` leaves their parameters as they are.

        Their batch norms normalise by the running values, which stay, too, and their dropouts drop nothing. None lets
        everything learn again. What is frozen is not saved.

        Args:
            until: a layer's name, as the summary has it with those of the blocks around it ("residual3.conv1"); a
                block's name means its first layer.

        Raises:
            ConvolveError: no layer is called so.
        """
        rows = self.network.built().construction.rows
        place = next((i for i, row in enumerate(rows) if until == row.path), None)
        if until is not None and place is None:
            raise ConvolveError(f"freeze: no layer is called {until!r}. There are {', '.join(r.path for r in rows)}")
        around = until or ""
        self.network.freeze(frozenset(r.path for r in rows[: place or 0] if not around.startswith(f"{r.path}.")))

    # keeping it

    def save(self, path: str | Path, extra: dict[str, Any] | None = None) -> None:
        """Write the model to a safetensors file, whole or not at all. Equal models are equal files."""
        save_file(path, self.network.arrays(), self._header(extra))

    def to_bytes(self, extra: dict[str, Any] | None = None) -> bytes:
        """What `save` writes. `load` reads it."""
        return dumps(self.network.arrays(), self._header(extra))

    def export_onnx(
        self,
        path: str | Path,
        opset: int | None = None,
        layout: Layout = "channels_first",
        dtype: DType = "float32",
    ) -> None:
        """Write the net to an ONNX file that any runtime runs, whole or not at all. Equal models are equal files.

        The file takes `input` and gives `output`, of any batch size, as a net in evaluation: preprocessing is part of
        it, and so are the names of layers (of nodes and their results), of parameters and statistics (of
        initialisers) and of classes (as JSON, under the metadata key `classes`).

        Args:
            path: of the file, which may exist.
            opset: version of ONNX's operators, from 18 (the default) to the newest that the installed onnx package
                knows. Newer ones have operators for more layers; what has none is written with several. An imported net
                is written as the graph it came as, unless another opset than its own is asked for or it computes with
                other floats than float32.
            layout: of input and output where they have spatial dimensions: "channels_first" as ONNX's users expect,
                (batch, channels, *spatial), or "channels_last" as everywhere in convolve. The former needs no
                transposition.
            dtype: of the input: "float32", or "uint8" for images as files hold them.

        Raises:
            ConvolveError: the onnx package is missing (pip install 'convolve[onnx]'), does not know the opset, or a
                layer has no counterpart in ONNX; the message names it.
            FileError: the file cannot be written. What was there before is unchanged.
        """
        export_onnx(self.network, path, opset, layout, dtype, self.classes)

    def _header(self, extra: dict[str, Any] | None = None) -> dict[str, Any]:
        return {
            "net": self._described(),
            "input_shape": self.network.bound and list(self.network.bound),
            "classes": list(self.classes) if self.classes else None,
            "targets": self.targets,
            "extra": extra or {},
        }

    def _described(self) -> dict[str, Any]:
        return describe(self.net, self.network.bound and self.input_shape)

    def copy(self) -> Model:
        """An independent model with the same parameters."""
        return copy.deepcopy(self)

    def __getstate__(self) -> dict[str, Any]:
        """The saved form: copying and pickling go through what a file holds, never through code."""
        own = {"threads": self._threads, "exact": self.exact, "frozen": self.network.frozen}
        return {"header": self._header(), "arrays": self.network.arrays(), **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        made = Model._restored(state["header"], state["arrays"], state["threads"], state["exact"])
        made.network.frozen = state["frozen"]
        self.__dict__ = made.__dict__

    @classmethod
    def _restored(
        cls, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray], threads: int | None, exact: bool = False
    ) -> Model:
        """A model from what a file holds, checked before anything is allocated."""
        shape, classes = header["input_shape"], header["classes"]
        listed = isinstance(shape, list) and all(isinstance(n, int) and not isinstance(n, bool) for n in shape)
        if shape is not None and not listed:
            raise FileError(f"input_shape must be a list of integers. Received: {shape!r}")
        if classes is not None and not (isinstance(classes, list) and all(isinstance(c, str) for c in classes)):
            raise FileError(f"classes must be a list of names or null. Received: {classes!r}")
        kind = header.get("targets")  # older files do not say it
        if kind not in (None, *CANONICAL):
            raise FileError(f"targets must be {', '.join(CANONICAL)} or null. Received: {kind!r}")
        model = cls.__new__(cls)
        bound = None if shape is None else tuple(shape)
        model.network = Network(restore(header["net"]), bound, 0, threads, arrays, exact)
        model.exact, model._threads = exact, threads
        model.classes = tuple(classes) if classes is not None else None
        model.targets = kind
        return model


class Stepper:
    """A training step at a time."""

    def __init__(
        self, model: Model, trainer: training.Trainer, batch_size: int | None, augment: Pipeline | None = None
    ) -> None:
        self.model, self._trainer, self.batch_size, self._augment = model, trainer, batch_size, augment

    @property
    def steps(self) -> int:
        """Steps made so far."""
        return self._trainer.steps

    def step(self, x: Any, y: Any, rate: float | None = None) -> float:
        """One optimizer step on a batch; returns its loss. `rate` replaces the optimizer's rate for this step."""
        images = as_images(x, self.model.input_shape)
        target = self.model._target(y, len(images), self._trainer.loss)
        if self.batch_size is not None and len(images) > self.batch_size:
            raise ShapeError(f"this trainer was made for batches of at most {self.batch_size}. Received: {len(images)}")
        if self._augment is not None:
            images, target = self._augment.apply(images, target, self._trainer.seed, self.steps)
        return self._trainer.step(images, target, rate)[0]


def _labels(there: np.ndarray, names: Sequence[Any]) -> list[Any]:
    """The names of labels that are there (..., labels), in lists nested as the dimensions before are."""
    if there.ndim > 1:
        return [_labels(part, names) for part in there]
    return [name for name, is_there in zip(names, there, strict=True) if is_there]


def _shape(x: Any) -> Shape:
    return tuple(x.shape) if isinstance(x, (np.ndarray, Source)) else np.shape(x)


def as_sample(x: Any, input_shape: Shape) -> np.ndarray:
    """One sample, with its batch or without, as a batch of one of float32.

    Raises:
        ShapeError, DataError: it is not one sample of this shape, or not finite.
    """
    array = np.asarray(x)
    array = array[None] if array.shape == input_shape else array
    if array.shape != (1, *input_shape):
        raise ShapeError(f"expected one sample, shape {input_shape}. Received: shape {array.shape}")
    return as_images(array, input_shape).astype(np.float32)


def load(source: str | Path | bytes, threads: int | None = None) -> Model:
    """A model from a file that `Model.save` wrote, or from its contents.

    Raises:
        FileError: the file is missing, damaged, of another version, or its tensors do not fit its net.
    """
    path = "the model's bytes" if isinstance(source, bytes) else source
    tensors, header = loads(source) if isinstance(source, bytes) else load_file(source)
    try:
        return Model._restored(header, tensors, threads)
    except KeyError as error:
        raise FileError(f"{path}: its header lacks {error}; it was not written by Model.save") from None
    except ConvolveError as error:
        raise FileError(f"{path}: {error}") from None


def from_onnx(source: str | Path | bytes, input_shape: Shape | None = None, threads: int | None = None) -> Model:
    """A model from an ONNX file, or from its bytes.

    Inputs and outputs stay as the file says: (batch, channels, height, width) where it says so. Sizes that the file
    leaves open are those of the array a call gets.

    Opsets from 7 on are read. The operators that are known, but for the indices of a pool and a norm's outputs in
    training:

    Abs, Acos, Acosh, Add, And, ArgMax, ArgMin, Asin, Asinh, Atan, Atanh, AveragePool, BatchNormalization, Cast,
    CastLike, Ceil, Celu, Clip, Concat, Constant, ConstantOfShape, Conv, ConvTranspose, Cos, Cosh, DepthToSpace,
    DequantizeLinear, Div, Dropout, DynamicQuantizeLinear, Elu, Equal, Erf, Exp, Expand, Flatten, Floor, Gather,
    GatherElements, Gelu, Gemm, GlobalAveragePool, GlobalLpPool, GlobalMaxPool, Greater, GreaterOrEqual,
    GroupNormalization, HardSigmoid, HardSwish, Hardmax, Identity, InstanceNormalization, IsInf, IsNaN, LRN,
    LayerNormalization, LeakyRelu, Less, LessOrEqual, Log, LogSoftmax, LpNormalization, LpPool, MatMul, Max,
    MaxPool, Mean, MeanVarianceNormalization, Min, Mish, Mod, Mul, Neg, Not, OneHot, Or, PRelu, Pad, Pow,
    QuantizeLinear, RMSNormalization, Range, Reciprocal, ReduceL1, ReduceL2, ReduceLogSum, ReduceLogSumExp,
    ReduceMax, ReduceMean, ReduceMin, ReduceProd, ReduceSum, ReduceSumSquare, Relu, Reshape, Resize, Round,
    Selu, Shape, Shrink, Sigmoid, Sign, Sin, Sinh, Size, Slice, Softmax, Softplus, Softsign, SpaceToDepth,
    Split, Sqrt, Squeeze, Sub, Sum, Swish, Tan, Tanh, ThresholdedRelu, Tile, TopK, Transpose, Trilu, Unsqueeze,
    Upsample, Where, Xor.

    Args:
        source: the file's name, or its contents.
        input_shape: of one sample of the first input, without the batch, where the file leaves sizes open: needed for
            `summary`, `fit` and `explain`.
        threads: to compute with, as in `Model`.

    Raises:
        FileError: the file is missing or damaged, or has operators that are not known: all of them are listed.
        ShapeError: an operator does not suit its inputs, or `input_shape` does not fit the file.
    """
    from convolve.onnx.opening import opened

    model = Model.__new__(Model)
    model.network, model.classes = opened(source, input_shape, threads)
    model.exact, model._threads = False, threads
    return model
