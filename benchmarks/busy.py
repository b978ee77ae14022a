"""The training step with a busy process pinned to each core beside it, by the step alone: a polite pool shares.

    python benchmarks/busy.py

convolve's factor must not exceed 3: with one neighbour a core, a fair share is half of the machine. Times are medians;
where a step is shorter than the system's time slice, only the means show how often one had to wait.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import mean, median

import click
from rich import box
from rich.console import Console
from rich.table import Table

from train import OURS, start

NETS = ("mlp", "lenet5")
LIMIT = 3


@contextmanager
def neighbours() -> Iterator[None]:
    """One process on each core that we may use, doing nothing as fast as it can."""
    busy = []
    for core in os.sched_getaffinity(0):
        process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        os.sched_setaffinity(process.pid, {core})
        busy.append(process)
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--rounds", default=5, show_default=True, help="Turns of each peer, alone and beside neighbours.")
@click.option("--seconds", default=1.0, show_default=True, help="Length of a turn.")
@click.option("--threads", default=2, show_default=True)
@click.option("--only-peers", is_flag=True, help="Leave out convolve.")
def main(rounds: int, seconds: float, threads: int, only_peers: bool) -> None:
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit("this system cannot pin a process to a core")
    table = Table(title="Training step, ms", box=box.MARKDOWN)
    for heading in ("net", "peer", "alone", "beside neighbours", "factor", "factor of the means"):
        table.add_column(heading, justify="left" if heading in ("net", "peer") else "right")
    missed = []
    for net in NETS:
        peers, _ = start(("eager",) if only_peers else (OURS, "eager"), net, threads)
        alone: dict[str, list[float]] = {peer.name: [] for peer in peers}
        beside: dict[str, list[float]] = {peer.name: [] for peer in peers}
        for _ in range(rounds):
            for peer in peers:
                alone[peer.name] += peer.ask("times", seconds)
                with neighbours():
                    beside[peer.name] += peer.ask("times", seconds)
        for peer in peers:
            peer.close()
            before, after = alone[peer.name], beside[peer.name]
            factor = median(after) / median(before)
            table.add_row(
                *(net, peer.name, f"{1e3 * median(before):.3f}", f"{1e3 * median(after):.3f}"),
                *(f"{factor:.2f}", f"{mean(after) / mean(before):.2f}"),
            )
            if peer.name == OURS and factor > LIMIT:
                missed.append(net)
    Console(width=120).print(table)
    if missed:
        raise SystemExit(f"above the limit: {', '.join(missed)}")


if __name__ == "__main__":
    main()
