"""MobileNetV2: inverted residuals around depthwise convolutions."""

from __future__ import annotations

from convolve.layers import BatchNorm, Clip, Conv, Dense, Dropout, GlobalAvgPool, Layer, Residual, Sequential
from convolve.zoo.parts import IMAGENET, Scaling, preprocessing

STAGES = (
    *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)
"""Expansion, filters, blocks and stride of the first block (the paper's t, c, n and s in table 2)."""


def mobilenet_v2(
    classes: int = 1000, width: float = 1.0, dropout: float = 0.2, normalize: Scaling = True
) -> Sequential:
    """MobileNetV2 (Sandler et al., "MobileNetV2: Inverted residuals and linear bottlenecks", 2018).

    3,504,872 parameters with 1000 classes, as torchvision's. `width` multiplies the filters, brought to a multiple of
    8; below 1 the last convolution keeps its 1280 (section 6.1).
    """
    channels = _filters(32 * width)
    layers: list[Layer] = [*_conv(channels, 3, stride=2)]
    for stage, (expansion, filters, blocks, stride) in enumerate(STAGES, 1):
        made = _filters(filters * width)
        for block in range(blocks):
            step, name = 1 if block else stride, f"stage{stage}_{block}"
            body = _inverted(channels, expansion, made, step)
            kept = step == 1 and made == channels
            layers.append(Residual(*body, name=name) if kept else Sequential(*body, name=name))
            channels = made
    return Sequential(
        *preprocessing(normalize, IMAGENET),
        *layers,
        *_conv(_filters(1280 * max(1.0, width)), 1),
        *(GlobalAvgPool(), Dropout(dropout), Dense(classes)),
    )


def _filters(count: float) -> int:
    """The nearest multiple of 8, the next where that is less than nine tenths of `count`."""
    nearest = max(8, int(count + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * count else nearest + 8


def _conv(filters: int, kernel_size: int, stride: int = 1, groups: int | str = 1) -> tuple[Layer, ...]:
    """Convolution, batch norm, ReLU6."""
    conv = Conv(filters, kernel_size, stride, kernel_size // 2, bias=False, groups=groups)
    return (conv, BatchNorm(), Clip(0, 6))


def _inverted(channels: int, expansion: int, filters: int, stride: int) -> tuple[Layer, ...]:
    """Expanded by a 1x1 convolution, filtered channel by channel, brought together by another: no ReLU behind that."""
    inside = channels * expansion
    return (
        *(_conv(inside, 1) if expansion > 1 else ()),
        *_conv(inside, 3, stride, groups="depthwise"),
        *(Conv(filters, 1, padding=0, bias=False), BatchNorm()),
    )
