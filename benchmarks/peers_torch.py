"""The benchmark's nets in PyTorch, layer for layer, and a training step as PyTorch's users write it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


class Flatten(nn.Flatten):
    """Flattens a feature map and remembers its (channels, height, width): convolve flattens channels last."""

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


def convolution(channels: int, filters: int, kernel: int, stride: int = 1, padding: int = 0) -> list[nn.Module]:
    return [nn.Conv2d(channels, filters, kernel, stride, padding, bias=False), nn.BatchNorm2d(filters)]


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


NETS: dict[str, Callable[[], nn.Module]] = {
    build.__name__: build for build in (mlp, lenet5, mnist_cnn, resnet20, resnet18)
}


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
            if array.ndim == 4:  # (filters, kernel, kernel, channels)
                array = array.transpose(0, 3, 1, 2)
            elif array.ndim == 2 and array.shape[1] == prod(flattened):  # (units, features in channels-last order)
                channels, height, width = flattened
                array = array.reshape(-1, height, width, channels).transpose(0, 3, 1, 2).reshape(array.shape)
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
        layout = torch.channels_last if mode == "channels_last" else torch.contiguous_format
        self.net = NETS[net]().train()
        self.net.to(memory_format=layout)  # type: ignore[call-overload]  # missing in PyTorch's annotations
        self.x = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=layout)
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
