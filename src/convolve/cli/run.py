"""A run's folder: what `convolve train` leaves and resumes from. After each whole epoch everything in it is true.

config.json               what the run was told, with the data's digest and exact versions
checkpoint.safetensors    what resumes it: parameters, statistics, the optimizer's arrays and averages; in the header
                          steps, epochs, the epoch under way, and what the random numbers depend on (seed and step)
model.safetensors         the model after the best epoch, by validation images
last.safetensors          the model after the last epoch
metrics.csv               a line an epoch: epoch, loss, accuracy, rate, validation_loss, ..., seconds
curves.svg                the same as a picture
filters/0001.safetensors  the first layer's weight after each epoch, under the parameter's name
tensorboard/              event files, with --tensorboard
results.json, report.html what the best model reaches on the test images, when training has ended
.lock                     held by the process that fills the folder
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import FrameType
from typing import IO, Any

import numpy as np

from convolve import storage
from convolve.cli.lock import LOCK, lock, unlock
from convolve.cli.output import as_json, finite
from convolve.errors import FileError
from convolve.model import Model
from convolve.training.fit import History, Underway
from convolve.training.trainer import Trainer
from convolve.view.curves import curves

MODEL, CHECKPOINT = "model.safetensors", "checkpoint.safetensors"
METRICS, CURVES, CONFIG, RESULTS = "metrics.csv", "curves.svg", "config.json", "results.json"
LAST, REPORT, FILTERS = "last.safetensors", "report.html", "filters"


@dataclass(frozen=True)
class Reached:
    """What a net came to, on the test part."""

    net: str
    parameters: int
    epochs: int
    seconds: float
    metric: str
    score: float

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON, the score under its metric's name."""
        values = asdict(self)
        return values | {values.pop("metric"): values.pop("score")}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What continues a run: arrays by kind and name, steps made, where training stands, the compared net's result."""

    arrays: dict[str, np.ndarray]
    steps: int
    history: History
    compared: Reached | None

    def fill(self, model: Model) -> None:
        """Give a model the parameters and statistics.

        Raises:
            ShapeError, FileError: they are those of another net.
        """
        wanted = {f"parameter:{n}" for n in model.parameters} | {f"statistic:{n}" for n in model.statistics}
        found = {key for key in self.arrays if not key.startswith("state:")}
        if wanted != found:
            raise FileError(
                f"the checkpoint is of another net: only one side has {', '.join(sorted(wanted ^ found)[:4])}"
            )
        for key in found:
            model.network[key] = self.arrays[key]

    @property
    def state(self) -> dict[str, np.ndarray]:
        """The optimizer's arrays."""
        return {key.removeprefix("state:"): a for key, a in self.arrays.items() if key.startswith("state:")}


class Run:
    """A folder that one training run fills, and what that run was begun with."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self.folder, self.config = folder, config
        self.saved = 0
        """Whole epochs that the folder holds."""
        self.steps = 0
        """Steps after which it can be resumed."""
        self._begun: IO[bytes] | None = None
        """The lock of a run that begins."""

    @classmethod
    def begin(cls, out: Path | None, title: str, config: Mapping[str, Any]) -> Run:
        """Make a folder that was not there (or is empty) and write what the run will do.

        Args:
            out: the folder; by default runs/<title>-<n> with the first n that is free.

        Raises:
            FileError: it cannot be made, or holds something.
        """
        run = cls(_made(out) if out else _numbered(Path("runs"), title), config)
        run._begun = lock(run.folder)
        try:
            check_free(run.folder)  # before the lock was ours, another run may have begun and ended
            run._write(CONFIG, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
        except FileError:
            run._give_back(run._begun)
            raise
        return run

    @classmethod
    def resumed(cls, folder: Path) -> Run:
        """The run that a folder was begun with.

        Raises:
            FileError: it is no run's folder, or its config.json is damaged.
        """
        path = folder / CONFIG
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise FileError(f"{folder}: no run to resume; there is no {CONFIG}. Begin one without --resume") from None
        except (OSError, ValueError) as error:
            raise FileError(f"{path}: cannot be read ({error}). Begin a new run") from None
        parts = ("settings", "recipe", "data")
        if not isinstance(config, dict) or not all(isinstance(config.get(part), dict) for part in parts):
            raise FileError(f"{path}: is not the configuration of a run. Begin a new run")
        return cls(folder, config)

    def checkpoint(self) -> Checkpoint | None:
        """What was saved last; None where nothing was.

        Raises:
            FileError: the file is damaged or of another kind.
        """
        path = self.folder / CHECKPOINT
        if not path.exists():
            return None
        arrays, header = storage.load(path)
        steps, epochs, underway, compared = (header.get(key, {}) for key in ("steps", "epochs", "underway", "compared"))
        known = _fits(compared, Reached) or compared is None
        whole = isinstance(epochs, list) and all(map(_metrics, epochs)) and isinstance(steps, int)
        if not known or not whole or not _fits(underway, Underway):
            raise FileError(f"{path}: is not a checkpoint of this version's convolve train. Begin a new run")
        self.saved, self.steps = len(epochs), steps
        metrics = [{name: math.nan if value is None else value for name, value in epoch.items()} for epoch in epochs]
        history = History(metrics, Underway(**underway))
        return Checkpoint(arrays, steps, history, Reached(**compared) if compared else None)

    def save(self, model: Model, trainer: Trainer, history: History, compared: Reached | None) -> None:
        """Write what resumes the run and, after a whole epoch, everything else. Ctrl-C waits until it is done.

        Raises:
            FileError: something cannot be written; what was there before is whole.
        """
        arrays = model.network.arrays() | {f"state:{name}": array for name, array in trainer.state.items()}
        header = {
            "steps": trainer.steps,
            "random": {"seed": trainer.seed, "step": trainer.steps},
            "epochs": finite(history.epochs),
            "underway": finite(asdict(history.underway)),
            "compared": asdict(compared) if compared else None,
        }
        with uninterrupted():
            storage.save(self.folder / CHECKPOINT, arrays, header)
            self.steps = trainer.steps
            if not history.underway.batches:
                self._save_epoch(model, trainer, history)
                self.saved = len(history)

    def _save_epoch(self, model: Model, trainer: Trainer, history: History) -> None:
        with trainer.averaged():
            data = self.config["data"]
            extra = {"trained_on": data["dtype"], "rate": data["rate"], "task": data["task"], "epoch": len(history)}
            if history.best == len(history):
                model.save(self.folder / MODEL, extra)
            model.save(self.folder / LAST, extra)
            first = next(name for name, spec in model.network.specs.items() if len(spec.shape) > 1)
            weight = {first: np.array(model.parameters[first])}
        try:
            (self.folder / FILTERS).mkdir(exist_ok=True)
        except OSError as error:
            raise FileError(f"{self.folder / FILTERS}: cannot be made ({error.strerror})") from None
        storage.save(self.folder / FILTERS / f"{len(history):04}.safetensors", weight, {"epoch": len(history)})
        self._write(METRICS, _as_csv(history))
        title = f"{self.config['settings']['net']} on {self.config['data']['name']}"
        self._write(CURVES, curves(history.epochs, title))

    def best(self, model: Model) -> None:
        """Give a model the arrays of the best epoch."""
        arrays, _ = storage.load(self.folder / MODEL)
        for key, array in arrays.items():
            model.network[key] = array

    def finish(self, results: Mapping[str, Any], report: str) -> None:
        """Write what the run reached, and the page that tells it."""
        self._write(REPORT, report)
        self._write(RESULTS, as_json(results) + "\n")

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Around all that a run does: the folder is its own, and removed where it began and nothing came to be saved.

        Raises:
            FileError: another process fills the folder.
        """
        taken = self._begun or lock(self.folder)
        for left in self.folder.rglob(".convolve-*.tmp"):  # half a file of a process that was killed
            left.unlink(missing_ok=True)
        try:
            yield
        finally:
            self._give_back(taken)

    def _give_back(self, taken: IO[bytes]) -> None:
        if self.steps or not self._begun:
            unlock(taken, remove=False)
            return
        for name in (CONFIG, CHECKPOINT):
            with suppress(OSError):  # a folder that is gone, or not ours to change any more
                (self.folder / name).unlink(missing_ok=True)
        unlock(taken, remove=True)
        with suppress(OSError):  # somebody put something into it
            self.folder.rmdir()

    def _write(self, name: str, text: str) -> None:
        storage.write(self.folder / name, text.encode())


def check_free(folder: Path) -> None:
    """Refuse a folder that a run cannot begin in, before there is a run.

    Raises:
        FileError: it holds something, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise FileError(f"--out {folder}: is a file; choose another name for the folder of the run")
    if folder.is_dir() and any(entry.name != LOCK for entry in folder.iterdir()):
        raise FileError(
            f"--out {folder}: is not empty, and nothing is overwritten; choose another folder, or go on with that run "
            "by --resume"
        )


def _made(folder: Path) -> Path:
    check_free(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"--out {folder}: cannot be made ({error.strerror}); choose another folder") from None
    return folder


def _numbered(parent: Path, title: str) -> Path:
    number = 1
    try:
        parent.mkdir(exist_ok=True)
        while True:
            folder = parent / f"{title}-{number}"
            try:
                folder.mkdir()
            except FileExistsError:
                number += 1
            else:
                return folder
    except OSError as error:
        raise FileError(f"{parent.resolve()}: cannot hold a run ({error.strerror}); choose a folder by --out") from None


def slug(text: str) -> str:
    """A part of a folder's name.

    >>> slug("my digits.npz"), slug("nets/wide.py:net"), slug("nets/wide.py:small")
    ('my-digits', 'wide', 'wide-small')
    """
    base = re.sub(r"\.(npz|gz|py:net|py)\b", "", text.replace("\\", "/").rpartition("/")[2])
    return re.sub(r"[^\w.]+", "-", base).strip("-.") or "data"


def _fits(record: object, cls: type) -> bool:
    """Whether JSON holds the numbers and words of a dataclass."""
    names = {f.name for f in fields(cls)}
    return (
        isinstance(record, dict)
        and set(record) == names
        and all(isinstance(value, (int, float, str)) for value in record.values())
    )


def _metrics(epoch: object) -> bool:
    return (
        isinstance(epoch, dict)
        and isinstance(epoch.get("seconds"), float)
        and all(isinstance(value, (float, type(None))) for value in epoch.values())
    )


def _as_csv(history: History) -> str:
    names = list(dict.fromkeys(name for epoch in history.epochs for name in epoch))
    file = io.StringIO()
    writer = csv.DictWriter(file, ["epoch", *names], lineterminator="\n")
    writer.writeheader()
    writer.writerows({"epoch": number, **epoch} for number, epoch in enumerate(history.epochs, 1))
    return file.getvalue()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the block is done."""
    arrived: list[int] = []

    def later(number: int, frame: FrameType | None) -> None:
        arrived.append(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handled = {number: handler for number, handler in before.items() if callable(handler)}
    for number in handled:
        signal.signal(number, later)
    try:
        yield
    finally:
        for number, handler in handled.items():
            signal.signal(number, handler)
    if arrived:
        raise KeyboardInterrupt
