"""Inference beside ONNX Runtime and OpenVINO: the same files, the same inputs, the same threads, taking turns.

    python benchmarks/infer.py --nets vgg19,resnet18 --json results.json

Every peer loads the file in a process of its own and works only when it is told to; the peers take turns for several
rounds, so that a machine that slows down slows all of them. Their outputs are held against each other first. ONNX
Runtime runs with all its optimisations, OpenVINO with its latency hint, both in float32. Needs both:
pip install 'convolve[onnx]' onnxruntime openvino.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Protocol

import click
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

import light_models
from peers import Peer, PeerError, machine, number, peak_memory

OURS = "convolve"
RUNTIMES = ("onnxruntime", "openvino")
TOLERANCE = 1e-3
"""Largest difference of two peers' outputs over the largest element."""
REAL = Path(__file__).parents[2] / "shared" / "models"
"""Models from elsewhere, which are not part of the repository."""


@dataclass(frozen=True)
class Case:
    """A file's input, and how many times faster than the faster runtime its net shall answer: owed, and wanted."""

    shape: tuple[int, ...]
    floor: float = 1.0
    goal: float = 1.3
    net: str = ""
    """The zoo's net or the file that it is, where the case has another name."""

    def data(self) -> np.ndarray:
        return np.random.default_rng(0).standard_normal(self.shape).astype(np.float32)


IMAGE = light_models.SHAPE
LIGHT = {name: Case(IMAGE) for name in light_models.NAMES if name != "resnet50"} | {"vgg19": Case(IMAGE, 2.0, 2.4)}
ZOO = {
    "resnet18": Case(IMAGE, 1.5, 1.8),
    "resnet50": Case(IMAGE, 1.1, 1.3),
    "resnet50, 16 images": Case((16, *IMAGE[1:]), 1.1, 1.3, "resnet50"),
    "mobilenet_v2": Case(IMAGE),
}
FILES = {
    "mtcnn_pnet": Case((1, 240, 320, 3)),
    "mtcnn_rnet": Case((1, 24, 24, 3)),
    "mtcnn_onet": Case((1, 48, 48, 3)),
    "ch_ppocr_mobile_v2.0_cls_infer": Case((1, 3, 48, 192)),
    "face_detection_front_128x128_barracuda": Case((1, 128, 128, 3)),
}
CASES = LIGHT | ZOO | {name: case for name, case in FILES.items() if (REAL / f"{name}.onnx").exists()}
MEAN = "geometric mean"


def file_of(name: str, folder: Path) -> Path:
    """The net's ONNX file, made where it is not there yet: weights of chance, the same every time."""
    net = CASES[name].net or name
    if name in FILES:
        return REAL / f"{net}.onnx"
    path = folder / f"{net}.onnx"
    if not path.exists():
        if name in LIGHT:
            path.write_bytes(light_models.with_weights(net))
        else:
            from convolve import Model, zoo

            entry = zoo.by_name(net)
            Model(entry.make(normalize=False), (*CASES[name].shape[2:], 3), seed=0).export_onnx(path)
    return path


class Runtime(Protocol):
    """What a peer does: answer its input."""

    def run(self) -> list[np.ndarray]: ...


class Convolve:
    def __init__(self, path: str, x: np.ndarray, threads: int) -> None:
        from convolve import from_onnx

        self.x, self.model = x, from_onnx(path)
        self.model.network.threads = threads

    def run(self) -> list[np.ndarray]:
        made = self.model.predict(self.x)
        return list(made.values()) if isinstance(made, dict) else [made]


class OnnxRuntime:
    def __init__(self, path: str, x: np.ndarray, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.feeds = {self.session.get_inputs()[0].name: x}

    def run(self) -> list[np.ndarray]:
        return list(self.session.run(None, self.feeds))


class OpenVino:
    def __init__(self, path: str, x: np.ndarray, threads: int) -> None:
        import openvino

        core = openvino.Core()
        model = core.read_model(path)
        model.reshape({model.inputs[0]: x.shape})
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self.request, self.x = core.compile_model(model, "CPU", settings).create_infer_request(), x

    def run(self) -> list[np.ndarray]:
        return [np.array(value) for value in self.request.infer({0: self.x}).values()]


PEERS: dict[str, Callable[[str, np.ndarray, int], Runtime]] = {
    OURS: Convolve,
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
}


class Worker:
    """The child's side of a `Peer`."""

    def __init__(self, peer: str, path: str, x: np.ndarray, threads: int) -> None:
        began = perf_counter()
        self.runtime = PEERS[peer](path, x, threads)
        self.first = self.runtime.run()
        self.load = perf_counter() - began

    def answer(self) -> list[np.ndarray]:
        return self.first

    def loading(self) -> tuple[float, float]:
        """Seconds from file to first answer (the peer's own import included), and the most memory held so far, MB."""
        return self.load, peak_memory()

    def times(self, seconds: float, least: int = 3) -> list[float]:
        """Seconds of each run that fits in `seconds`, after one that wakes the threads up."""
        self.runtime.run()
        times: list[float] = []
        while sum(times) < seconds or len(times) < least:
            began = perf_counter()
            self.runtime.run()
            times.append(perf_counter() - began)
        return times


@dataclass(frozen=True)
class Result:
    """One net: by peer the seconds a run (median of the turns' medians), to load, and MB; how far outputs differ."""

    net: str
    seconds: dict[str, float]
    load: dict[str, float]
    memory: dict[str, float]
    difference: float

    @property
    def ratio(self) -> float:
        """The faster runtime's time by ours."""
        return min(self.seconds[name] for name in RUNTIMES if name in self.seconds) / self.seconds[OURS]


def difference(answers: Mapping[str, Sequence[np.ndarray]]) -> float:
    """Largest difference of any peer's outputs from the runtime's, over the largest element."""
    true = answers[RUNTIMES[0]]
    apart = [
        float(np.abs(a - b).max() / np.abs(b).max())
        for peer, arrays in answers.items()
        for a, b in zip(arrays, true, strict=True)
        if peer != RUNTIMES[0]
    ]
    return max(apart)


def measure(name: str, folder: Path, threads: int, rounds: int, seconds: float) -> Result:
    path, x = str(file_of(name, folder)), CASES[name].data()
    peers = {peer: Peer(Worker, peer, path, x, threads) for peer in PEERS}
    answers: dict[str, list[np.ndarray]] = {}
    for peer in list(peers):
        try:
            answers[peer] = peers[peer].ask("answer")
        except PeerError as error:
            if peer != "openvino":
                raise SystemExit(f"{name}: {error}") from None
            click.echo(f"{name}: left out {peer}: {error}", err=True)
            peers.pop(peer).close()
    apart = difference(answers)
    if not apart <= TOLERANCE:
        raise SystemExit(
            f"{name}: the peers do not compute the same: they differ by {apart:.1e} of the largest element"
        )
    loading = {peer: process.ask("loading") for peer, process in peers.items()}
    turns = [[median(process.ask("times", seconds)) for process in peers.values()] for _ in range(rounds)]
    times = {peer: median(column) for peer, column in zip(peers, zip(*turns, strict=True), strict=True)}
    for process in peers.values():
        process.close()
    load, memory = ({peer: pair[i] for peer, pair in loading.items()} for i in range(2))
    return Result(name, times, load, memory, apart)


def show(results: Sequence[Result]) -> None:
    """Print both tables as Markdown."""
    times = Table(title="A run, ms", box=box.MARKDOWN)
    loads = Table(title="From file to first answer, s, and memory held by then, MB", box=box.MARKDOWN)
    for heading in ("net", *PEERS, "ratio", "floor", "goal", "outputs differ by"):
        times.add_column(heading, justify="left" if heading == "net" else "right")
    for heading in ("net", *(f"{peer}, {unit}" for unit in ("s", "MB") for peer in PEERS)):
        loads.add_column(heading, justify="left" if heading == "net" else "right")
    for result in results:
        case = CASES[result.net]
        times.add_row(
            *(result.net, *(number(_thousand(result.seconds.get(peer)), 3) for peer in PEERS)),
            *(number(result.ratio, 2), str(case.floor), str(case.goal), f"{result.difference:.0e}"),
        )
        loads.add_row(
            result.net,
            *(number(result.load.get(peer), 2) for peer in PEERS),
            *(number(result.memory.get(peer), 0) for peer in PEERS),
        )
    mean = math.exp(sum(math.log(result.ratio) for result in results) / len(results))
    times.add_row(MEAN, *[""] * len(PEERS), number(mean, 2), "1.3", "1.6", "")
    Console(width=160).print(times, loads)


def _thousand(value: float | None) -> float | None:
    return None if value is None else 1e3 * value


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--nets", default=";".join(CASES), show_default=True, help="Nets to measure, separated by semicolons.")
@click.option("--rounds", default=5, show_default=True, help="Turns of each peer.")
@click.option("--seconds", default=0.5, show_default=True, help="Length of a turn.")
@click.option("--threads", default=2, show_default=True)
@click.option("--files", type=click.Path(path_type=Path), help="Folder that keeps the nets' files.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="File for the results.")
def main(nets: str, rounds: int, seconds: float, threads: int, files: Path | None, path: Path | None) -> None:
    names = nets.split(";")
    if unknown := set(names) - set(CASES):
        raise click.BadParameter(f"{', '.join(sorted(unknown))}: choose from {'; '.join(CASES)}", param_hint="--nets")
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = files or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            click.echo(f"{name} ...", err=True)
            results.append(measure(name, folder, threads, rounds, seconds))
    facts: dict[str, Any] = machine(threads, ("numpy", "llvmlite", "onnxruntime", "openvino"))
    click.echo(", ".join(f"{name} {value}" for name, value in facts.items()))
    show(results)
    if path:
        path.write_text(json.dumps({"machine": facts, "results": [asdict(result) for result in results]}, indent=2))


if __name__ == "__main__":
    main()
