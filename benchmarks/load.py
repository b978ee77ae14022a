"""How long training waits for pictures: 224x224 JPEGs decoded while resnet18 trains, beside PyTorch's loader.

    python benchmarks/load.py

The pictures are smooth random ones of 320x256, written as JPEG. convolve decodes them ahead of the training in threads
(`convolve.data.loader`), PyTorch in a DataLoader with two worker processes; both by Pillow, with the same filter. Each
turn is one epoch in a fresh process, the kinds take turns. `first`: nothing is decoded yet; `second`: the epoch after
it, where convolve finds its copies. Waiting is the time between asking for a batch and having it; the first batch of
an epoch, which nothing can hide, is counted apart. Needs PyTorch: pip install 'convolve[peers]'.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import click
import numpy as np
from PIL import Image
from rich import box
from rich.console import Console
from rich.table import Table

SIDE = 224
CLASSES = 2
EPOCHS = ("first", "second")


def write_pictures(folder: Path, count: int) -> None:
    """Noise of a few large spots, as photos have them, with a little of every pixel's own."""
    random = np.random.default_rng(0)
    for i in range(count):
        place = folder / f"class{i % CLASSES}"
        place.mkdir(exist_ok=True)
        spots = Image.fromarray(random.integers(0, 256, (8, 10, 3), np.uint8)).resize(
            (320, 256), Image.Resampling.BICUBIC
        )
        grain = random.integers(-8, 9, (256, 320, 3))
        picture = np.clip(np.asarray(spots).astype(int) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(place / f"{i:05}.jpg", quality=90)


def listed(folder: Path) -> tuple[list[Path], np.ndarray]:
    paths = sorted(folder.rglob("*.jpg"))
    return paths, np.array([int(path.parent.name[-1]) for path in paths])


def ours(folder: Path, net: str, batch: int) -> list[dict[str, float]]:
    """Two epochs: seconds in all, until the first batch, and waiting after it."""
    from convolve import Model, optim, zoo
    from convolve.data.files import Labelled
    from convolve.data.kinds import ImageForm
    from convolve.data.loader import Loader
    from convolve.training.feed import Feed

    paths, y = listed(folder)
    loader = Loader(
        [Labelled(p, int(label), p.name) for p, label in zip(paths, y, strict=True)], ImageForm((SIDE, SIDE, 3))
    )
    model = Model(zoo.NETS[net].make(classes=CLASSES), (SIDE, SIDE, 3))
    trainer = model.trainer(optimizer=optim.SGD(0.01, momentum=0.9))
    trainer.step(np.zeros((batch, SIDE, SIDE, 3), np.uint8), np.zeros(batch, np.int64))
    made = []
    for epoch in range(len(EPOCHS)):
        feed = Feed(loader, y.astype(np.int64), batch)
        began, first = perf_counter(), 0.0
        for position, images, labels in feed.epoch(np.random.default_rng(epoch).permutation(len(paths))):
            first = first or feed.waited
            trainer.step(images, labels)
            assert position < len(paths)
        made.append({"seconds": perf_counter() - began, "first": first, "waiting": feed.waited - first})
    return made


class Pictures:
    """A data set as PyTorch's loader takes it."""

    def __init__(self, folder: Path) -> None:
        self.paths, self.y = listed(folder)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        import torch

        with Image.open(self.paths[index]) as image:
            small = np.array(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
        return torch.from_numpy(small).permute(2, 0, 1).float().div_(255), int(self.y[index])


def theirs(folder: Path, net: str, batch: int) -> list[dict[str, float]]:
    """The same by PyTorch, eager."""
    import torch
    from torch.nn.functional import cross_entropy
    from torch.utils.data import DataLoader

    from peers_torch import NETS

    torch.set_num_threads(2)
    model = NETS[net](classes=CLASSES)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)

    def step(images: torch.Tensor, labels: torch.Tensor) -> None:
        optimizer.zero_grad()
        cross_entropy(model(images), labels).backward()
        optimizer.step()

    step(torch.zeros(batch, 3, SIDE, SIDE), torch.zeros(batch, dtype=torch.int64))
    loader: DataLoader[Any] = DataLoader(
        Pictures(folder),  # type: ignore[arg-type]
        batch,
        shuffle=True,
        num_workers=2,
        persistent_workers=True,
    )
    made = []
    for _ in EPOCHS:
        began, waited, first = perf_counter(), 0.0, 0.0
        batches = iter(loader)
        for _ in range(len(loader)):
            asked = perf_counter()
            images, labels = next(batches)
            waited += perf_counter() - asked
            first = first or waited
            step(images, labels)
        made.append({"seconds": perf_counter() - began, "first": first, "waiting": waited - first})
    return made


KINDS = {"convolve": ours, "PyTorch, two workers": theirs}


@click.command()
@click.option("--pictures", default=96, help="How many there are.")
@click.option("--batch", default=16, help="Pictures a step.")
@click.option("--rounds", default=3, help="Turns of each.")
@click.option("--net", default="resnet18", help="What is trained: a net of ImageNet's.")
@click.option("--child", hidden=True)
@click.option("--folder", hidden=True)
def main(pictures: int, batch: int, rounds: int, net: str, child: str | None, folder: str | None) -> None:
    """Print seconds of waiting, as medians of the turns."""
    if child is not None and folder is not None:
        print(json.dumps(KINDS[child](Path(folder), net, batch)))
        return
    found: dict[str, list[list[dict[str, float]]]] = {kind: [] for kind in KINDS}
    with TemporaryDirectory() as place:
        root = Path(place) / "pictures"
        root.mkdir()
        write_pictures(root, pictures)
        for turn in range(rounds):
            for kind in KINDS:
                environment = os.environ | {"CONVOLVE_COPIES": str(Path(place) / f"copies{turn}")}
                arguments = ["--child", kind, "--folder", str(root), "--batch", str(batch), "--net", net]
                command = [sys.executable, __file__, *arguments]
                printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
                found[kind].append(json.loads(printed.splitlines()[-1]))
    table = Table("epoch", "of", "seconds", "first batch", "waiting after it", "of the time", box=box.MARKDOWN)
    for number, epoch in enumerate(EPOCHS):
        for kind, turns in found.items():
            middle = {key: median(turn[number][key] for turn in turns) for key in ("seconds", "first", "waiting")}
            share = f"{middle['waiting'] / middle['seconds']:.2%}"
            numbers = [f"{middle[key]:.3f}" for key in ("seconds", "first", "waiting")]
            table.add_row(epoch, kind, *numbers, share)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
