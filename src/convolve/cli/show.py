"""`convolve summary` and `convolve explain`: a net's layers, and where its time goes."""

from __future__ import annotations

from convolve import zoo
from convolve.cli.find import find_model, find_net
from convolve.cli.output import Output
from convolve.view.summary import summarise


def summary(model: str, audit: bool, quiet: bool, as_json: bool) -> None:
    """Print a net's table of layers."""
    output = Output(quiet, as_json)
    if model in zoo.NETS:
        entry = zoo.NETS[model]
        found = summarise(entry.make(), entry.input_shape, audit)
    else:
        found = find_model(model).model.summary(audit)
    if as_json:
        output.give(found.as_dict())
    else:
        output.result(found)


def explain(model: str, batch_size: int, training: bool, threads: int | None, quiet: bool, as_json: bool) -> None:
    """Print a program's kernel calls with their times, as measured now."""
    output = Output(quiet, as_json)
    found = find_net(model, threads).model.explain(batch_size, training)
    if as_json:
        output.give(found.as_dict())
    else:
        output.result(found)
