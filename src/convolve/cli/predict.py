"""`convolve predict`: what a model sees in images, hears in sounds, or makes of arrays in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from convolve.augment import Augmentation
from convolve.cli.find import Found, find_model, views_of
from convolve.cli.output import Output, printable
from convolve.cli.scores import probabilities
from convolve.data.images import SUFFIXES
from convolve.data.kinds import Form, form_for
from convolve.data.waves import SUFFIXES as SOUNDS
from convolve.errors import DataError, ShapeError

BATCH = 64
MOST = 3
"""Classes that are named for an image."""


def predict(
    model: str, files: tuple[str, ...], views: str | None, threads: int | None, quiet: bool, as_json: bool
) -> None:
    """Print the most probable classes of each file, a line a file."""
    output = Output(quiet, as_json)
    found = find_model(model, threads, images=True)
    seen = views_of(views)
    width = max(len(printable(file)) for file in files)
    everything: list[dict[str, Any]] = []
    for start in range(0, len(files), BATCH):
        for row in _rows(found, files[start : start + BATCH], seen):
            if as_json:
                everything.append(row)
            elif quiet:
                output.result(printable(row["class"]))
            else:
                best, *others = (f"{printable(c['class'])} {c['probability']:.1%}" for c in row["classes"])
                output.say(
                    f"{printable(row['file']):{width}}  {best}" + (f"   ({', '.join(others)})" if others else "")
                )
    if as_json:
        output.give(everything)


def _rows(found: Found, files: tuple[str, ...], views: tuple[Augmentation, ...]) -> list[dict[str, Any]]:
    model = found.model
    samples = [_form(found, file).read(Path(file)) for file in files]
    if len({sample.dtype for sample in samples}) > 1:
        raise DataError(f"{', '.join(files[:3])}: are of several kinds; give images, sounds or arrays alone")
    made = probabilities(model, np.stack(samples), views)
    names = model.classes or tuple(map(str, range(made.shape[-1])))
    rows = []
    for file, row in zip(files, made, strict=True):
        classes = [{"class": names[i], "probability": float(row[i])} for i in np.argsort(-row, kind="stable")[:MOST]]
        rows.append({"file": file, **classes[0], "classes": classes})
    return rows


def _form(found: Found, file: str) -> Form:
    """What a file is brought to for a model.

    Raises:
        DataError: an image, for a model that was trained on other numbers than images hold.
        ShapeError: no sample of the model's shape is made of such a file.
    """
    suffix = Path(file).suffix.lower()
    image = suffix not in SOUNDS and suffix != ".npy"  # by its content, whatever its name
    if image and found.trained_on == "float32":
        raise DataError(
            f"{found.name}: was trained on numbers of a scale that image files (0 to 255) do not have; give it arrays "
            f"by convolve.load({found.name!r}).predict(array)"
        )
    shape = found.model.input_shape
    try:
        return form_for(SUFFIXES[0] if image else suffix, shape, found.trained_on or "float32", found.rate)
    except ShapeError as error:
        raise ShapeError(f"{file}: {error}") from None
