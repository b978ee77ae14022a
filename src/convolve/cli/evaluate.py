"""`convolve evaluate`: a model measured on a data set."""

from __future__ import annotations

from dataclasses import replace

from convolve.cli import tasks
from convolve.cli.find import data_for, find_model, views_of, with_test_part
from convolve.cli.output import Output, count
from convolve.cli.scores import KINDS, measured, shown, spoken, told
from convolve.cli.sizes import sized_aloud, with_row
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
    net = sized_aloud(found.model, output)
    found = replace(found, model=with_row(net) if found.task == "classify" else net)
    seen = views_of(views)
    dataset = data_for(found, data, output, strict)
    x, y, part = _images(dataset, everything)
    scores = KINDS[found.task](dataset.classes, () if everything else dataset.test_files)
    measured(scores, found.model, x, tasks.targets(found.task, x, y), seen)
    if as_json:
        output.give({"model": model, "data": data, "part": part, "task": found.task, **scores.as_dict()})
    elif quiet:
        output.result(shown(scores.metric, scores.score))
    else:
        output.say(f"{model} on {count(scores.samples, 'image')} of {data}, {part}\n")
        metrics = scores.metrics()
        for name in (scores.metric, *(other for other in metrics if other != scores.metric)):
            output.say(f"{spoken(name):<10}  {shown(name, metrics[name])}")
        for table in scores.tables():
            output.say(f"\n{table}")
        output.say(f"\n{told(scores)}")


def _images(dataset: Dataset, everything: bool) -> tuple[Rows, Rows, str]:
    if everything:
        if dataset.x_test is None or dataset.y_test is None:
            return dataset.x_train, dataset.y_train, "all that there are"
        x = joined(dataset.x_train, dataset.x_test)
        return x, joined(dataset.y_train, dataset.y_test), "its training and test parts"
    dataset, held = with_test_part(dataset)
    assert dataset.x_test is not None
    assert dataset.y_test is not None
    return dataset.x_test, dataset.y_test, "the fifth that training leaves out" if held else "its test part"
