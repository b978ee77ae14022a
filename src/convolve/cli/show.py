"""`convolve summary` and `convolve explain`: a net's layers, and where its time goes."""

from __future__ import annotations

from pathlib import Path

from convolve import zoo
from convolve.cli.find import find_model, find_net, input_size, load_data
from convolve.cli.output import Output
from convolve.cli.sizes import sized_aloud
from convolve.errors import ConvolveError
from convolve.storage import write
from convolve.view.drawing import drawing
from convolve.view.summary import summarise


def summary(model: str, audit: bool, svg: str | None, quiet: bool, as_json: bool) -> None:
    """Print a net's table of layers, or draw it into a file."""
    output = Output(quiet, as_json)
    if svg is not None:
        _draw(model, svg, output)
        return
    if model in zoo.NETS:
        entry = zoo.NETS[model]
        found = summarise(entry.make(), entry.input_shape, audit)
    else:
        found = sized_aloud(find_model(model).model, output).summary(audit)
    if as_json:
        output.give(found.as_dict())
    else:
        output.result(found)


def _draw(model: str, svg: str, output: Output) -> None:
    if Path(svg).suffix.lower() != ".svg":
        raise ConvolveError(f"--svg names the file to write, whose name ends in .svg. Received: {svg}")
    network = sized_aloud(find_net(model).model, output).network
    picture = drawing(network, Path(model).stem).encode()
    write(svg, picture)
    if output.json:
        output.give({"file": svg, "bytes": len(picture)})
    else:
        output.say(f"{svg}: {len(picture) / 1e3:.0f} kB")


def explain(
    model: str, batch_size: int, training: bool, data: str | None, threads: int | None, quiet: bool, as_json: bool
) -> None:
    """Print a program's kernel calls with their times, as measured now."""
    output = Output(quiet, as_json)
    net = sized_aloud(find_net(model, threads).model, output)
    samples = None if data is None else load_data(data, output, input_size(net)).x_train
    found = net.explain(batch_size, training, samples)
    if as_json:
        output.give(found.as_dict())
    else:
        output.result(found)
