"""`convolve look`: the page that looks inside a net."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from convolve import storage
from convolve.cli.find import ONNX, Found, data_for, find_model, find_net
from convolve.cli.output import Output
from convolve.cli.run import CONFIG, FILTERS, METRICS, MODEL, Run
from convolve.data import names as data_names
from convolve.data import read_image
from convolve.data.images import SUFFIXES
from convolve.model import Model
from convolve.page.opening import open_page, page_beside, subject, write_page
from convolve.page.session import Subject
from convolve.page.watch import FILE, Moment, Watch, Watched
from convolve.source import Rows, batch
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
    model, path = found.model, Path(found.name)
    x: Any = None
    y, source = None, ""
    other = find_model(data, images=True).model.network if data is not None and _is_model(Path(data)) else None
    beside, data = (Path(str(data)).name, None) if other else ("", data)
    if data is not None and Path(data).suffix.lower() in SUFFIXES:
        x, source = read_image(data, model.input_shape)[None], Path(data).name
    elif data := data or _its_data(found):
        dataset = data_for(model, data, output)
        test = dataset.x_test is not None
        x, y = (dataset.x_test, dataset.y_test) if test else (dataset.x_train, dataset.y_train)
        assert x is not None
        x, y = batch(x, 0, MOST), None if y is None else np.asarray(y[:MOST])
        source = f"{dataset.name}, {'test' if test else 'training'} images"
    file = path / MODEL if path.is_dir() else path if path.is_file() else None
    return subject(model.network, path.name, model.classes, x, y, source, file, _training(path), other, beside)


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
    nothing = np.zeros((0, 1), np.float32)
    layer, kept = None, {}
    for file_of in sorted((path / FILTERS).glob("*.safetensors")):
        tensors, header = storage.load(file_of)
        for name, weight in tensors.items():
            layer, kept[header.get("epoch")] = name.rpartition(".")[0], weight
    moments = [Moment(row, kept.get(epoch, nothing), nothing, ()) for epoch, row in enumerate(rows, 1)]
    return Watched(layer, moments)


@contextmanager
def watched(
    run: Run, model: Model, x: Rows, y: np.ndarray, looked: bool, output: Output
) -> Iterator[tuple[Callback, ...]]:
    """The page while a model is trained, if it is `looked` at, and what training has to call for it.

    x and y are what mistakes are looked for among: the validation images.
    """
    if not looked:
        yield ()
        return
    shown_x, shown_y = batch(x, 0, MOST), np.asarray(y[:MOST])
    watch = Watch(model.network, shown_x, shown_y, run.folder / FILE)
    if (run.folder / FILE).is_file():
        watch.watched.moments.extend(Watched.load(run.folder / FILE).moments[: run.saved])
    source = "validation images"
    shown = subject(model.network, run.folder.name, model.classes, shown_x, shown_y, source, watched=watch.watched)
    with page_beside(shown, said=output.say):
        yield (watch,)
