"""`convolve look`: the page that looks inside a net."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from convolve import storage
from convolve.cli.find import ONNX, Found, data_for, find_model, find_net
from convolve.cli.output import Output
from convolve.cli.run import CONFIG, FILTERS, METRICS, MODEL, Run
from convolve.cli.scores import ClassScores, Scores
from convolve.cli.sizes import sized
from convolve.data import names as data_names
from convolve.data.kinds import SUFFIXES
from convolve.errors import FileError
from convolve.model import Model
from convolve.page.opening import open_page, page_beside, write_page
from convolve.page.subject import Subject, subject
from convolve.page.upload import read_sample
from convolve.page.watch import FILE, NOTHING, Mistaken, Moment, Watch, Watched
from convolve.source import Pairs, Rows, batch
from convolve.training.fit import Callback

MOST = 1000
"""Samples of a data set that the page offers."""
DIGITS = (28, 28, 1)
"""What takes digits: they come with the package."""


def look(model: str, data: str | None, port: int, html: str | None, browser: bool, quiet: bool, as_json: bool) -> None:
    """Open the page, until it is closed, or write it to a file."""
    output = Output(quiet, as_json)
    found = find_net(model, images=True)
    shown = _subject(found, data, output)
    if html is not None:
        write_page(shown, html)
        output.say(f"{html}: {Path(html).stat().st_size / 1e6:.1f} MB, with everything in it")
    else:
        open_page(shown, port, browser, output.result)


def _subject(found: Found, data: str | None, output: Output) -> Subject:
    """The model with samples: those of an image file, of a data set, of its run, or digits for nets that take them."""
    path = Path(found.name)
    x: Any = None
    y, source = None, ""
    other = find_model(data, images=True).model.network if data is not None and _is_model(Path(data)) else None
    beside, data = (Path(str(data)).name, None) if other else ("", data)
    file = Path(data) if data is not None and Path(data).suffix.lower() in SUFFIXES else None
    model, note = sized(found.model, file)
    found = replace(found, model=model)
    if file is not None:
        x, source = read_sample(_contents(file), file.name, model.input_shape, found.rate)[None], file.name
    elif data := data or _its_data(found):
        dataset = data_for(found, data, output)
        test = dataset.x_test is not None
        x, y = (dataset.x_test, dataset.y_test) if test else (dataset.x_train, dataset.y_train)
        assert x is not None
        x, y = batch(x, 0, MOST), None if y is None or found.task != "classify" else np.asarray(y[:MOST])
        source = f"{dataset.name}, {'test' if test else 'training'} images"
    return subject(
        model.network,
        path.name,
        model.classes,
        x,
        y,
        source,
        file=path / MODEL if path.is_dir() else path if path.is_file() else None,
        watched=_training(path),
        other=other,
        other_title=beside,
        rate=found.rate,
        note=note,
        task=found.task,
    )


def _contents(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise FileError(f"{file}: cannot be read ({error.strerror or error}). Check the name.") from error


def _is_model(path: Path) -> bool:
    """Whether the second name is another checkpoint rather than data."""
    return path.suffix in (".safetensors", ONNX) or (path / MODEL).is_file()


def _its_data(found: Found) -> str | None:
    """The data that a run was begun with, where they are still there; digits, where the net takes such."""
    path, model = Path(found.name), found.model
    if (path / CONFIG).is_file():
        given = Run.resumed(path).config["data"].get("given")
        return given if isinstance(given, str) and (given in data_names() or Path(given).exists()) else None
    digits = model.input_shape == DIGITS and model.output_shape == (10,) and found.trained_on != "float32"
    return "mnist" if digits else None


def _training(path: Path) -> Watched | None:
    """What a run's folder knows of its training: what `convolve train --look` kept, or curves and filters alone."""
    if (path / FILE).is_file():
        return Watched.load(path / FILE)
    if not (path / METRICS).is_file():
        return None
    with (path / METRICS).open(encoding="utf-8", newline="") as file:
        rows = [{name: float(value or "nan") for name, value in row.items()} for row in csv.DictReader(file)]
    layer, kept = None, {}
    for file_of in sorted((path / FILTERS).glob("*.safetensors")):
        tensors, header = storage.load(file_of)
        for name, weight in tensors.items():
            layer, kept[header.get("epoch")] = name.rpartition(".")[0], weight
    moments = [Moment(row, kept.get(epoch, NOTHING), NOTHING, ()) for epoch, row in enumerate(rows, 1)]
    return Watched(layer, moments=moments)


@contextmanager
def watched(
    run: Run, model: Model, scores: Callable[[], Scores], x: Rows, y: Any, looked: bool, output: Output
) -> Iterator[tuple[Callback, ...]]:
    """The page while a model is trained, if it is `looked` at, and what training has to call for it.

    x and y are what mistakes are looked for among, the validation images; `scores` are new ones of the task.
    """
    if not looked:
        yield ()
        return
    empty = scores()
    shown_x, shown_y = Pairs(x, y).batch(np.arange(min(MOST, len(x))))
    worst = partial(worst_of, scores, model, shown_x, shown_y)
    watch = Watch(model.network, shown_x, worst, run.folder / FILE, empty.shows)
    if (run.folder / FILE).is_file():
        watch.watched.moments.extend(Watched.load(run.folder / FILE).moments[: run.saved])
    shown = subject(
        model.network,
        run.folder.name,
        model.classes,
        shown_x,
        shown_y if isinstance(empty, ClassScores) else None,
        "validation images",
        watched=watch.watched,
        task=run.config["data"]["task"],
    )
    with page_beside(shown, said=output.say):
        yield (watch,)


def worst_of(
    scores: Callable[[], Scores], model: Model, x: np.ndarray, y: np.ndarray, outputs: np.ndarray
) -> list[Mistaken]:
    """The samples that a model mistakes most, with what is seen beside them."""
    found = scores()
    found.check(model)
    found.add(outputs, y, 0)
    return [Mistaken(m.index, m.said, found.beside(*(part[m.index] for part in (x, outputs, y)))) for m in found.worst]
