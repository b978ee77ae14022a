"""`convolve look`: the page that looks inside a net."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from convolve.cli.find import Found, data_for, find_net
from convolve.cli.output import Output
from convolve.data import read_image
from convolve.data.images import SUFFIXES
from convolve.page.opening import open_page, subject, write_page
from convolve.page.session import Subject

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
    """The model with samples: those of an image file, of a data set, or what there is for nets that take digits."""
    model, title = found.model, Path(found.name).name
    x: Any = None
    y, source = None, ""
    if data is not None and Path(data).suffix.lower() in SUFFIXES:
        x, source = read_image(data, model.input_shape)[None], Path(data).name
    elif data is not None or (model.input_shape == DIGITS and model.output_shape == (10,) and not _floats(found)):
        dataset = data_for(model, data or "mnist", output)
        test = dataset.x_test is not None
        x, y = (dataset.x_test, dataset.y_test) if test else (dataset.x_train, dataset.y_train)
        assert x is not None
        source = f"{dataset.name}, {'test' if test else 'training'} images"
        x, y = np.asarray(x[:MOST]), None if y is None else np.asarray(y[:MOST])
    return subject(model.network, title, model.classes, x, y, source)


def _floats(found: Found) -> bool:
    return found.trained_on == "float32"
