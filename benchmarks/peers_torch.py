"""The benchmark's nets in PyTorch, layer for layer, and a training step as PyTorch's users write it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

CONV: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSE: dict[int, type[nn.Module]] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORM: dict[int, type[nn.Module]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOL: dict[int, type[nn.Module]] = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
"""PyTorch's modules by rank."""


class Flatten(nn.Flatten):
    """Flattens a feature map and remembers its (channels, *spatial): convolve flattens channels last."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = shape


class Block(nn.Module):
    """Two 3x3 convolutions and a way around them, a projection where the shape changes (He et al. 2016, option B)."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            *convolution(channels, filters, 3, stride, padding=1),
            nn.ReLU(),
            *convolution(filters, filters, 3, padding=1),
        )
        projected = stride != 1 or channels != filters
        self.shortcut = nn.Sequential(*convolution(channels, filters, 1, stride)) if projected else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.main(x) + self.shortcut(x))


class Up(nn.Module):
    """A level of a U-Net: down, through `inner`, up again, and on with what was there before."""

    def __init__(self, rank: int, channels: int, filters: int, inner: nn.Module) -> None:
        super().__init__()
        self.before = double(rank, channels, filters)
        self.inner = nn.Sequential(POOL[rank](2), inner, TRANSPOSE[rank](2 * filters, filters, 2, stride=2))
        self.after = double(rank, 2 * filters, filters)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        made: Tensor = self.after(torch.cat([x, self.inner(x)], 1))
        return made


def convolution(
    channels: int, filters: int, kernel: int, stride: int = 1, padding: int = 0, groups: int = 1, rank: int = 2
) -> list[nn.Module]:
    conv = CONV[rank](channels, filters, kernel, stride, padding, groups=groups, bias=False)
    return [conv, NORM[rank](filters)]


def double(rank: int, channels: int, filters: int) -> nn.Module:
    return nn.Sequential(
        *(*convolution(channels, filters, 3, padding=1, rank=rank), nn.ReLU()),
        *(*convolution(filters, filters, 3, padding=1, rank=rank), nn.ReLU()),
    )


def stages(widths: Sequence[int], depth: int) -> list[nn.Module]:
    """Stages of `depth` blocks; each but the first begins with a stride of 2."""
    channels = (widths[0], *widths)
    return [
        Block(channels[i] if first else width, width, 2 if first and i else 1)
        for i, width in enumerate(widths)
        for first in [True] + [False] * (depth - 1)
    ]


def mlp() -> nn.Module:
    return nn.Sequential(Flatten(1, 28, 28), nn.Linear(784, 100, bias=False), nn.ReLU(), nn.Linear(100, 10, bias=False))


def lenet5() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), Flatten(16, 5, 5)),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


def mnist_cnn() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), Flatten(64, 12, 12)),
        *(nn.Linear(9216, 128), nn.ReLU(), nn.Linear(128, 10)),
    )


def resnet20() -> nn.Module:
    return nn.Sequential(
        *(*convolution(3, 16, 3, padding=1), nn.ReLU()),
        *stages((16, 32, 64), depth=3),
        *(nn.AdaptiveAvgPool2d(1), Flatten(64, 1, 1), nn.Linear(64, 10)),
    )


def resnet18() -> nn.Module:
    return nn.Sequential(
        *(*convolution(3, 64, 7, 2, padding=3), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)),
        *stages((64, 128, 256, 512), depth=2),
        *(nn.AdaptiveAvgPool2d(1), Flatten(512, 1, 1), nn.Linear(512, 1000)),
    )


def m5() -> nn.Module:
    return nn.Sequential(
        *(*convolution(1, 128, 80, 4, rank=1), nn.ReLU(), nn.MaxPool1d(4)),
        *(*convolution(128, 128, 3, rank=1), nn.ReLU(), nn.MaxPool1d(4)),
        *(*convolution(128, 256, 3, rank=1), nn.ReLU(), nn.MaxPool1d(4)),
        *(*convolution(256, 512, 3, rank=1), nn.ReLU(), nn.MaxPool1d(4)),
        *(nn.AdaptiveAvgPool1d(1), Flatten(512, 1), nn.Linear(512, 10)),
    )


def cnn3d() -> nn.Module:
    return nn.Sequential(
        *(*convolution(1, 16, 3, padding=1, rank=3), nn.ReLU(), nn.MaxPool3d(2)),
        *(*convolution(16, 32, 3, padding=1, rank=3), nn.ReLU(), nn.MaxPool3d(2)),
        *(*convolution(32, 64, 3, padding=1, rank=3), nn.ReLU(), nn.MaxPool3d(2)),
        *(nn.AdaptiveAvgPool3d(1), Flatten(64, 1, 1, 1), nn.Linear(64, 10)),
    )


def unet(rank: int = 2, channels: int = 3, filters: int = 16, depth: int = 3) -> nn.Module:
    inner = double(rank, filters * 2 ** (depth - 1), filters * 2**depth)
    for level in reversed(range(depth)):
        inner = Up(rank, filters * 2 ** (level - 1) if level else channels, filters * 2**level, inner)
    return nn.Sequential(inner, CONV[rank](filters, 2, 1))


NETS: dict[str, Callable[[], nn.Module]] = {
    build.__name__: build for build in (mlp, lenet5, mnist_cnn, resnet20, resnet18, m5, cnn3d, unet)
}
LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}
"""Channels last, by how many dimensions an input has. In PyTorch, signals have no such layout."""


def load(net: nn.Module, parameters: Sequence[np.ndarray]) -> None:
    """Copy convolve's parameters into `net`, in order, each brought from convolve's layout to PyTorch's.

    Both list a layer's weight before its bias, and a block's main path before its shortcut.
    """
    flattened: tuple[int, ...] = ()
    arrays = iter(parameters)
    for module in net.modules():
        if isinstance(module, Flatten):
            flattened = module.shape
        for name, target in module.named_parameters(recurse=False):
            array = next(arrays)
            if array.ndim > 2:  # (filters, *kernel, channels of a group), transposed: (channels, *kernel, filters)
                array = np.moveaxis(array, -1, 1)
            elif array.ndim == 2 and array.shape[1] == prod(flattened):  # (units, features in channels-last order)
                channels, *size = flattened
                array = np.moveaxis(array.reshape(-1, *size, channels), -1, 1).reshape(array.shape)
                flattened = ()
            if array.shape != target.shape:
                raise ValueError(f"{module} takes {name} of {tuple(target.shape)}. Received: {array.shape}")
            with torch.no_grad():
                target.copy_(torch.from_numpy(np.array(array)))
    left = sum(1 for _ in arrays)
    if left:
        raise ValueError(f"{left} parameters more than the net takes")


class TorchTrainer:
    """SGD with momentum on one batch; mode is eager, channels_last or compile."""

    def __init__(
        self, net: str, mode: str, x: np.ndarray, y: np.ndarray, *, rate: float, momentum: float, threads: int
    ) -> None:
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        layout = LAYOUTS[x.ndim] if mode == "channels_last" else torch.contiguous_format
        self.net = NETS[net]().train()
        self.net.to(memory_format=layout)  # type: ignore[call-overload]  # missing in PyTorch's annotations
        self.x = torch.from_numpy(x).movedim(-1, 1).contiguous(memory_format=layout)
        self.y = torch.from_numpy(y)
        self.forward: Callable[[Tensor], Tensor] = torch.compile(self.net) if mode == "compile" else self.net
        self.optimizer = torch.optim.SGD(self.net.parameters(), rate, momentum=momentum)

    def load(self, parameters: Sequence[np.ndarray]) -> None:
        load(self.net, parameters)

    def step(self) -> float:
        self.optimizer.zero_grad()
        loss = functional.cross_entropy(self.forward(self.x), self.y)
        loss.backward()
        self.optimizer.step()
        return loss.item()
