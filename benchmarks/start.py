"""How long a person waits: for the import, the help, and the first training step with and without cached kernels.

python benchmarks/start.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import click
from rich import box
from rich.console import Console
from rich.table import Table

IMPORT = """
from time import perf_counter
start = perf_counter()
import convolve
print(perf_counter() - start)
"""

FIRST_STEP = """
from time import perf_counter
start = perf_counter()
import numpy as np
from convolve import Model, optim, zoo
model = Model(zoo.mnist_cnn(normalize=False), input_shape=(28, 28, 1), seed=0)
trainer = model.trainer(loss="cross_entropy", optimizer=optim.SGD(0.01, momentum=0.9), batch_size=128)
trainer.step(np.zeros((128, 28, 28, 1), np.float32), np.zeros(128, np.int64))
print(perf_counter() - start)
"""


def run(*arguments: str, cache: str) -> str:
    """What a fresh Python prints, with its kernel cache in the folder `cache`."""
    environment = os.environ | {"CONVOLVE_CACHE": cache}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def time_import(cache: str) -> float:
    return float(run("-c", IMPORT, cache=cache))


def time_help(cache: str) -> float:
    """The whole process, Python's own start included."""
    before = perf_counter()
    run("-m", "convolve", "--help", cache=cache)
    return perf_counter() - before


def time_warm_step(cache: str) -> float:
    """Imports, model, kernels from the cache, program and step."""
    return float(run("-c", FIRST_STEP, cache=cache))


def time_cold_step(cache: str) -> float:
    """The same with kernels fresh from LLVM."""
    with TemporaryDirectory(dir=cache) as empty:
        return time_warm_step(empty)


MEASURES = {
    "import convolve": (time_import, 0.2),
    "convolve --help": (time_help, 0.3),
    "first step of mnist_cnn, empty kernel cache": (time_cold_step, 4.0),
    "first step of mnist_cnn, warm kernel cache": (time_warm_step, 0.5),
}


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--rounds", default=5, show_default=True, help="Fresh processes of each kind.")
def main(rounds: int) -> None:
    table = Table(title="Start, s (medians of fresh processes)", box=box.MARKDOWN)
    for heading in ("what", "time", "limit"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    missed = []
    with TemporaryDirectory(prefix="convolve-start-") as cache:
        for what, (time, limit) in MEASURES.items():
            time(cache)
            seconds = median(time(cache) for _ in range(rounds))
            table.add_row(what, f"{seconds:.3f}", str(limit))
            if seconds > limit:
                missed.append(what)
    Console(width=120).print(table)
    if missed:
        raise SystemExit(f"above the limit: {', '.join(missed)}")


if __name__ == "__main__":
    main()
