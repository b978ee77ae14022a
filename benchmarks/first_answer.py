"""From an ONNX file to its first answer: seconds and memory of convolve and of ONNX Runtime, in fresh processes.

    python benchmarks/first_answer.py --nets squeezenet --json results.json

A process imports NumPy, makes its input, looks at the clocks, and then imports its peer, loads the file and answers
once. The peers take turns; one turn before the first warms convolve's kernel cache and Python's bytecode, which is kept
as users have it. Beside the time that passed it tells the processor time of all threads, which a busy machine disturbs
less. The nets are those of infer.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import click
from rich import box
from rich.console import Console
from rich.table import Table

from infer import CASES, file_of
from peers import machine

PROLOGUE = """
import json, sys, time
import numpy as np
path, shape, threads = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
x = np.random.default_rng(0).standard_normal(shape, np.float32)
began = time.perf_counter(), time.process_time()
"""
EPILOGUE = """
spent = time.perf_counter() - began[0], time.process_time() - began[1]
status = open("/proc/self/status").read().split()
print(json.dumps([*spent, int(status[status.index("VmHWM:") + 1]) / 1024]))
"""
PEERS = {
    "convolve": """
from convolve import from_onnx
from_onnx(path, threads=threads).predict(x)
""",
    "onnxruntime": """
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
session.run(None, {session.get_inputs()[0].name: x})
""",
}


@dataclass(frozen=True)
class Load:
    """Seconds that passed, seconds of the processor, and MB, each the median of the turns."""

    seconds: float
    processor: float
    memory: float


def once(peer: str, path: Path, shape: tuple[int, ...], threads: int) -> list[float]:
    code = PROLOGUE + PEERS[peer] + EPILOGUE
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", code, str(path), json.dumps(shape), str(threads)]
    return list(json.loads(subprocess.run(command, env=kept, capture_output=True, text=True, check=True).stdout))


def measure(name: str, folder: Path, threads: int, rounds: int) -> dict[str, Load]:
    path, shape = file_of(name, folder), CASES[name].shape
    turns = [{peer: once(peer, path, shape, threads) for peer in PEERS} for _ in range(rounds + 1)][1:]
    return {peer: Load(*(median(turn[peer][i] for turn in turns) for i in range(3))) for peer in PEERS}


def show(results: dict[str, dict[str, Load]]) -> None:
    """Print the table as Markdown; ratios are ONNX Runtime's by ours."""
    table = Table(box=box.MARKDOWN)
    for heading in (
        "net",
        *(f"{peer}, {unit}" for unit in ("s", "processor s", "MB") for peer in PEERS),
        "time",
        "memory",
    ):
        table.add_column(heading, justify="left" if heading == "net" else "right")
    for name, found in results.items():
        ours, theirs = found["convolve"], found["onnxruntime"]
        table.add_row(
            *(name, f"{ours.seconds:.2f}", f"{theirs.seconds:.2f}", f"{ours.processor:.2f}", f"{theirs.processor:.2f}"),
            *(f"{ours.memory:.0f}", f"{theirs.memory:.0f}"),
            *(f"{theirs.processor / ours.processor:.2f}", f"{theirs.memory / ours.memory:.2f}"),
        )
    Console(width=200).print(table)


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--nets", default=";".join(CASES), show_default=True, help="Nets to measure, separated by semicolons.")
@click.option("--rounds", default=3, show_default=True, help="Turns of each peer.")
@click.option("--threads", default=2, show_default=True)
@click.option("--files", type=click.Path(path_type=Path), help="Folder that keeps the nets' files.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="File for the results.")
def main(nets: str, rounds: int, threads: int, files: Path | None, path: Path | None) -> None:
    names = nets.split(";")
    if unknown := set(names) - set(CASES):
        raise click.BadParameter(f"{', '.join(sorted(unknown))}: choose from {'; '.join(CASES)}", param_hint="--nets")
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = files or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            click.echo(f"{name} ...", err=True)
            results[name] = measure(name, folder, threads, rounds)
    facts = machine(threads, ("numpy", "llvmlite", "onnxruntime"))
    click.echo(", ".join(f"{name} {value}" for name, value in facts.items()))
    show(results)
    if path:
        loads = {name: {peer: asdict(load) for peer, load in found.items()} for name, found in results.items()}
        path.write_text(json.dumps({"machine": facts, "results": loads}, indent=2))


if __name__ == "__main__":
    main()
