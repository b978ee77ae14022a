"""`convolve train`: a net, and the fully-connected one it is compared with, from data to a run's folder."""

from __future__ import annotations

import hashlib
import math
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from convolve import zoo
from convolve.augment import Augmentation, Pipeline, describe, restore
from convolve.cli import tasks
from convolve.cli.board import on_board, writer
from convolve.cli.choice import choose
from convolve.cli.doctor import cpu, versions
from convolve.cli.find import ONNX, VIEWS, find_model, input_size, load_data, model_file, with_test_part
from convolve.cli.look import watched
from convolve.cli.output import Output, count, duration, percent
from convolve.cli.progress import Display
from convolve.cli.rates import find_rate
from convolve.cli.recipe import ADAMW, BASELINE, RECIPE, augmentations, chosen_net, zoo_net
from convolve.cli.report import report
from convolve.cli.run import METRICS, MODEL, REPORT, Checkpoint, Reached, Run, check_free, slug
from convolve.cli.scores import KINDS, Scores, measured, shown, spoken, told, with_mirror_images
from convolve.cli.start import KEPT, image_size, started
from convolve.data import is_files
from convolve.data.dataset import Dataset, Task, held_out
from convolve.errors import ConvolveError, DataError, DivergenceError, FileError, ShapeError
from convolve.model import Model
from convolve.source import Pairs, Rows, fingerprint, rows, subset
from convolve.training import schedule
from convolve.training.cost import Cost, peak_bytes, predict
from convolve.training.feed import Feed, labels_of
from convolve.training.fit import Callback, History, Progress, fit
from convolve.training.losses import CrossEntropy, Loss
from convolve.training.optim import LayerRates, Optimizer
from convolve.training.range_test import RangeTest, range_test
from convolve.training.schedule import Schedule
from convolve.training.trainer import Trainer
from convolve.view.text import megabytes, table

FLAGS = {"start": "from", "smoothing": "label-smoothing"}
"""Options that are called otherwise than the settings they stand for."""


@dataclass(frozen=True)
class Options:
    """The command line as it was typed; None is what nobody gave."""

    data: str
    task: Task | None
    net: str | None
    start: str | None
    head_epochs: int | None
    epochs: int | None
    out: str | None
    resume: bool
    seed: int | None
    threads: int | None
    batch_size: int | None
    size: int | None
    optimizer: str | None
    rate: float | None
    final: float | None
    alone: bool | None
    average: float | None
    smoothing: float | None
    balanced: bool | None
    patience: int | None
    augment: str | None
    save_every: float
    strict: bool
    look: bool
    find_lr: bool
    tensorboard: bool
    quiet: bool
    as_json: bool


@dataclass(frozen=True)
class Settings:
    """What a run can be told; with the recipe and the data it decides every bit of the result."""

    net: str
    start: str | None
    """The trained model to begin with."""
    head_epochs: int
    """How many of the epochs its new head learns alone."""
    epochs: int
    batch_size: int
    optimizer: str
    """Of the recipe's."""
    rate: float
    final: float
    """Part of the rate that the last step has."""
    seed: int
    alone: bool
    average: float | None
    smoothing: float
    balanced: bool
    patience: int | None
    augment: list[Any]
    """As `convolve.augment.describe` has it."""


@dataclass(frozen=True)
class Phase:
    """A part of a training, up to an epoch: what learns, from which layer on, and how."""

    title: str
    until: int
    optimizer: Optimizer
    schedule: Schedule
    first: str | None = None


@dataclass(frozen=True, eq=False)
class Parts:
    """Images to learn from, images to watch, and images that are used once, at the end."""

    task: Task
    classes: tuple[str, ...]
    x: Rows
    y: Any
    """As the loss takes it: an array, or `tasks.Rebuilt`; so are the others."""
    x_validation: Rows
    y_validation: Any
    x_test: Rows
    y_test: Any

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.x.shape[1:]

    @property
    def sample(self) -> np.ndarray:
        """What there is to learn from, as an array: of a source that memory does not hold, some of all classes."""
        return self.x if isinstance(self.x, np.ndarray) else self.x.batch(tasks.sampled(len(self.x)))

    @property
    def sample_targets(self) -> Any:
        """What is to be learnt of `sample`."""
        return self.y if isinstance(self.x, np.ndarray) else rows(self.y, tasks.sampled(len(self.x)))

    @property
    def names(self) -> tuple[str, ...] | None:
        """What the values of an output are called; None where samples are given back."""
        return None if self.task == "autoencode" else self.classes

    def scores(self, files: Sequence[str] = ()) -> Scores:
        """Of the task, before anything is counted."""
        return KINDS[self.task](self.classes, files)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """What a net has to give for a sample."""
        return tasks.output_shape(self.task, self.input_shape, len(self.classes))


def train(options: Options) -> None:
    """Train, print, and fill a run's folder.

    Raises:
        ConvolveError: data, net, options or folder do not suit each other; nothing is left behind.
        DivergenceError: the loss left the finite numbers; the folder holds the last whole epoch.
        KeyboardInterrupt: Ctrl-C; its text says what was kept.
    """
    began = time.perf_counter()
    output = Output(options.quiet, options.as_json)
    out = Path(options.out) if options.out else None
    if options.tensorboard:
        writer()  # a missing package is said before anything is done
    old = Run.resumed(out) if out and options.resume else None
    if out and not old and not options.find_lr:
        check_free(out)

    task = old.config["data"]["task"] if old else options.task
    found = load_data(options.data, output, _size(options, old), options.strict, task=task)
    dataset, without_test = with_test_part(found)
    parts = _parts(dataset, _seed(options, old))
    _say_found(output, dataset, parts, without_test)
    settings = _resumed(options, old) if old else _settings(options, dataset, parts, output)
    config = _config(settings, options.data, dataset)
    if old:
        _check_same(old.config, config)
    model, head = _model(parts, settings, options.threads)
    model.targets = parts.scores().targets
    if old is None:
        settings = _with_head(settings, parts.task, head, _given(options).keys(), output)
        config["settings"] = asdict(settings)
    title = f"{slug(dataset.name)}-{slug(_called(settings))}"
    phases = _phases(model, settings, head, len(parts.x))
    if options.find_lr:
        test = partial(_range_test, model, parts, settings, phases[0])
        find_rate(
            test, f"{_called(settings)} on {dataset.name}", settings.rate, (out or Path()) / f"{title}-rates", output
        )
        return
    run = old or Run.begin(out, title, config)

    with run.kept(), _explained(run, settings, options.data):
        checkpoint = run.checkpoint()
        output.head(settings.net)
        output.say(model.summary())
        compared = None
        if not settings.alone and settings.net != BASELINE:
            compared = _compared(model, checkpoint, parts, settings, options.threads, output)
        with (
            watched(run, model, parts.scores, parts.x_validation, parts.y_validation, options.look, output) as watching,
            on_board(run.folder, run.steps, options.tensorboard) as noting,
        ):
            every = options.save_every
            history, cost = _train(
                run, model, phases, checkpoint, parts, settings, compared, every, (*watching, *noting), output
            )
        run.best(model)
        scores = _scores(model, parts, dataset.test_files)
        flipped = parts.task == "classify" and VIEWS["flip"] in restore(settings.augment)
        mirrored = _scores(model, parts, views=[VIEWS["flip"]]) if flipped else None
        reached = _reached(settings.net, model, history, scores)
        results = {
            "run": str(run.folder),
            "data": config["data"],
            "net": reached.as_dict(),
            "fully_connected": compared.as_dict() if compared else None,
            "best_epoch": history.best,
            "test": scores.as_dict(),
            "test_with_mirror_images": mirrored.as_dict() if mirrored else None,
            "cost": cost,
            "seconds": time.perf_counter() - began,
        }
        pictures = _pictures(model, parts, scores)
        run.finish(results, report(config, results, history.epochs, scores, pictures, str(model.summary())))
    _say_cost(output, cost, history)
    _say_reached(
        output, run, [compared, reached] if compared else [reached], scores, mirrored, time.perf_counter() - began
    )
    if options.as_json:
        output.give(results)


# what a run is


def _size(options: Options, old: Run | None) -> int | tuple[int, ...] | None:
    """What files of a folder are brought to: as asked, as when the run was begun, or as the net takes them.

    Raises:
        ConvolveError: a size for data that is not resized.
    """
    if options.size is not None and not is_files(options.data):
        raise ConvolveError(f"--size {options.size}: only files in folders are resized, not {options.data}")
    if options.size is not None:
        return options.size
    if old is not None:
        return tuple(old.config["data"]["shape"][:-1])
    if options.start and not options.start.endswith(ONNX):
        return input_size(find_model(options.start).model)
    net = options.start or options.net
    return image_size(net) if net and net.endswith(ONNX) else None


def _seed(options: Options, old: Run | None) -> int:
    stored = old.config["settings"].get("seed") if old else options.seed
    return stored if isinstance(stored, int) else 0


def _settings(options: Options, dataset: Dataset, parts: Parts, output: Output) -> Settings:
    """The options, and what the rule says of what nobody gave."""
    if dataset.task == "classify":
        choice = choose(dataset, parts.x, parts.y, (parts.x_validation, parts.y_validation))
    else:
        choice = tasks.chosen(dataset.task, dataset, len(parts.x))
    size = options.batch_size or choice.batch_size
    epochs = choice.epochs_of(len(parts.x), size)
    how = choice.learning(options.start or options.net or choice.net)
    chosen = Settings(
        net=options.start or choice.net,
        start=None,
        head_epochs=0,
        epochs=epochs,
        batch_size=size,
        optimizer=how.optimizer,
        rate=how.rate,
        final=how.final,
        seed=0,
        alone=dataset.task != "classify",
        average=how.average,
        smoothing=choice.smoothing,
        balanced=False,
        patience=None,
        augment=describe(choice.augment),
    )
    given = _given(options)
    settings = replace(chosen, **given)
    output.say(f"{choice.why}.\nChosen: {_said(settings, set(given))}")
    return settings


def _with_head(settings: Settings, task: Task, head: str | None, given: Set[str], output: Output) -> Settings:
    """The epochs in which a new head learns alone, unless they were given: one in five, and never all."""
    if settings.start is None:
        return settings
    if head is None:
        output.say(f"{settings.start} {KEPT[task]} and keeps its last layer")
        return replace(settings, head_epochs=0)
    asked = settings.head_epochs if "head_epochs" in given else settings.epochs // RECIPE.head_part or 1
    alone = min(asked, settings.epochs - 1)
    output.say(
        f"{settings.start} gets a new last layer, {head}, which learns alone for {count(alone, 'epoch')} at first"
    )
    return replace(settings, head_epochs=alone)


def _given(options: Options) -> dict[str, Any]:
    """The settings that somebody gave."""
    names = [field.name for field in fields(Settings)]
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return given | ({"augment": describe(augmentations(given["augment"]))} if "augment" in given else {})


def _resumed(options: Options, old: Run) -> Settings:
    """The settings that a run was begun with.

    Raises:
        ConvolveError: an option says otherwise.
    """
    stored = old.config["settings"]
    known = get_type_hints(Settings) | {"augment": list}
    fits = stored.keys() == known.keys() and all(isinstance(stored[name], hint) for name, hint in known.items())
    if not fits or stored["optimizer"] not in RECIPE.optimizers:
        raise FileError(f"{options.out}: this run was begun by another version of convolve; begin a new one")
    for name, value in _given(options).items():
        if value != stored[name]:
            option = FLAGS.get(name, name.replace("_", "-"))
            raise ConvolveError(
                f"--{option} {value}: the run in {options.out} was begun with {stored[name]} and goes "
                "on as it began; leave the option out, or begin a new run"
            )
    restore(stored["augment"])  # a damaged one fails here
    return Settings(**stored)


def _parts(dataset: Dataset, seed: int) -> Parts:
    """The test part as it is; to watch, what the set has for that, else a share of the training images, by the seed."""
    assert dataset.x_test is not None
    assert dataset.y_test is not None
    learnt = dataset.x_train, dataset.y_train
    if dataset.x_validation is not None and dataset.y_validation is not None:
        seen = dataset.x_validation, dataset.y_validation
    else:
        share = min(RECIPE.held_out, RECIPE.most_held_out / len(dataset.x_train))
        kept, watched = held_out(dataset.strata, share, seed, name=f"{dataset.name}: the training part")
        learnt, seen = ((subset(dataset.x_train, part), subset(dataset.y_train, part)) for part in (kept, watched))
    tested = dataset.x_test, dataset.y_test
    with_targets = ((x, tasks.targets(dataset.task, x, y)) for x, y in (learnt, seen, tested))
    return Parts(dataset.task, dataset.classes, *(part for pair in with_targets for part in pair))


def _model(parts: Parts, settings: Settings, threads: int | None) -> tuple[Model, str | None]:
    """The net that was asked for, untrained; of a file as the file has it, but for its last layer, whose path it says.

    Raises:
        ShapeError: it does not suit the images or the classes.
    """
    onnx = settings.net if settings.net.endswith(ONNX) else None
    if trained := settings.start or onnx:
        option = "--from" if settings.start else "--net"
        samples = parts.sample, parts.sample_targets
        return started(trained, option, parts.task, *samples, parts.names, parts.output_shape, settings.seed, threads)
    classes = len(parts.classes)
    if settings.net in zoo.NETS:
        net = tasks.zoo_net(settings.net, parts.task, parts.sample, classes)
    else:
        net = chosen_net(settings.net, parts.sample, classes)
    model = Model(net, parts.input_shape, settings.seed, threads, classes=parts.names)
    if model.output_shape != parts.output_shape:
        advice = {
            "segment": f"a value a class for each place: end it in Conv({classes}, 1), or take unet",
            "autoencode": "the shape of a sample",
        }.get(parts.task, f"a value a class: end it in Dense({classes})")
        raise ShapeError(
            f"--net {settings.net}: its output has shape {model.output_shape}; expected {parts.output_shape}, {advice}"
        )
    return (model.before(tasks.scale_of(parts.y)) if parts.task == "regress" else model), None


def _phases(model: Model, settings: Settings, head: str | None, samples: int) -> list[Phase]:
    """What is trained when: a new head alone, and then all of a trained model at lower rates, which fall downwards."""
    optimizer = replace(RECIPE.optimizers[settings.optimizer], rate=settings.rate)
    cycle = replace(RECIPE.schedule, final=settings.final)
    if settings.start is None:
        return [Phase("", settings.epochs, optimizer, cycle)]
    tuned = replace(optimizer, rate=RECIPE.tuned * settings.rate)
    falling = LayerRates.falling(tuned, model.parameters, RECIPE.lowest)
    title = f"all layers, at rates from {RECIPE.lowest * tuned.rate:.2g} in the first to {tuned.rate:.2g} in the last"
    if not settings.head_epochs:
        return [Phase(title, settings.epochs, falling, cycle)]
    steps = settings.head_epochs * -(-samples // settings.batch_size)
    cycles = schedule.Sequence((steps, cycle), cycle)
    return [
        Phase(f"{head} alone", settings.head_epochs, optimizer, cycles, head),
        Phase(title, settings.epochs, falling, cycles),
    ]


def _called(settings: Settings) -> str:
    """A short name: a net's, or of a trained model that of its file, or of its run's folder."""
    if settings.start is None:
        return settings.net
    path = Path(settings.start)
    return path.parent.name if path.name == MODEL and path.parent.name else path.stem


def _config(settings: Settings, given: str, dataset: Dataset) -> dict[str, Any]:
    """Everything that it takes to repeat a run, as JSON holds it."""
    assert dataset.x_test is not None
    assert dataset.y_test is not None
    digest = hashlib.sha256()
    for part in (dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test):
        digest.update(fingerprint(part))
    data = {
        "given": given,
        "name": dataset.name,
        "shape": list(dataset.input_shape),
        "dtype": str(dataset.x_train.dtype),
        "rate": dataset.rate,
        "task": dataset.task,
        "classes": list(dataset.classes),
        "training_images": len(dataset.x_train),
        "test_images": len(dataset.x_test),
        "sha256": digest.hexdigest(),
    }
    config = {"settings": asdict(settings), "recipe": RECIPE.as_dict(), "data": data}
    if settings.start is not None:
        config["start"] = {"sha256": hashlib.sha256(model_file(settings.start).read_bytes()).hexdigest()}
    return config | {"made_with": versions() | {"cpu": cpu()}}


def _check_same(begun: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """A run goes on with the data and the recipe that it was begun with."""
    if begun["recipe"] != config["recipe"]:
        raise FileError("this run was begun by a version of convolve that trains otherwise; begin a new one")
    if begun["data"] | {"given": None} != config["data"] | {"given": None}:
        raise DataError(f"{config['data']['given']}: not the data that this run was begun with; give those")
    if begun.get("start") != config.get("start"):
        raise FileError(
            f"{config['settings']['start']}: not the model that this run was begun with; put that one there"
        )


@contextmanager
def _explained(run: Run, settings: Settings, data: str) -> Iterator[None]:
    """Let what ends a run too early say what is kept of it."""
    try:
        yield
    except (DivergenceError, FileError) as error:
        raise type(error)(f"{error}. {_kept(run, settings)}") from None
    except KeyboardInterrupt:
        on = f" To go on: convolve train {shlex.quote(data)} --out {shlex.quote(str(run.folder))} --resume"
        raise KeyboardInterrupt(f"Stopped. {_kept(run, settings)}{on if run.steps else ''}") from None


def _kept(run: Run, settings: Settings) -> str:
    if not run.steps:
        return "Nothing is kept, as no epoch was whole."
    if not run.saved:
        return f"{run.folder} holds a checkpoint within the first epoch of {settings.epochs}."
    return f"{run.folder} holds the model after epoch {run.saved} of {settings.epochs}."


# training


def _compared(
    model: Model, checkpoint: Checkpoint | None, parts: Parts, settings: Settings, threads: int | None, output: Output
) -> Reached:
    """The fully-connected net on the same data, and what it reaches."""
    other = Model(zoo_net(BASELINE, parts.sample, len(parts.classes)), parts.input_shape, settings.seed, threads)
    epochs = min(settings.epochs, RECIPE.compared_epochs)
    name = f"{math.prod(parts.input_shape)}-{other.parameters['dense1.weight'].shape[0]}-{len(parts.classes)}"
    output.say(
        f"\nThe fully-connected net of {name} has {other.parameter_count:,} weights (no biases); {settings.net} has "
        f"{model.parameter_count:,} parameters.\n"
        f"It is trained on the same images, as they are, for {count(epochs, 'epoch')}."
    )
    if checkpoint:
        if checkpoint.compared is None:
            raise FileError(f"the checkpoint lacks what {name} reached; begin a new run")
        return checkpoint.compared
    output.head(f"{name}, fully connected")
    history = History()
    try:
        trainer = Trainer(other.network, CrossEntropy(), RECIPE.optimizers[ADAMW], settings.seed)
        as_they_are = replace(settings, epochs=epochs, patience=None, augment=[])
        phase = Phase("", epochs, RECIPE.optimizers[ADAMW], RECIPE.schedule)
        _fit(other, trainer, parts, as_they_are, phase, history, output)
    except DivergenceError as error:
        raise DivergenceError(f"{name}, the fully-connected net: {error}. Leave it out by --alone") from None
    return _reached(name, other, history, _scores(other, parts))


def _scores(model: Model, parts: Parts, names: Sequence[str] = (), views: Sequence[Augmentation] = ()) -> Scores:
    """What a model makes of the test part."""
    return measured(parts.scores(names), model, parts.x_test, parts.y_test, views)


def _pictures(model: Model, parts: Parts, scores: Scores) -> list[tuple[np.ndarray, ...]]:
    """Each of the test samples that are worst, and what is seen beside it."""
    worst = [mistake.index for mistake in scores.worst]
    samples = rows(parts.x_test, worst)
    if not worst or not scores.shows:
        return [(sample,) for sample in samples]
    found = zip(samples, model.predict(samples), rows(parts.y_test, worst), strict=True)
    return [(sample, *scores.beside(sample, output, target)) for sample, output, target in found]


def _reached(net: str, model: Model, history: History, scores: Scores) -> Reached:
    seconds = history["seconds"][-1]
    return Reached(net, model.parameter_count, len(history), seconds, scores.metric, scores.score)


def _train(
    run: Run,
    model: Model,
    phases: Sequence[Phase],
    checkpoint: Checkpoint | None,
    parts: Parts,
    settings: Settings,
    compared: Reached | None,
    save_every: float,
    watching: tuple[Callback, ...],
    output: Output,
) -> tuple[History, dict[str, float | int | None]]:
    """Train the net that was asked for, and save it after each epoch and every few minutes; what that cost."""
    history = checkpoint.history if checkpoint else History()
    size, saved = settings.batch_size, time.monotonic()

    def save(progress: Progress) -> None:
        nonlocal saved
        late = time.monotonic() - saved >= save_every * 60
        if progress.epoch_done or (late and history.underway.samples < len(parts.x)):
            run.save(model, trainer, history, compared)
            saved = time.monotonic()

    for phase in _left(phases, history):
        model.freeze(until=phase.first)
        trainer = Trainer(model.network, _loss(parts, settings), phase.optimizer, settings.seed, settings.average)
        output.head(f"{_called(settings)}: {phase.title}" if phase.title else settings.net)
        expected = predict(trainer, parts.x, parts.y, size, len(parts.x_validation))
        if checkpoint:
            checkpoint.fill(model)
            samples, targets = Pairs(parts.x, parts.y).batch(np.arange(min(size, len(parts.x))))
            trainer.resume(checkpoint.state, checkpoint.steps, samples, labels_of(targets))
            run.save(model, trainer, history, compared)  # the machine may have stopped between two of its files
            output.say(f"going on after epoch {len(history)} of {settings.epochs}{_within(history, parts, size)}\n")
            checkpoint = None
        _say_expected(output, expected, phase.until - len(history))
        _fit(model, trainer, parts, settings, phase, history, output, (save, *watching))
    reached = np.diff([0.0, *history["seconds"]])[sum(phase.until for phase in phases[:-1]) :]
    return history, {
        "expected_epoch_seconds": expected.epoch_seconds,
        "epoch_seconds": float(np.median(reached)),
        "expected_peak_bytes": expected.peak_bytes,
        "peak_bytes": peak_bytes(),
    }


def _range_test(
    model: Model, parts: Parts, settings: Settings, phase: Phase, done: Callable[[int], object]
) -> RangeTest:
    """The loss as the phase's rate grows, on the batches that training begins with."""
    model.freeze(until=phase.first)
    trainer = Trainer(model.network, _loss(parts, settings), phase.optimizer, settings.seed)
    feed = Feed(parts.x, parts.y, settings.batch_size, _pipeline(parts, settings), settings.seed, model.network.threads)
    return range_test(trainer, feed, done=done)


def _pipeline(parts: Parts, settings: Settings) -> Pipeline | None:
    places = parts.task in ("segment", "autoencode")
    classes = len(parts.classes) if parts.task in ("classify", "segment") else None
    return Pipeline(restore(settings.augment), classes, places) if settings.augment else None


def _left(phases: Sequence[Phase], history: History) -> Sequence[Phase]:
    """The phases that are not over: one is when the next has made a step, until then its averages are to be settled."""
    over = [phase for phase in phases[:-1] if (phase.until, 0) < (len(history), history.underway.batches)]
    return phases[len(over) :]


def _within(history: History, parts: Parts, size: int) -> str:
    batches = -(-len(parts.x) // size)
    return f", {history.underway.batches / batches:.0%} into the next" if history.underway.batches else ""


def _loss(parts: Parts, settings: Settings) -> Loss:
    return tasks.loss(parts.task, parts.y, len(parts.classes), settings.smoothing, settings.balanced)


def _fit(
    model: Model,
    trainer: Trainer,
    parts: Parts,
    settings: Settings,
    phase: Phase,
    history: History,
    output: Output,
    callbacks: tuple[Callback, ...] = (),
) -> None:
    """Train to the end of the phase, as the settings say; the test part is not touched, the validation part watched."""

    def validate() -> dict[str, float]:
        return measured(parts.scores(), model, parts.x_validation, parts.y_validation).metrics()

    with Display(output, settings.batch_size, tasks.COLUMNS[parts.task]) as display:
        fit(
            model.network,
            trainer,
            parts.x,
            parts.y,
            settings.epochs,
            settings.batch_size,
            phase.schedule,
            (*callbacks, display),
            validate,
            settings.seed,
            history,
            settings.patience,
            _pipeline(parts, settings),
            phase.until,
        )


# what people read


def _say_found(output: Output, dataset: Dataset, parts: Parts, without_test: bool) -> None:
    output.say(f"{dataset.name}: {dataset.describe()}")
    if without_test:
        output.say("it has no test part, so a fifth of its images was held out as one")
    output.say(
        f"{len(parts.x):,} images to learn from, {len(parts.x_validation):,} to watch (validation), "
        f"{len(parts.x_test):,} for the end (test)"
    )


def _said(settings: Settings, given: set[str]) -> str:
    """The settings in a line; those that were given by an option are marked."""
    steps = ", ".join(map(str, restore(settings.augment))) or "none"
    said = {
        "net": settings.net,
        "epochs": str(settings.epochs),
        "batch_size": str(settings.batch_size),
        "optimizer": settings.optimizer,
        "rate": f"{settings.rate:.3g}",
        "final": f"{settings.final:g}",
        "average": f"{settings.average:g}",
        "smoothing": f"{settings.smoothing:g}",
        "augment": steps,
    }
    marked = {name: value + (" (given)" if name in given else "") for name, value in said.items()}
    return "; ".join(f"{name.replace('_', ' ')} {value}" for name, value in marked.items())


def _say_expected(output: Output, cost: Cost, epochs: int) -> None:
    memory = f"; {megabytes(cost.peak_bytes)} of memory at most" if cost.peak_bytes else ""
    output.say(
        f"expected: {duration(cost.epoch_seconds)} an epoch, {duration(epochs * cost.epoch_seconds)} for "
        f"{count(epochs, 'epoch')}{memory}\n"
    )


def _say_cost(output: Output, cost: dict[str, float | int | None], history: History) -> None:
    took, expected = cost["epoch_seconds"], cost["expected_epoch_seconds"]
    assert took is not None
    assert expected is not None
    output.say(f"\nit took {duration(took)} an epoch ({duration(expected)} expected)")
    peak, expected_peak = cost["peak_bytes"], cost["expected_peak_bytes"]
    if peak and expected_peak:
        output.say(f"and {megabytes(int(peak))} at most ({megabytes(int(expected_peak))} expected)")
    output.say(f"{percent(history.waiting)} of that it waited for data")
    output.say(f"the best epoch by the validation images is {history.best} of {len(history)}: that is {MODEL}")


def _say_reached(
    output: Output, run: Run, nets: list[Reached], scores: Scores, mirrored: Scores | None, seconds: float
) -> None:
    rows = [(r.net, f"{r.parameters:,}", str(r.epochs), duration(r.seconds), shown(r.metric, r.score)) for r in nets]
    output.say(f"\n{table(('net', 'parameters', 'epochs', 'time', f'test {spoken(scores.metric)}'), rows)}\n")
    if mirrored:
        output.say(f"{with_mirror_images(mirrored.metric, mirrored.score)}\n")
    output.say(f"{told(scores)}\n")
    output.say(
        f"{duration(seconds)} in all; saved in {run.folder}: {MODEL}, {METRICS}, {REPORT} and what resumes the run"
    )
