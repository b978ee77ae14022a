"""The benchmark's nets in PyTorch, layer for layer, and a training step as PyTorch's users write it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
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
    """`main` and a way around it, a projection where the shape changes (He et al. 2016, option B)."""

    def __init__(self, main: Sequence[nn.Module], channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.main = nn.Sequential(*main)
        projected = stride != 1 or channels != filters
        self.shortcut = nn.Sequential(*convolution(channels, filters, 1, stride)) if projected else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.main(x) + self.shortcut(x))


class Around(nn.Sequential):
    """x + what the modules make of it."""

    def forward(self, input: Tensor) -> Tensor:
        made = input
        for module in self:
            made = module(made)
        return input + made


class Beside(nn.ModuleList):
    """What each of the modules makes of the input, channels behind channels."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([module(x) for module in self], 1)


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


def basic(channels: int, filters: int, stride: int) -> list[nn.Module]:
    return [
        *(*convolution(channels, filters, 3, stride, padding=1), nn.ReLU()),
        *convolution(filters, filters, 3, padding=1),
    ]


def bottleneck(channels: int, filters: int, stride: int) -> list[nn.Module]:
    inside = filters // 4
    return [
        *(*convolution(channels, inside, 1), nn.ReLU()),
        *(*convolution(inside, inside, 3, stride, padding=1), nn.ReLU()),
        *convolution(inside, filters, 1),
    ]


Main = Callable[[int, int, int], list[nn.Module]]


def stages(main: Main, counts: Sequence[int], first: int, channels: int) -> list[nn.Module]:
    """Stages of blocks; each but the first begins with a stride of 2 and doubles the filters."""
    blocks: list[nn.Module] = []
    for stage, count in enumerate(counts):
        filters = first * 2**stage
        for block in range(count):
            stride = 2 if stage and not block else 1
            blocks.append(Block(main(channels, filters, stride), channels, filters, stride))
            channels = filters
    return blocks


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


def digits() -> nn.Module:
    return nn.Sequential(
        *(*convolution(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(*convolution(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(*convolution(32, 64, 3, padding=1), nn.ReLU(), Flatten(64, 7, 7), nn.Linear(3136, 10)),
    )


def cifar_resnet(depth: int) -> nn.Module:
    return nn.Sequential(
        *(*convolution(3, 16, 3, padding=1), nn.ReLU()),
        *stages(basic, ((depth - 2) // 6,) * 3, 16, 16),
        *(nn.AdaptiveAvgPool2d(1), Flatten(64, 1, 1), nn.Linear(64, 10)),
    )


def imagenet_resnet(main: Main, counts: Sequence[int], first: int, classes: int = 1000) -> nn.Module:
    return nn.Sequential(
        *(*convolution(3, 64, 7, 2, padding=3), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)),
        *stages(main, counts, first, 64),
        *(nn.AdaptiveAvgPool2d(1), Flatten(8 * first, 1, 1), nn.Linear(8 * first, classes)),
    )


def vgg(
    counts: Sequence[int],
    size: int = 1,
    classes: int = 1000,
    batch_norm: bool = False,
    hidden: int = 4096,
    dropout: float = 0.5,
) -> nn.Module:
    """`counts`: convolutions of each stage; `size`: what is left of the image's, 1 of 32."""
    layers: list[nn.Module] = []
    channels = 3
    for count, filters in zip(counts, (64, 128, 256, 512, 512), strict=True):
        for _ in range(count):
            norm = [nn.BatchNorm2d(filters)] if batch_norm else []
            layers += [nn.Conv2d(channels, filters, 3, padding=1), *norm, nn.ReLU()]
            channels = filters
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(
        *(*layers, Flatten(512, size, size)),
        *(nn.Linear(512 * size * size, hidden), nn.ReLU(), nn.Dropout(dropout)),
        *(nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, classes)),
    )


def inverted(channels: int, expansion: int, filters: int, stride: int) -> nn.Module:
    inside = channels * expansion
    expand = [*convolution(channels, inside, 1), nn.ReLU6()] if expansion > 1 else []
    kind = Around if stride == 1 and channels == filters else nn.Sequential
    return kind(
        *expand,
        *(*convolution(inside, inside, 3, stride, padding=1, groups=inside), nn.ReLU6()),
        *convolution(inside, filters, 1),
    )


def mobilenet_v2(classes: int = 1000, dropout: float = 0.2) -> nn.Module:
    blocks: list[nn.Module] = []
    channels = 32
    for expansion, filters, count, stride in (
        *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
        *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
    ):
        for block in range(count):
            blocks.append(inverted(channels, expansion, filters, 1 if block else stride))
            channels = filters
    return nn.Sequential(
        *(*convolution(3, 32, 3, 2, padding=1), nn.ReLU6(), *blocks, *convolution(320, 1280, 1), nn.ReLU6()),
        *(nn.AdaptiveAvgPool2d(1), Flatten(1280, 1, 1), nn.Dropout(dropout), nn.Linear(1280, classes)),
    )


def fire(channels: int, squeezed: int, expanded: int) -> nn.Module:
    one = nn.Sequential(nn.Conv2d(squeezed, expanded, 1), nn.ReLU())
    three = nn.Sequential(nn.Conv2d(squeezed, expanded, 3, padding=1), nn.ReLU())
    return nn.Sequential(nn.Conv2d(channels, squeezed, 1), nn.ReLU(), Beside([one, three]))


def squeezenet(classes: int = 1000, dropout: float = 0.5) -> nn.Module:
    def pool() -> nn.Module:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    return nn.Sequential(
        *(nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool()),
        *(fire(64, 16, 64), fire(128, 16, 64), pool(), fire(128, 32, 128), fire(256, 32, 128), pool()),
        *(fire(256, 48, 192), fire(384, 48, 192), fire(384, 64, 256), fire(512, 64, 256)),
        *(nn.Dropout(dropout), nn.Conv2d(512, classes, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )


def m5(filters: Sequence[int] = (128, 128, 256, 512)) -> nn.Module:
    a, b, c, d = filters
    return nn.Sequential(
        *(*convolution(1, a, 80, 4, rank=1), nn.ReLU(), nn.MaxPool1d(4)),
        *(*convolution(a, b, 3, rank=1), nn.ReLU(), nn.MaxPool1d(4)),
        *(*convolution(b, c, 3, rank=1), nn.ReLU(), nn.MaxPool1d(4)),
        *(*convolution(c, d, 3, rank=1), nn.ReLU(), nn.MaxPool1d(4)),
        *(nn.AdaptiveAvgPool1d(1), Flatten(d, 1), nn.Linear(d, 10)),
    )


def pooled(channels: int, filters: int, kernel: int, padding: int = 0) -> list[nn.Module]:
    conv, norm = convolution(channels, filters, kernel, padding=padding)
    return [conv, nn.MaxPool2d(2), norm, nn.ReLU()]


def glyphs() -> nn.Module:
    return nn.Sequential(
        *(*pooled(1, 16, 5), *pooled(16, 32, 3, padding=1)),
        *(*convolution(32, 64, 3), nn.ReLU(), *convolution(64, 128, 3), nn.ReLU()),
        *(Flatten(128, 2, 2), nn.Linear(512, 10)),
    )


def small() -> nn.Module:
    return nn.Sequential(
        *(*pooled(1, 32, 5), *convolution(32, 48, 3, padding=1), nn.ReLU(), *pooled(48, 48, 3, padding=1)),
        double(2, 48, 96),
        *(nn.AdaptiveAvgPool2d(1), Flatten(96, 1, 1), nn.Linear(96, 10)),
    )


def thumbnails() -> nn.Module:
    return nn.Sequential(
        *(*pooled(1, 32, 5), *convolution(32, 48, 3, padding=1), nn.ReLU(), *pooled(48, 48, 3, padding=1)),
        Block(basic(48, 48, 1), 48, 48, 1),
        *(*convolution(48, 96, 3), nn.ReLU(), *convolution(96, 192, 3), nn.ReLU()),
        *(Flatten(192, 2, 2), nn.Linear(768, 10)),
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


def autoencoder(classes: int = 1) -> nn.Module:
    return nn.Sequential(
        *(*convolution(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(*convolution(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 4, 1)),
        *(nn.ConvTranspose2d(4, 32, 2, 2), *convolution(32, 32, 3, padding=1), nn.ReLU()),
        *(nn.ConvTranspose2d(32, 16, 2, 2), *convolution(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, classes, 1)),
    )


NETS: dict[str, Callable[..., nn.Module]] = {
    "autoencoder": autoencoder,
    **{
        build.__name__: build
        for build in (
            mlp,
            lenet5,
            mnist_cnn,
            digits,
            glyphs,
            small,
            thumbnails,
            m5,
            cnn3d,
            unet,
            squeezenet,
            mobilenet_v2,
        )
    },
    "m5_narrow": partial(m5, (32, 64, 128, 256)),
    **{f"resnet{depth}": partial(cifar_resnet, depth) for depth in (20, 32, 56)},
    "resnet18": partial(imagenet_resnet, basic, (2, 2, 2, 2), 64),
    "resnet34": partial(imagenet_resnet, basic, (3, 4, 6, 3), 64),
    "resnet50": partial(imagenet_resnet, bottleneck, (3, 4, 6, 3), 256),
    "resnet101": partial(imagenet_resnet, bottleneck, (3, 4, 23, 3), 256),
    "vgg11": partial(vgg, (1, 1, 2, 2, 2)),
    "vgg13": partial(vgg, (2, 2, 2, 2, 2)),
    "vgg16": partial(vgg, (2, 2, 3, 3, 3)),
    "vgg19": partial(vgg, (2, 2, 4, 4, 4)),
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
        self, net: nn.Module, mode: str, x: np.ndarray, y: np.ndarray, *, rate: float, momentum: float, threads: int
    ) -> None:
        torch.set_num_threads(threads)
        layout = LAYOUTS[x.ndim] if mode == "channels_last" else torch.contiguous_format
        self.net = net.train()
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
