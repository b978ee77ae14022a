"""`convolve predict`: what a model sees in image files."""

from __future__ import annotations

from typing import Any

import numpy as np

from convolve.augment import Augmentation
from convolve.cli.find import Found, find_model, views_of
from convolve.cli.output import Output, printable
from convolve.cli.scores import probabilities
from convolve.data import read_image
from convolve.errors import DataError

BATCH = 64
MOST = 3
"""Classes that are named for an image."""


def predict(
    model: str, files: tuple[str, ...], views: str | None, threads: int | None, quiet: bool, as_json: bool
) -> None:
    """Print the most probable classes of each file, a line a file."""
    output = Output(quiet, as_json)
    found = find_model(model, threads, images=True)
    if found.trained_on == "float32":
        raise DataError(
            f"{model}: was trained on numbers of a scale that image files (0 to 255) do not have; give it arrays by "
            f"convolve.load({model!r}).predict(array)"
        )
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
    made = probabilities(model, np.stack([read_image(file, model.input_shape) for file in files]), views)
    names = model.classes or tuple(map(str, range(made.shape[-1])))
    rows = []
    for file, row in zip(files, made, strict=True):
        classes = [{"class": names[i], "probability": float(row[i])} for i in np.argsort(-row, kind="stable")[:MOST]]
        rows.append({"file": file, **classes[0], "classes": classes})
    return rows
