"""`convolve evaluate`: a model measured on a data set."""

from __future__ import annotations

import numpy as np

from convolve.cli.find import data_for, find_model, views_of, with_test_part
from convolve.cli.output import Output, count, percent
from convolve.cli.scores import Scores
from convolve.data.dataset import Dataset
from convolve.source import Rows, joined


def evaluate(
    model: str,
    data: str,
    everything: bool,
    views: str | None,
    strict: bool,
    threads: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Print what a model reaches on the test images of a set, or on all its images."""
    output = Output(quiet, as_json)
    found = find_model(model, threads, images=True)
    seen = views_of(views)
    dataset = data_for(found.model, data, output, strict, found.rate)
    x, y, part = _images(dataset, everything)
    scores = Scores.of(found.model, x, y, dataset.classes, seen)
    if as_json:
        output.give({"model": model, "data": data, "part": part, **scores.as_dict()})
    elif quiet:
        output.result(percent(scores.accuracy))
    else:
        output.say(f"{model} on {count(scores.images, 'image')} of {data}, {part}\n")
        output.say(f"accuracy  {percent(scores.accuracy)}")
        output.say(f"loss      {scores.loss:.4f}\n")
        output.say(scores.class_table())
        output.say(f"\n{scores.confused_table()}")


def _images(dataset: Dataset, everything: bool) -> tuple[Rows, np.ndarray, str]:
    if everything:
        if dataset.x_test is None or dataset.y_test is None:
            return dataset.x_train, dataset.y_train, "all that there are"
        x = joined(dataset.x_train, dataset.x_test)
        return x, np.concatenate([dataset.y_train, dataset.y_test]), "its training and test parts"
    dataset, held = with_test_part(dataset)
    assert dataset.x_test is not None
    assert dataset.y_test is not None
    return dataset.x_test, dataset.y_test, "the fifth that training leaves out" if held else "its test part"
