"""`convolve runs`: the runs of a folder side by side, and what they were told otherwise."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convolve.cli.output import Output, duration, printable
from convolve.cli.run import CONFIG, METRICS, RESULTS, Run
from convolve.cli.scores import KINDS, shown, spoken
from convolve.errors import FileError
from convolve.training.fit import History
from convolve.view.text import table

MOST_COMPARED = 12
"""Runs up to which their settings are compared."""


@dataclass(frozen=True)
class Line:
    """What a run's folder says."""

    run: str
    data: str
    task: str
    net: str
    epochs: int
    planned: int
    metric: str
    validation: float | None
    """Of the best epoch; None where no epoch was whole."""
    test: float | None
    """None where training has not ended."""
    seconds: float
    settings: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        return dict(vars(self))

    def cells(self) -> tuple[str, ...]:
        """The same for people."""
        epochs = str(self.epochs) if self.epochs == self.planned else f"{self.epochs} of {self.planned}"
        values = [shown(self.metric, v) if v is not None else "-" for v in (self.validation, self.test)]
        words = (printable(word) for word in (self.run, self.data, self.net))
        return (*words, epochs, spoken(self.metric), *values, duration(self.seconds))


def runs(folders: tuple[str, ...], quiet: bool, as_json: bool) -> None:
    """Print a line a run, the best of each data set by validation first."""
    output = Output(quiet, as_json)
    lines = sorted((_line(path) for path in _found(folders or ("runs",))), key=_order)
    if as_json:
        output.give([line.as_dict() for line in lines])
    elif quiet:
        output.result("\n".join(line.run for line in lines))
    else:
        heads = ("run", "data", "net", "epochs", "metric", "validation", "test", "time")
        output.say(table(heads, [line.cells() for line in lines], left=3))
        for text in _differences(lines):
            output.say(f"\n{text}")


def _found(folders: Sequence[str]) -> Iterator[Path]:
    """The runs among these folders, and those in them.

    Raises:
        FileError: one holds none.
    """
    for folder in map(Path, folders):
        inside = [folder] if (folder / CONFIG).is_file() else []
        if not inside and folder.is_dir():
            inside = sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))
        if not inside:
            raise FileError(f"{folder}: holds no runs; expected the folder of a run, or one with such folders in it")
        yield from inside


def _line(folder: Path) -> Line:
    config = Run.resumed(folder).config
    settings, data = config["settings"], config["data"]
    task = data.get("task", "classify")
    metric = KINDS[task].metric if task in KINDS else "accuracy"
    history = History(_epochs(folder / METRICS))
    best = history.best
    validation = history.epochs[best - 1].get(f"validation_{metric}") if best else None
    test = _results(folder / RESULTS).get("test", {}).get(metric)
    return Line(
        str(folder),
        str(data.get("name")),
        task,
        str(settings.get("net")),
        len(history),
        int(settings.get("epochs", 0)),
        metric,
        validation,
        test if isinstance(test, float) else None,
        history["seconds"][-1] if len(history) else 0.0,
        settings,
    )


def _epochs(path: Path) -> list[dict[str, float]]:
    """What metrics.csv holds; nothing where no epoch was whole.

    Raises:
        FileError: it is damaged.
    """
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [{name: float(value or "nan") for name, value in row.items()} for row in csv.DictReader(file)]
    except (OSError, ValueError, TypeError) as error:
        raise FileError(f"{path}: cannot be read ({error}); it is not as `convolve train` wrote it") from None


def _results(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise FileError(f"{path}: cannot be read ({error}); it is not as `convolve train` wrote it") from None
    return found if isinstance(found, dict) else {}


def _order(line: Line) -> tuple[str, str, float, str]:
    """By data, then the best first."""
    merit = -math.inf if line.validation is None else line.validation
    return line.data, line.metric, merit if line.metric == "mae" else -merit, line.run


def _differences(lines: Sequence[Line]) -> Iterator[str]:
    """Of the runs on each data set the settings that are not the same in all."""
    for data in dict.fromkeys(line.data for line in lines):
        alike = [line for line in lines if line.data == data]
        names = dict.fromkeys(name for line in alike for name in line.settings)
        differing = [n for n in names if len({json.dumps(line.settings.get(n)) for line in alike}) > 1 and n != "net"]
        if differing and len(alike) <= MOST_COMPARED:
            rows = [(printable(line.run), *(_said(line.settings.get(name)) for name in differing)) for line in alike]
            yield table((f"on {printable(data)}", *(n.replace("_", " ") for n in differing)), rows)


def _said(value: Any) -> str:
    """A setting's value: of augmentations their names."""
    if isinstance(value, list):
        return (
            ", ".join(str(step.get("type", step)) if isinstance(step, dict) else str(step) for step in value) or "none"
        )
    return f"{value:.3g}" if isinstance(value, float) else "-" if value is None else printable(str(value))
