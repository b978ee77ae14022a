"""MODEL, NAME and DATA: what people type, and what it stands for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from convolve import data, storage, zoo
from convolve.augment import Augmentation, Flip, Shift
from convolve.cli.output import Output, count, meant, printable
from convolve.cli.progress import Downloads
from convolve.cli.run import MODEL
from convolve.data.dataset import TASKS, Dataset, Task
from convolve.data.loader import renumbered
from convolve.errors import ConvolveError, DataError, FileError
from convolve.model import Model, from_onnx, load

ONNX = ".onnx"


@dataclass(frozen=True)
class Found:
    """A model, how people call it, and what its file says of the values that it was trained on."""

    model: Model
    name: str
    trained_on: str | None = None
    rate: int | None = None
    """Samples a second of the sounds that it was trained on."""
    task: Task = "classify"
    """What it was trained to do."""


def find_model(text: str, threads: int | None = None, images: bool = False) -> Found:
    """The trained model of a file or of a run's folder.

    With `images` it takes what image files and data sets hold, channels last: of an ONNX file, too.

    Raises:
        FileError: there is none; the message says what was expected.
    """
    path = model_file(text)
    if path.suffix == ONNX:
        model = from_onnx(path, threads=threads)
        return Found(model.channels_last() if images else model, text)
    _, header = storage.load(path)
    extra = header.get("extra")
    kept = extra if isinstance(extra, dict) else {}
    trained_on, rate, task = kept.get("trained_on"), kept.get("rate"), kept.get("task")
    return Found(
        load(path, threads),
        text,
        trained_on if isinstance(trained_on, str) else None,
        rate if isinstance(rate, int) else None,
        task if task in TASKS else "classify",
    )


def model_file(text: str) -> Path:
    """The file of a model: itself, or the one that a run's folder holds.

    Raises:
        FileError: there is none.
    """
    path = Path(text)
    if path.is_dir():
        if not (path / MODEL).is_file():
            raise FileError(
                f"{text}: this folder holds no {MODEL}; expected the folder of a run whose first epoch is done"
            )
        return path / MODEL
    if not path.exists():
        raise FileError(_not_found(text, path))
    return path


def find_net(text: str, threads: int | None = None, images: bool = False) -> Found:
    """As `find_model`, or an untrained net of the zoo; a known name goes before a file of that name."""
    if text in zoo.NETS:
        entry = zoo.NETS[text]
        return Found(Model(entry.make(), entry.input_shape, threads=threads), text)
    return find_model(text, threads, images)


def _not_found(text: str, path: Path) -> str:
    if text in zoo.NETS:
        return (
            f"{text}: a net of the zoo is not trained; expected the model that `convolve train DATA --net {text}` makes"
        )
    siblings = [str(path.parent / entry.name) for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = meant(text, [*zoo.NETS, *siblings])
    return f"{text}: no such file, folder or net.{near} Expected a .safetensors or .onnx file or the folder of a run"


def load_data(
    text: str,
    output: Output,
    size: int | tuple[int, ...] | None = None,
    strict: bool = False,
    list_skipped: bool = True,
    rate: int | None = None,
    task: Task | None = None,
) -> Dataset:
    """A data set; files of a folder brought to `size`. What could not be read is said, or with `strict` an error."""
    resized = size if data.is_files(text) else None
    with Downloads(output) as progress:
        dataset = data.load(text, size=resized, strict=strict, rate=rate, task=task, progress=progress)
    if dataset.skipped and list_skipped:
        many, first = len(dataset.skipped), printable(dataset.skipped[0].reason)
        output.say(
            f"{count(many, 'file')} cannot be read and {'is' if many == 1 else 'are'} left out "
            f"(`convolve datasets {text}` lists all): {first}"
        )
    return dataset


def with_test_part(dataset: Dataset) -> tuple[Dataset, bool]:
    """The set with a test part, always the same, and whether that had to be held out."""
    return (dataset, False) if dataset.x_test is not None else (dataset.split(), True)


def input_size(model: Model) -> tuple[int, ...] | None:
    """What the files of a folder are brought to for a model: its height and width, or its length; None for volumes."""
    *spatial, _ = model.input_shape
    return tuple(spatial) if len(spatial) < 3 else None


def data_for(found: Found, text: str, output: Output, strict: bool = False) -> Dataset:
    """A data set for a model's task whose images and classes are numbered as the model's.

    Raises:
        DataError: it has classes that the model does not know.
    """
    model = found.model
    dataset = load_data(text, output, input_size(model), strict, rate=found.rate, task=found.task)
    known = model.classes or tuple(map(str, range(model.output_shape[-1])))
    if dataset.classes == known or found.task == "autoencode":
        return dataset
    numbered = dataset.classes == tuple(map(str, range(len(dataset.classes))))
    unknown = [name for name in dataset.classes if name not in known]
    if numbered and len(dataset.classes) <= len(known):
        return replace(dataset, classes=known)
    if found.task == "regress" or unknown:
        raise DataError(
            f"{text}: has classes that the model does not know: {_few(unknown)}. It was trained on {_few(known)}"
        )
    places = np.array([known.index(name) for name in dataset.classes])
    parts = {name: getattr(dataset, name) for name in ("y_train", "y_validation", "y_test")}
    one = np.eye(len(known), dtype=np.float32)[places]
    numbers = {
        name: None if y is None else y @ one if found.task == "labels" else renumbered(y, places)
        for name, y in parts.items()
    }
    return replace(dataset, **numbers, classes=known)  # type: ignore[arg-type]


VIEWS: dict[str, Augmentation] = {"flip": Flip(), "flip-vertical": Flip(-2), "shift": Shift(1, "edge")}
"""What --views takes."""


def views_of(text: str | None) -> tuple[Augmentation, ...]:
    """The steps that a command averages predictions over.

    Raises:
        ConvolveError: a word that is none of `VIEWS`.

    >>> views_of("flip,shift")
    (Flip(axis=-1, p=0.5), Shift(amount=1, fill='edge'))
    """
    words = [word.strip() for word in text.split(",")] if text else []
    unknown = [word for word in words if word not in VIEWS]
    if unknown:
        raise ConvolveError(f"--views {text}: expected {', '.join(VIEWS)}, one or more with commas between them")
    return tuple(VIEWS[word] for word in dict.fromkeys(words))


def _few(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
