"""The recipe of a run of `convolve train mnist` in PyTorch, as its users write it for speed.

    python benchmarks/train_torch.py runs/mnist-digits-1/config.json --mode channels_last

Tensors lie in memory, each batch is augmented at once, the optimizer is fused, the average moves all parameters in one
call. Nothing is validated, saved or reported. Prints the accuracy on the test images.
"""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from peers_torch import LAYOUTS, NETS

MNIST = Path(__file__).parents[1] / "src/convolve/data/files/mnist"


def idx(name: str) -> Tensor:
    data = gzip.decompress((MNIST / f"{name}.gz").read_bytes())
    rank = data[3]
    shape = np.frombuffer(data, ">i4", rank, 4).tolist()
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape).copy())


def started(name: str, layout: torch.memory_format) -> nn.Module:
    """The net with he_normal weights and no biases, as convolve starts it."""
    net = NETS[name]()
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return net.to(memory_format=layout)  # type: ignore[call-overload,no-any-return]  # missing in PyTorch's annotations


def rate_factor(schedule: dict[str, Any], step: int, steps: int) -> float:
    """One cycle: half a cosine up, half a cosine down."""
    part = step / max(1, steps - 1)
    low, high, part = (
        (schedule["start"], 1.0, part / schedule["warm"])
        if part < schedule["warm"]
        else (1.0, schedule["final"], (part - schedule["warm"]) / (1 - schedule["warm"]))
    )
    return float(high + (low - high) * 0.5 * (1 + math.cos(math.pi * part)))


def augmented(x: Tensor, steps: list[dict[str, dict[str, Any]]]) -> Tensor:
    """A batch turned, moved, scaled and sheared: an affine map of each image, all at once."""
    for step in steps:
        [(name, numbers)] = step.items()
        if name != "Affine" or numbers["fill"] != "zero":
            raise click.ClickException(f"{name} {numbers}: this peer knows Affine with zeros around alone; add it here")
        drawn = torch.rand(5, len(x)) * 2 - 1
        angle = math.radians(numbers["rotate"]) * drawn[0]
        least, most = map(math.log, numbers["scale"])
        inverse = torch.exp(-(least + (most - least) * (drawn[1] + 1) / 2))
        cos, sin = torch.cos(angle) * inverse, torch.sin(angle) * inverse
        moved = 2 * numbers["shift"] * drawn[2:4]
        shear = torch.tan(math.radians(numbers["shear"]) * drawn[4])
        rows = [[cos + sin * shear, cos * shear - sin, moved[0]], [sin, cos, moved[1]]]
        maps = torch.stack([torch.stack(row, 1) for row in rows], 1)
        grid = functional.affine_grid(maps, list(x.shape), align_corners=False)
        x = functional.grid_sample(x, grid, align_corners=False)
    return x


def train(config: dict[str, Any], layout: torch.memory_format) -> nn.Module:
    """The net after all steps, its parameters and statistics averaged as the recipe says."""
    settings, recipe = config["settings"], config["recipe"]
    if settings["optimizer"] != "adamw":
        raise ValueError(f"PyTorch's side trains by adamw. Received: a run by {settings['optimizer']}")
    adamw, schedule = recipe["optimizers"]["adamw"], recipe["schedule"] | {"final": settings["final"]}
    torch.manual_seed(settings["seed"])
    images, labels = idx("train-images-idx3-ubyte")[:, None].float() / 255, idx("train-labels-idx1-ubyte").long()
    kept = torch.randperm(len(images))[recipe["most_held_out"] :]  # as many are held out as there
    images, labels = images[kept], labels[kept]

    net = started(settings["net"], layout)
    decayed = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim < 2]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(
        groups,
        settings["rate"],
        betas=(adamw["beta1"], adamw["beta2"]),
        weight_decay=adamw["weight_decay"],
        fused=True,
    )
    moving = [t.detach() for t in (*net.parameters(), *net.buffers()) if t.is_floating_point()]
    average = [t.clone() for t in moving]

    size = settings["batch_size"]
    steps = settings["epochs"] * -(-len(images) // size)
    step = 0
    for _ in range(settings["epochs"]):
        for chosen in torch.randperm(len(images)).split(size):
            x = augmented(images[chosen], settings.get("augment", [])).contiguous(memory_format=layout)
            rate = settings["rate"] * rate_factor(schedule, step, steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
            loss = functional.cross_entropy(net(x), labels[chosen], label_smoothing=settings["smoothing"])
            loss.backward()
            optimizer.step()
            if settings["average"]:
                torch._foreach_lerp_(average, moving, 1 - min(settings["average"], step / (step + 9)))
            step += 1
    if settings["average"]:
        torch._foreach_copy_(moving, average)
    return net


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.argument("config", type=click.Path(exists=True, path_type=Path))
@click.option("--mode", type=click.Choice(["eager", "channels_last"]), default="eager", show_default=True)
@click.option("--threads", default=2, show_default=True)
def main(config: Path, mode: str, threads: int) -> None:
    torch.set_num_threads(threads)
    layout = LAYOUTS[4] if mode == "channels_last" else torch.contiguous_format
    net = train(json.loads(config.read_text()), layout).eval()
    images, labels = idx("t10k-images-idx3-ubyte")[:, None].float() / 255, idx("t10k-labels-idx1-ubyte").long()
    with torch.inference_mode():
        right = sum(
            int((net(x).argmax(1) == y).sum()) for x, y in zip(images.split(1000), labels.split(1000), strict=True)
        )
    click.echo(json.dumps({"accuracy": right / len(images)}))


if __name__ == "__main__":
    main()
