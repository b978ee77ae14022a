"""`convolve datasets`: the sets that have a name."""

from __future__ import annotations

from convolve import data
from convolve.cli.output import Output
from convolve.view.text import table


def datasets(quiet: bool, as_json: bool) -> None:
    """Print names, and where each set is or would come from."""
    output = Output(quiet, as_json)
    names = data.names()
    if as_json:
        output.give(names)
    elif quiet:
        output.result("\n".join(names))
    else:
        output.say(table(("name", "where"), list(names.items()), left=2))
        output.say("\nA folder with one subfolder of images a class, a .npz or a pair of IDX files is a data set, too.")
