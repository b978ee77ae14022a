"""The training step of convolve beside PyTorch's: same weights, same batch, same threads, taking turns.

    python benchmarks/train.py --nets lenet5,resnet20 --json results.json

Each peer lives in a process of its own, so that no thread pool disturbs another, and works only when it is told to.
The peers take turns for several rounds: a machine that slows down slows all of them. Needs PyTorch:
pip install 'convolve[peers]'.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Protocol

import click
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from peers import Peer, PeerError, machine, number, peak_memory

TORCH = ("eager", "channels_last", "compile")
OURS = "convolve"
MOMENTUM = 0.9
CHECKED_STEPS, TOLERANCE = 3, 1e-3


@dataclass(frozen=True)
class Case:
    """A net's input and how many times faster than PyTorch it shall train: what is owed and what is wanted."""

    shape: tuple[int, ...]
    batch: int
    classes: int
    floor: float
    goal: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """What makes the net other than it is by default, here and there."""
    rate: float = 0.01
    """Small where a net is so steep that PyTorch's own modes soon part by more than the tolerance."""
    each_pixel: bool = False
    """Whether each position of an image has a label of its own."""

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """One batch of noise with labels of chance, the same in every process."""
        random = np.random.default_rng(0)
        images = random.standard_normal((self.batch, *self.shape), dtype=np.float32)
        labelled = images.shape[:-1] if self.each_pixel else self.batch
        return images, random.integers(0, self.classes, labelled)

    def modes(self, wanted: Sequence[str]) -> list[str]:
        """Of the modes that are wanted, those that there are: PyTorch has no channels-last layout for signals."""
        return [mode for mode in wanted if mode != "channels_last" or len(self.shape) > 2]


SMALL_VGG = {"classes": 10, "dropout": 0.0}
CASES = {
    "mlp": Case((28, 28, 1), batch=64, classes=10, floor=3, goal=4),
    "lenet5": Case((28, 28, 1), batch=64, classes=10, floor=4, goal=6),
    "mnist_cnn": Case((28, 28, 1), batch=128, classes=10, floor=2.8, goal=3.5),
    "resnet20": Case((32, 32, 3), batch=64, classes=10, floor=2.2, goal=2.6),
    "resnet18": Case((224, 224, 3), batch=8, classes=1000, floor=2, goal=2.5),
    "mobilenet_v2": Case((128, 128, 3), 8, classes=1000, floor=1.5, goal=2, options={"dropout": 0.0}, rate=1e-4),
    "vgg11": Case((32, 32, 3), batch=64, classes=10, floor=2.5, goal=3.2, options=SMALL_VGG),
    "m5": Case((16000, 1), batch=16, classes=10, floor=2),
    "cnn3d": Case((24, 24, 24, 1), batch=16, classes=10, floor=2),
    "unet": Case((128, 128, 3), batch=4, classes=2, floor=1.5, each_pixel=True),
}


class Trainer(Protocol):
    """What a peer does: take weights, and one step on its batch that returns the loss."""

    def load(self, parameters: Sequence[np.ndarray]) -> None: ...

    def step(self) -> float: ...


class ConvolveTrainer:
    def __init__(self, net: str, threads: int) -> None:
        from convolve import Model, optim, zoo

        case = CASES[net]
        self.x, self.y = case.data()
        layers = getattr(zoo, net)(normalize=False, **case.options)
        self.model = Model(layers, input_shape=case.shape, seed=0, threads=threads)
        optimizer = optim.SGD(case.rate, momentum=MOMENTUM)
        self.trainer = self.model.trainer(loss="cross_entropy", optimizer=optimizer, batch_size=case.batch)

    def parameters(self) -> list[np.ndarray]:
        return [np.array(value) for value in self.model.parameters.values()]

    def load(self, parameters: Sequence[np.ndarray]) -> None:
        for name, value in zip(self.model.parameters, parameters, strict=True):
            self.model.parameters[name] = value

    def step(self) -> float:
        return float(self.trainer.step(self.x, self.y))


def make_trainer(mode: str, net: str, threads: int) -> Trainer:
    if mode == OURS:
        return ConvolveTrainer(net, threads)
    from peers_torch import NETS, TorchTrainer

    case = CASES[net]
    return TorchTrainer(
        NETS[net](**case.options), mode, *case.data(), rate=case.rate, momentum=MOMENTUM, threads=threads
    )


class Worker:
    """The child's side of a `Peer`: every method may be asked for over the pipe."""

    def __init__(self, mode: str, net: str, threads: int) -> None:
        self.trainer = make_trainer(mode, net, threads)

    def parameters(self) -> list[np.ndarray]:
        assert isinstance(self.trainer, ConvolveTrainer)
        return self.trainer.parameters()

    def load(self, parameters: Sequence[np.ndarray]) -> None:
        self.trainer.load(parameters)

    def losses(self, steps: int) -> list[float]:
        return [self.trainer.step() for _ in range(steps)]

    def times(self, seconds: float, least: int = 3) -> list[float]:
        """Seconds of each step that fits in `seconds`, after one that wakes the threads up."""
        self.trainer.step()
        times = [perf_counter()]
        while times[-1] < times[0] + seconds or len(times) <= least:
            self.trainer.step()
            times.append(perf_counter())
        return [after - before for before, after in pairwise(times)]

    def peak_memory(self) -> float:
        return peak_memory()


@dataclass(frozen=True)
class Result:
    """One net: seconds a step (median of the turns' medians), peak MB by mode, how far apart the first losses were."""

    net: str
    seconds: dict[str, float]
    memory: dict[str, float]
    difference: float

    @property
    def ratio(self) -> float | None:
        """The fastest PyTorch's time by ours."""
        theirs = [seconds for mode, seconds in self.seconds.items() if mode != OURS]
        return min(theirs) / self.seconds[OURS] if OURS in self.seconds and theirs else None


def start(modes: Sequence[str], net: str, threads: int) -> tuple[list[Peer], float]:
    """Peers with the same weights and the largest relative difference of their first losses, which must be small."""
    peers: list[Peer] = []
    losses: list[list[float]] = []
    weights: list[np.ndarray] | None = None
    for mode in modes:
        peer = Peer(Worker, mode, net, threads)
        try:
            if mode == OURS:
                weights = peer.ask("parameters")
            elif weights is not None:
                peer.ask("load", weights)
            losses.append(peer.ask("losses", CHECKED_STEPS))
        except PeerError as error:
            if mode != "compile":
                raise SystemExit(str(error)) from None
            click.echo(f"{net}: left out {error}", err=True)
            peer.close()
        else:
            peers.append(peer)
    difference = float(np.max(np.abs(np.array(losses) / losses[0] - 1)))
    if not difference <= TOLERANCE:
        table = "\n".join(f"  {peer.name}: {loss}" for peer, loss in zip(peers, losses, strict=True))
        raise SystemExit(f"{net}: the peers do not compute the same losses\n{table}")
    return peers, difference


def measure(modes: Sequence[str], net: str, threads: int, rounds: int, seconds: float) -> Result:
    peers, difference = start(CASES[net].modes(modes), net, threads)
    turns = [[median(peer.ask("times", seconds)) for peer in peers] for _ in range(rounds)]
    times = {peer.name: median(column) for peer, column in zip(peers, zip(*turns, strict=True), strict=True)}
    memory = {peer.name: peer.ask("peak_memory") for peer in peers}
    for peer in peers:
        peer.close()
    return Result(net, times, memory, difference)


def show(results: Sequence[Result], modes: Sequence[str]) -> None:
    """Print both tables as Markdown."""
    times = Table(title="Training step, ms", box=box.MARKDOWN)
    memory = Table(title="Peak memory of the process, MB", box=box.MARKDOWN)
    for heading in ("net", "batch", *modes, "ratio", "floor", "goal", "losses differ by"):
        times.add_column(heading, justify="left" if heading == "net" else "right")
    for heading in ("net", *modes):
        memory.add_column(heading, justify="left" if heading == "net" else "right")
    for result in results:
        case = CASES[result.net]
        seconds = {mode: 1e3 * value for mode, value in result.seconds.items()}
        times.add_row(
            *(result.net, str(case.batch), *(number(seconds.get(mode), 3) for mode in modes)),
            *(number(result.ratio, 2), number(case.floor, 1), number(case.goal, 1), f"{result.difference:.0e}"),
        )
        memory.add_row(result.net, *(number(result.memory.get(mode), 0) for mode in modes))
    console = Console(width=140)
    console.print(times, memory)


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--nets", default=",".join(CASES), show_default=True, help="Nets to measure, separated by commas.")
@click.option("--rounds", default=7, show_default=True, help="Turns of each peer.")
@click.option("--seconds", default=1.0, show_default=True, help="Length of a turn.")
@click.option("--threads", default=2, show_default=True)
@click.option("--json", "path", type=click.Path(path_type=Path), help="File for the results.")
@click.option("--skip-compile", is_flag=True, help="Leave out torch.compile, which takes a C++ compiler and a minute.")
@click.option("--only-peers", is_flag=True, help="Leave out convolve.")
def main(
    nets: str, rounds: int, seconds: float, threads: int, path: Path | None, skip_compile: bool, only_peers: bool
) -> None:
    names = nets.split(",")
    if unknown := set(names) - set(CASES):
        raise click.BadParameter(f"{', '.join(sorted(unknown))}: choose from {', '.join(CASES)}", param_hint="--nets")
    ours = () if only_peers else (OURS,)
    modes = (*ours, *(mode for mode in TORCH if not (skip_compile and mode == "compile")))
    results = []
    for net in names:
        click.echo(f"{net} ...", err=True)
        results.append(measure(modes, net, threads, rounds, seconds))
    facts = machine(threads)
    click.echo(", ".join(f"{name} {value}" for name, value in facts.items()))
    show(results, modes)
    if path:
        path.write_text(json.dumps({"machine": facts, "results": [asdict(result) for result in results]}, indent=2))


if __name__ == "__main__":
    main()
