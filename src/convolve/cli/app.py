"""The commands, their options, and what becomes of errors.

What a command does is imported when it is run, so that `convolve --help` is quick.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from types import FrameType
from typing import Any, NoReturn, TextIO, TypeVar

import click

from convolve import __version__
from convolve.errors import ConvolveError

DONE, FAILED, WRONG_USAGE, STOPPED = 0, 1, 2, 130
"""Exit statuses."""

Command = TypeVar("Command", bound=Callable[..., None])


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line, and leave with its exit status."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run the command line: errors that people can cause become one sentence on stderr and an exit status."""
    _open_streams()
    warnings.showwarning = _warn
    signal.signal(signal.SIGTERM, _stop)
    try:
        with commands.make_context("convolve", list(arguments)) as context:
            commands.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as exit:
        return exit.exit_code
    except click.UsageError as error:
        error.show()
        return WRONG_USAGE
    except BrokenPipeError:  # whoever read has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (ConvolveError, OSError, MemoryError) as error:
        click.echo(f"convolve: {_sentence(error)}", err=True)
        return FAILED
    except KeyboardInterrupt as stop:
        click.echo(" ".join(map(str, stop.args)) or "convolve: stopped", err=True)
        return STOPPED
    return DONE


def _open_streams() -> None:
    """A stream that was closed by who started us leads nowhere; a character that one cannot write becomes an escape."""
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _nowhere() -> TextIO:
    return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    click.echo(f"convolve: {message}", err=True)


def _sentence(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "there is not enough memory; use a smaller --batch-size or smaller images"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


# options


def _whole(least: int, most: int) -> Callable[[click.Context, click.Parameter, int | None], int | None]:
    def check(context: click.Context, parameter: click.Parameter, value: int | None) -> int | None:
        if value is not None and not least <= value <= most:
            raise click.BadParameter(f"expected a whole number from {least} to {most}. Received: {value}")
        return value

    return check


def _rate(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not (value > 0 and math.isfinite(value)):
        raise click.BadParameter(f"expected a positive number. Received: {value}")
    return value


def _part(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value < 1:
        raise click.BadParameter(f"expected a number between 0 and 1. Received: {value}")
    return value


def _whole_option(
    name: str, help: str, least: int = 1, most: int = 1_000_000, default: int | None = None
) -> Callable[[Command], Command]:
    return click.option(name, type=int, callback=_whole(least, most), default=default, metavar="N", help=help)


_task = click.option(
    "--task",
    type=click.Choice(["classify", "labels", "regress", "segment", "autoencode"]),
    help="What is to be learnt. [default: what DATA is labelled for]",
)
_quiet = click.option("--quiet", is_flag=True, help="Print nothing but the result itself.")
_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
_version = click.version_option(__version__, prog_name="convolve", message="%(prog)s %(version)s")
_threads = _whole_option("--threads", "Threads to compute with; the result does not depend on it.", most=256)
_strict = click.option("--strict", is_flag=True, help="Stop at the first file that cannot be read.")


class _InOrder(click.Group):
    """Lists its commands in the order that they are written in."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@_version
def commands() -> None:
    """Convolutional neural networks on this computer's CPU: train, use and look into them.

    To begin:  convolve train mnist

    DATA is the name of a known set (see `convolve datasets`), a folder with one subfolder a class of images, WAV files
    or .npy volumes, a folder with images and masks in folders of these names, a CSV of path,label or path,value, a
    Parquet table, a .npz with x_train, y_train, x_test and y_test, or a pair of IDX files as images,labels. MODEL is a
    .safetensors file, an .onnx file or the folder of a training run. NAME is a net of the zoo, for instance digits or
    resnet20.
    """


def _shared(function: Command) -> Command:
    """The options that every command has, after its own."""
    return _quiet(_json(_version(function)))


# commands


@commands.command()
@click.argument("data")
@_task
@click.option("--net", metavar="NAME|FILE.py:net|FILE.onnx", help="The net. [default: chosen from the data]")
@click.option("--from", "start", metavar="MODEL", help="Begin with a trained MODEL, made for the classes of DATA.")
@_whole_option("--head-epochs", "With --from: epochs of the new last layer alone. [default: one in five]", least=0)
@_whole_option("--epochs", "How often every training image is seen.")
@click.option("--out", metavar="DIR", help="Folder of the run. [default: runs/DATA-NET-1, -2, ...]")
@click.option("--resume", is_flag=True, help="Go on with the run in --out from its last checkpoint.")
@_whole_option("--seed", "Chooses the first weights and every order. [default: 0]", least=0, most=2**63 - 1)
@_threads
@_whole_option("--batch-size", "Images a step.")
@_whole_option("--size", "Bring images of a folder to this height and width. [default: theirs, 64 at most]", most=4096)
@click.option("--optimizer", type=click.Choice(["adamw", "muon"]), help="What makes the steps.")
@click.option("--rate", type=float, callback=_rate, metavar="X", help="The highest learning rate.")
@click.option("--final", type=float, callback=_part, metavar="X", help="Part of the rate that the last step has.")
@click.option("--find-lr", is_flag=True, help="Train nothing: show the loss as the rate grows, and suggest one.")
@click.option("--augment", metavar="NAMES", help="none, flip,shift,..., or JSON. [default: chosen from the data]")
@click.option("--average", type=float, callback=_part, metavar="X", help="Average the weights; keep X in each step.")
@click.option("--label-smoothing", "smoothing", type=float, callback=_part, metavar="X", help="Smooth the labels by X.")
@click.option("--balanced", is_flag=True, default=None, help="Weight classes so that all count alike.")
@_whole_option("--patience", "End after N epochs in which validation got no better.")
@click.option("--save-every", type=float, default=3.0, metavar="MIN", help="Minutes between checkpoints. [default: 3]")
@click.option("--alone", is_flag=True, default=None, help="Leave out the fully-connected net.")
@_strict
@click.option("--tensorboard", is_flag=True, help="Write the curves for TensorBoard, too, into the run's folder.")
@click.option("--look", is_flag=True, help="Show it in the browser: curves, filters that form, mistakes.")
@_shared
def train(**options: Any) -> None:
    """Train a net on DATA.

    A fully-connected net is trained beside it, to compare. Ends with what both reach on the test images, which nothing
    before has used, and with a folder that holds the model (model.safetensors), metrics.csv, curves.svg, config.json,
    results.json and a checkpoint to resume from. The model is that of the best epoch, by training images that were held
    out for that (validation); last.safetensors is that of the last one. Ctrl-C keeps the last checkpoint.

    With --from, a trained model gets a last layer for the classes (labels, values, masks) of DATA, which learns alone
    at first; then all layers do, the first ones at a tenth of the last one's rate.
    """
    if options["resume"] and options["out"] is None:
        raise click.UsageError("--resume goes on with the run of a folder: name it by --out DIR.")
    if options["net"] and options["start"]:
        raise click.UsageError("--net names a net that is untrained, --from a trained model: give one of the two.")
    if options["resume"] and options["find_lr"]:
        raise click.UsageError("--find-lr tests rates for a run that has yet to begin; leave out --resume.")
    from convolve.cli.train import Options, train

    train(Options(**options))


@commands.command()
@click.argument("folders", metavar="[FOLDER...]", nargs=-1)
@_shared
def runs(**options: Any) -> None:
    """List training runs, the best on each data set first.

    FOLDER is a run's, or holds such folders: runs by default. Of each run: data, net, epochs, the best validation, what
    it reached on the test part, and the time; below that the settings in which the runs on a data set differ.
    """
    from convolve.cli.runs import runs

    runs(**options)


@commands.command()
@click.argument("model")
@click.argument("data")
@click.option("--all", "everything", is_flag=True, help="Take the training images, too.")
@click.option("--views", metavar="STEP,...", help="Average over flips and shifts: for instance flip or flip,shift.")
@_strict
@_threads
@_shared
def evaluate(**options: Any) -> None:
    """Measure MODEL on the test images of DATA.

    Prints the loss, the accuracy of each class, and the pairs of classes that are confused most. Where a set has no
    test part, the fifth of its images that `convolve train` holds out is taken.
    """
    from convolve.cli.evaluate import evaluate

    evaluate(**options)


@commands.command()
@click.argument("model")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--views", metavar="STEP,...", help="Average over flips and shifts: for instance flip or flip,shift.")
@click.option("--out", metavar="DIR", help="Where masks, or samples as they are given back, are written.")
@_threads
@_shared
def predict(**options: Any) -> None:
    """Say what MODEL sees in image files, or hears in WAV files.

    Prints the three most probable classes of each, a line a file; of other tasks the labels, the values, or how much of
    it each class has: with --out, masks are written, too. Images may have any size, grey or colour, and sounds
    any rate and length; they are brought to what the model takes. Arrays come as .npy files.
    """
    from convolve.cli.predict import predict

    predict(**options)


@commands.command()
@click.argument("model", metavar="MODEL|NAME")
@_shared
@click.option("--audit", is_flag=True, help="For each layer the rule that its padding comes from.")
@click.option("--svg", metavar="OUT.svg", help="Draw the net for a document instead: layers, shapes, branches.")
def summary(**options: Any) -> None:
    """List the layers of a net and what they cost.

    Shapes, true padding, parameters, multiply-adds, and how much of the input each layer sees.
    """
    from convolve.cli.show import summary

    summary(**options)


@commands.command()
@click.argument("model", metavar="MODEL|NAME")
@click.argument("data", metavar="[FILE|DATA|MODEL]", required=False)
@_whole_option("--port", "Where the page is served, or on the next port that is free.", default=8770, most=65535)
@click.option("--html", metavar="FILE", help="Write the page as one file that works offline, and open nothing.")
@click.option("--no-browser", "browser", is_flag=True, flag_value=False, default=True, help="Only print the address.")
@_shared
def look(**options: Any) -> None:
    """Look inside MODEL: a page in the browser that explains it down to one multiplication.

    It shows every layer's activation maps for a picture, its filters, and any value as products and their sum. FILE is
    a picture, DATA a set whose pictures can be chosen; digits come with the package. A second MODEL, another checkpoint
    of the same net, is shown beside the first, what changed most first. The page is served to this computer
    alone, until its tab is closed or Ctrl-C is pressed. Needs: pip install 'convolve[look]'.
    """
    from convolve.cli.look import look

    look(**options)


@commands.command()
@click.argument("model", metavar="MODEL|NAME")
@_whole_option("--batch-size", "Images at once.", default=1)
@click.option("--training", is_flag=True, help="A training step in place of a prediction.")
@click.option("--data", metavar="DATA", help="Training steps on DATA: says how long they wait for it.")
@_threads
@_shared
def explain(**options: Any) -> None:
    """Run a net and say where its time goes.

    Every kernel call with its algorithm, its time, its speed, and that as a share of the most this CPU can do.
    """
    from convolve.cli.show import explain

    explain(**options)


@commands.command()
@click.argument("model", metavar="MODEL|NAME")
@click.argument("out")
@_whole_option("--opset", "Version of ONNX's operators, 18 or newer. [default: 18]")
@click.option(
    "--layout",
    type=click.Choice(["channels_first", "channels_last"]),
    default="channels_first",
    help="Of input and output. [default: channels_first]",
)
@click.option(
    "--dtype", type=click.Choice(["float32", "uint8"]), default="float32", help="Of the input. [default: float32]"
)
@_shared
def export(**options: Any) -> None:
    """Write MODEL to the ONNX file OUT, for any runtime.

    Preprocessing, names of layers and names of classes go with it. Needs the onnx package: pip install
    'convolve[onnx]'.
    """
    from convolve.cli.export import export

    export(**options)


@commands.command()
@_shared
def doctor(**options: Any) -> None:
    """Check that all is well on this computer.

    Versions, CPU, threads, the cache of compiled kernels, and one result compared with its definition.
    """
    from convolve.cli.doctor import doctor

    doctor(**options)


@commands.command()
@click.argument("action", type=click.Choice(["info", "clear", "dir"]))
@_shared
def cache(**options: Any) -> None:
    """Show or empty the cache of compiled kernels.

    info says what it holds, clear empties it, dir prints where it is. Emptying it is safe: kernels are compiled again
    when they are needed.
    """
    from convolve.cli.cache import cache

    cache(**options)


@commands.command()
@click.argument("given", metavar="[DATA]", required=False)
@_task
@click.option("--sheet", metavar="FILE.png", help="Write a picture of some samples of each class.")
@_strict
@_shared
def datasets(**options: Any) -> None:
    """List the data sets that have a name, or say what DATA holds.

    Of DATA: counts, shapes, how many samples each class has, samples that are there twice, in the training and the test
    part for instance, and files that cannot be read.
    """
    from convolve.cli.datasets import datasets

    datasets(**options)
