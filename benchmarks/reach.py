"""What training reaches with no options but the data's name, and how long it takes, start and end included.

    python benchmarks/reach.py --data ../shared/data --json reached.json

Each result is the median of several seeds, each a process of its own: the command `convolve train`, or a script with
scikit-learn's cross-validation. Needs scikit-learn, and PyTorch for the race: pip install 'convolve[sklearn,peers]'.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from peers import machine

FOLDS = """
import json, sys
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, cross_val_score
from convolve.sklearn import Classifier
digits, seed = load_digits(), int(sys.argv[1])
folds = StratifiedKFold(5, shuffle=True, random_state=seed)
scores = cross_val_score(Classifier(random_state=seed), digits.images, digits.target, cv=folds)
print(json.dumps({"accuracy": scores.mean()}))
"""
PEER = Path(__file__).with_name("train_torch.py")
TORCH = ("eager", "channels_last")
WANTED = 0.99
"""Accuracy that the race is run to."""


@dataclass(frozen=True)
class Goal:
    """A data set, what is to be reached on it, and within how many seconds."""

    data: str
    accuracy: float
    seconds: float
    known: bool = True
    """Whether convolve knows the data by name; others are a path below the folder of data."""


GOALS = {
    "mnist": Goal("mnist", 0.995, 60),
    "fashion-mnist": Goal("fashion-mnist", 0.935, 360),
    "spoken digits": Goal("fsdd/fsdd_8k.npz", 0.97, 240, known=False),
    "digits": Goal("scikit-learn's digits", 0.99, 60),
}


@dataclass(frozen=True)
class Reached:
    """Accuracy and seconds of each seed."""

    name: str
    accuracy: list[float]
    seconds: list[float]


@dataclass(frozen=True)
class Race:
    """Seconds of each round to the wanted accuracy, and the accuracies, by who ran."""

    epochs: int
    seconds: dict[str, list[float]]
    accuracy: dict[str, list[float]]

    @property
    def ratio(self) -> float:
        """Ours by the fastest PyTorch's."""
        ours, *theirs = (median(self.seconds[name]) for name in ("convolve", *TORCH))
        return ours / min(theirs)


def timed(command: Sequence[str], data: Path) -> tuple[dict[str, Any], float]:
    """What a process prints as JSON, and how long it takes."""
    environment = os.environ | {"CONVOLVE_DATA": str(data)}
    before = perf_counter()
    made = subprocess.run([sys.executable, *command], env=environment, check=True, capture_output=True, text=True)
    return json.loads(made.stdout), perf_counter() - before


def reach(name: str, seeds: Sequence[int], data: Path) -> Reached:
    goal = GOALS[name]
    found = []
    for seed in seeds:
        with TemporaryDirectory() as folder:
            if name == "digits":
                result, seconds = timed(["-c", FOLDS, str(seed)], data)
                accuracy = result["accuracy"]
            else:
                given = goal.data if goal.known else str(data / goal.data)
                result, seconds = timed(_training(given, seed, f"{folder}/run"), data)
                accuracy = result["test"]["accuracy"]
        click.echo(f"{name}, seed {seed}: {accuracy:.2%} in {seconds:.1f} s", err=True)
        found.append((accuracy, seconds))
    return Reached(name, [accuracy for accuracy, _ in found], [seconds for _, seconds in found])


def race(seeds: Sequence[int], data: Path, threads: int) -> Race:
    """MNIST with as few epochs as reach the accuracy, beside the same recipe in PyTorch, taking turns."""
    epochs = 1
    while median(turn(epochs, seed, data, threads, ())["convolve"][0] for seed in seeds) < WANTED:
        epochs += 1
    turns = [turn(epochs, seed, data, threads, TORCH) for seed in seeds]
    accuracy, seconds = ({name: [one[name][i] for one in turns] for name in turns[0]} for i in (0, 1))
    return Race(epochs, seconds, accuracy)


def turn(epochs: int, seed: int, data: Path, threads: int, modes: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Accuracy and seconds of the command, and then of PyTorch's modes with the settings of that run."""
    with TemporaryDirectory() as folder:
        run, shared = Path(folder, "run"), ("--threads", str(threads))
        command = _training("mnist", seed, str(run))
        result, seconds = timed([*command, "--alone", "--epochs", str(epochs), *shared], data)
        made = {"convolve": (float(result["test"]["accuracy"]), seconds)}
        for mode in modes:
            result, seconds = timed([str(PEER), str(run / "config.json"), "--mode", mode, *shared], data)
            made[mode] = (float(result["accuracy"]), seconds)
    for name, (accuracy, seconds) in made.items():
        click.echo(f"{epochs} epochs, {name}: {accuracy:.2%} in {seconds:.1f} s", err=True)
    return made


def _training(data: str, seed: int, out: str) -> list[str]:
    return ["-m", "convolve", "train", data, "--json", "--quiet", "--seed", str(seed), "--out", out]


def show(results: Sequence[Reached], raced: Race | None) -> None:
    """Print both tables as Markdown."""
    console = Console(width=140)
    table = Table(title="Reached", box=box.MARKDOWN)
    for heading in ("data", "accuracy, each seed", "median", "wanted", "seconds, each seed", "median", "limit"):
        table.add_column(heading, justify="left" if heading == "data" else "right")
    for result in results:
        goal = GOALS[result.name]
        table.add_row(
            result.name,
            ", ".join(f"{100 * value:.2f}" for value in result.accuracy),
            f"{median(result.accuracy):.2%}",
            f"{goal.accuracy:.1%}",
            ", ".join(f"{value:.0f}" for value in result.seconds),
            f"{median(result.seconds):.0f}",
            f"{goal.seconds:.0f}",
        )
    if results:
        console.print(table)
    if raced:
        table = Table(title=f"MNIST to {WANTED:.1%}: {raced.epochs} epochs", box=box.MARKDOWN)
        for heading in ("", "seconds, each round", "median", "accuracy, median"):
            table.add_column(heading, justify="right" if heading else "left")
        for name, seconds in raced.seconds.items():
            shown = "convolve" if name == "convolve" else f"PyTorch {name}"
            each = ", ".join(f"{value:.1f}" for value in seconds)
            table.add_row(shown, each, f"{median(seconds):.1f}", f"{median(raced.accuracy[name]):.2%}")
        console.print(table)
        console.print(f"convolve takes {raced.ratio:.2f} of the time of the faster PyTorch; wanted 0.5, goal 0.33")


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--only", default=",".join([*GOALS, "race"]), show_default=True, help="What to measure, with commas.")
@click.option("--seeds", default="0,1,2", show_default=True, help="Seeds, with commas.")
@click.option("--threads", default=2, show_default=True, help="Of both sides of the race.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path("../shared/data"),
    show_default=True,
    help="Folder with fashion-mnist/ and fsdd/.",
)
@click.option("--json", "path", type=click.Path(path_type=Path), help="File for the results.")
def main(only: str, seeds: str, threads: int, data: Path, path: Path | None) -> None:
    names = only.split(",")
    if unknown := set(names) - {*GOALS, "race"}:
        raise click.BadParameter(f"{', '.join(sorted(unknown))}: choose from {', '.join(GOALS)}, race")
    numbers = [int(seed) for seed in seeds.split(",")]
    results = [reach(name, numbers, data.resolve()) for name in names if name != "race"]
    raced = race(numbers, data.resolve(), threads) if "race" in names else None
    facts = machine(threads)
    click.echo(", ".join(f"{name} {value}" for name, value in facts.items()))
    show(results, raced)
    if path:
        found = {"machine": facts, "results": [asdict(r) for r in results], "race": asdict(raced) if raced else None}
        path.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
