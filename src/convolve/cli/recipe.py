"""How `convolve train` trains unless told otherwise, whatever the data (see `choice`), and the nets that it takes."""

from __future__ import annotations

import importlib.util
import inspect
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convolve import zoo
from convolve.augment import Augmentation, restore
from convolve.cli.output import meant
from convolve.errors import ConvolveError, FileError
from convolve.layers import Layer, Normalize
from convolve.training.optim import Adam, AdamW, Muon
from convolve.training.schedule import OneCycle

BASELINE = "mlp"
ADAMW, MUON = "adamw", "muon"
MOST_STATISTICS = 16
"""Channels up to which each is normalised by numbers of its own."""


@dataclass(frozen=True)
class Recipe:
    """What a run does that nobody gave an option for."""

    least_steps: int
    """A small set is seen more often, until it makes so many steps ..."""
    most_epochs: int
    """... but not more often than this."""
    compared_epochs: int
    """How often the fully-connected net, which is compared, sees the images at most."""
    batch_size: int
    optimizers: Mapping[str, Adam]
    """By the names that --optimizer takes: the steps of all are about as long, so that the same rates fit."""
    schedule: OneCycle
    average: float | None
    """Part that the exponential average of the weights keeps in a step."""
    smoothing: float
    """Of the labels, unless the data are easy."""
    held_out: float
    """Part of the training images that is not trained on but watched (validation) ..."""
    most_held_out: int
    """... and the most images that this part has."""
    head_part: int
    """Of a trained net that is made for other classes, the new head learns alone in one of so many epochs."""
    tuned: float
    """Then all of it learns, the last layer at this part of the rate ..."""
    lowest: float
    """... and the first at this part of that, the rates between falling evenly (`optim.LayerRates.falling`)."""

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON, with the names of the optimizers and the schedule."""
        optimizers = {name: _named(optimizer) for name, optimizer in self.optimizers.items()}
        return asdict(self) | {"optimizers": optimizers, "schedule": _named(self.schedule)}


def _named(spec: Any) -> dict[str, Any]:
    return {"name": type(spec).__name__} | asdict(spec)


RECIPE = Recipe(
    least_steps=1500,
    most_epochs=100,
    compared_epochs=5,
    batch_size=128,
    optimizers={ADAMW: AdamW(5e-3, weight_decay=0.02), MUON: Muon(5e-3, weight_decay=0.02)},
    schedule=OneCycle(),
    average=0.998,
    smoothing=0.1,
    held_out=0.1,
    most_held_out=3000,
    head_part=5,
    tuned=0.5,
    lowest=0.1,
)


def zoo_net(name: str, x: np.ndarray, classes: int) -> Layer:
    """A net of the zoo that takes images as `x` holds them.

    uint8 is scaled by the net's own `Normalize`, or divided by 255 where that is for another number of channels; floats
    are brought to mean 0 and standard deviation 1, each channel by its own over `x`.
    """
    entry = zoo.by_name(name)
    return entry.make(classes=classes, normalize=scaling(entry, x))


def scaling(entry: zoo.Entry, x: np.ndarray) -> Normalize | bool:
    """What a net of the zoo begins with for samples as `x` holds them; True is its own normalisation."""
    if x.dtype != np.uint8:
        return Normalize(*_statistics(x), name="normalize")
    return entry.input_shape[-1] == x.shape[-1] or zoo.BYTES


def _statistics(x: np.ndarray) -> tuple[float | tuple[float, ...], float | tuple[float, ...]]:
    axes = tuple(range(x.ndim - (x.shape[-1] <= MOST_STATISTICS)))
    mean = x.mean(axes, dtype=np.float64)
    squares = sum(np.square(part - mean, dtype=np.float64).sum(axes) for part in np.array_split(x, -(-len(x) // 1024)))
    std = np.sqrt(squares / (x.size / mean.size))
    std = np.where(std > 0, std, 1.0)
    if mean.size == 1:
        return float(mean.item()), float(std.item())
    return tuple(mean.tolist()), tuple(std.tolist())


def chosen_net(text: str, x: np.ndarray, classes: int) -> Layer:
    """The net that --net names: of the zoo, or of a person's own file.

    Raises:
        ConvolveError: there is none of that name.
        FileError: the file cannot be run, or holds no net of that name.
    """
    if text in zoo.NETS:
        return zoo_net(text, x, classes)
    path, colon, name = text.rpartition(":")
    if not colon or not path.endswith(".py"):
        path, name = text, "net"
    if path.endswith(".py"):
        return own_net(Path(path), name, classes)
    raise ConvolveError(
        f"--net {text}: no net of that name.{meant(text, list(zoo.NETS))} There are {', '.join(zoo.NETS)}; a net of "
        "your own is given as FILE.py:net"
    )


def augmentations(text: str) -> tuple[Augmentation, ...]:
    """What --augment names: none, names with commas between, or JSON as config.json has it.

    Raises:
        ConvolveError: there is none of that name.

    >>> augmentations("flip, timemask")
    (Flip(axis=-1, p=0.5), TimeMask(share=0.1, masks=2))
    >>> augmentations("none")
    ()
    """
    if text.lstrip().startswith("["):
        try:
            return restore(json.loads(text))
        except ValueError as error:
            raise ConvolveError(f"--augment {text}: is no JSON ({error})") from None
    known = {name.lower(): cls for name, cls in Augmentation.vocabulary.items()}
    names = [] if text == "none" else [name.strip().lower() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise ConvolveError(
                f"--augment {name}: no augmentation of that name.{meant(name, list(known))} There are none, "
                f"{', '.join(known)}; with numbers of your own as JSON, as a run's config.json has it"
            )
    return tuple(known[name]() for name in names)


_FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ConvolveError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""What running a person's own file may end in."""


def own_net(path: Path, name: str, classes: int) -> Layer:
    """`name` of a person's own Python file, which is run: a layer, or a function of `classes` that makes one.

    Raises:
        FileError: the file is missing, cannot be run, or holds something else.
    """
    if not path.is_file():
        raise FileError(f"{path}: no such file; --net takes a net of the zoo or FILE.py:net")
    path = path.resolve()
    spec = importlib.util.spec_from_file_location(f"convolve_net_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    sys.path.insert(0, str(path.parent))  # as `python FILE.py` has it
    try:
        spec.loader.exec_module(module)
        net = getattr(module, name, None)
        if not isinstance(net, Layer) and inspect.isfunction(net):
            net = net(classes=classes) if "classes" in inspect.signature(net).parameters else net()
    except _FAULTS as error:
        text = error.msg if isinstance(error, SyntaxError) else error
        raise FileError(f"{_place(path, error)}: {type(error).__name__}: {text}") from error
    if isinstance(net, Layer):
        return net
    layers = [key for key, value in vars(module).items() if isinstance(value, Layer)]
    received = f"{name} is {net!r}" if net is not None else f"nothing is named {name}"
    also = f"; it holds {', '.join(layers)}" if layers else ""
    raise FileError(
        f"{path}: {received}{also}. Expected a layer, as in {name} = Sequential(...), or a function of classes that "
        "makes one"
    )


def _place(path: Path, error: BaseException) -> str:
    """The file, and the line of it at which the error arose."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{path}, line {error.lineno}"
    lines = []
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return f"{path}, line {lines[-1]}" if lines else str(path)
