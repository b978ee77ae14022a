"""ONNX files as PyTorch writes them: imported, they give what PyTorch gives, at every size that they leave open."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import normal

from convolve import Model, from_onnx
from convolve.onnx.export import to_bytes

torch: Any = pytest.importorskip("torch")
pytest.importorskip("onnx")
nn, functional = torch.nn, torch.nn.functional

TOLERANCE = 2e-6
"""Largest difference over the largest element."""
OPSET = 17


class UNet(nn.Module):  # type: ignore[misc]
    """Down, up to a size that is asked for when it runs, and across."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.norm, self.bottom = (
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 16, 3, padding=1),
        )
        self.up = nn.Conv2d(24, 4, 3, padding=1)

    def forward(self, x: Any) -> Any:
        across = functional.relu(self.norm(self.down(x)))
        low = functional.relu(self.bottom(functional.max_pool2d(across, 2)))
        high = functional.interpolate(low, size=across.shape[2:], mode="bilinear", align_corners=False)
        return self.up(torch.cat([across, high], 1))


class Excitation(nn.Module):  # type: ignore[misc]
    """A group norm, a depthwise convolution, and channels scaled by what is seen of all."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.depth = (
            nn.Conv2d(3, 8, 3, 2),
            nn.GroupNorm(2, 8),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
        )
        self.narrow, self.wide, self.head = nn.Linear(8, 2), nn.Linear(2, 8), nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        x = functional.silu(self.depth(functional.hardswish(self.norm(self.stem(x)))))
        scale = torch.sigmoid(self.wide(functional.relu(self.narrow(x.mean((2, 3))))))
        x = x * scale[:, :, None, None]
        return functional.softmax(self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1)), 1)


class Turning(nn.Module):  # type: ignore[misc]
    """A block of ConvNeXt: channels are turned to the end for a norm and two products, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depth = nn.Conv2d(3, 16, 4, 4), nn.Conv2d(16, 16, 7, padding=3, groups=16)
        self.norm, self.wide, self.narrow = nn.LayerNorm(16), nn.Linear(16, 64), nn.Linear(64, 16)
        self.scale, self.head = nn.Parameter(torch.full((16,), 0.1)), nn.Linear(16, 5)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        y = self.norm(self.depth(x).permute(0, 2, 3, 1))
        y = self.scale * self.narrow(functional.gelu(self.wide(y)))
        return self.head((x + y.permute(0, 3, 1, 2)).mean([-2, -1]))


class Shuffle(nn.Module):  # type: ignore[misc]
    """Channels that are shuffled, cut in two and joined, reflected borders, and two ways to grow."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 12, 3, padding=1, padding_mode="reflect")
        self.grow = nn.ConvTranspose2d(3, 4, 4, 2, 1)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        n, c, h, w = x.shape
        left, right = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w).chunk(2, 1)
        x = torch.cat([left, functional.leaky_relu(right)], 1)
        return self.grow(functional.pixel_shuffle(self.body(x), 2))


class Attention(nn.Module):  # type: ignore[misc]
    """Patches that look at each other, by two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 4, 4), nn.LayerNorm(16)
        self.three, self.out, self.head = nn.Linear(16, 48), nn.Linear(16, 16), nn.Linear(16, 5)

    def forward(self, x: Any) -> Any:
        x = self.stem(x).flatten(2).transpose(1, 2)
        n, length, c = x.shape
        q, k, v = self.three(self.norm(x)).reshape(n, length, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
        shares = (q @ k.transpose(-2, -1) * c**-0.5).softmax(-1)
        return self.head((x + self.out((shares @ v).transpose(1, 2).reshape(n, length, c))).mean(1))


class Sound(nn.Module):  # type: ignore[misc]
    """One dimension, a dilated convolution, and a pool whose last window is not full."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.slope = nn.Conv1d(3, 8, 9, stride=4), nn.BatchNorm1d(8), nn.PReLU()
        self.body, self.head = nn.Conv1d(8, 8, 3, dilation=2, padding="same"), nn.Linear(8, 3)

    def forward(self, x: Any) -> Any:
        x = self.slope(self.body(functional.elu(self.norm(self.stem(x)))))
        return self.head(functional.max_pool1d(x, 4, ceil_mode=True).amax(-1))


def exported(module: Any, x: np.ndarray, open_: bool) -> bytes:
    """What PyTorch writes of a module: for any batch, and with `open_` for any size."""
    file, axes = io.BytesIO(), {0: "n"} | ({d: f"d{d}" for d in range(2, x.ndim)} if open_ else {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own ways
        torch.onnx.export(
            module,
            (torch.from_numpy(x),),
            file,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": axes, "y": {0: "n"}},
            opset_version=OPSET,
            dynamo=False,
        )
    return file.getvalue()


def assert_alike(module: Any, model: Model, x: np.ndarray) -> None:
    with torch.no_grad():
        true = module(torch.from_numpy(x)).numpy()
    assert np.abs(model.predict(x) - true).max() <= TOLERANCE * np.abs(true).max()


@pytest.mark.parametrize("open_", [False, True], ids=["any batch", "any size"])
@pytest.mark.parametrize("make", [UNet, Excitation, Turning, Shuffle, Attention, Sound])
def test_a_module_gives_the_same(make: Callable[[], Any], open_: bool) -> None:
    torch.manual_seed(0)
    module, shape = make().eval(), (2, 3, 403) if make is Sound else (2, 3, 32, 24)
    model = from_onnx(exported(module, normal(shape), open_))
    assert_alike(module, model, normal(shape))
    larger = tuple(n + 8 if open_ else n for n in shape[2:])
    assert_alike(module, model, normal((3, 3, *larger)))
    if not open_:
        assert_alike(module, from_onnx(to_bytes(model.network, 20)), normal(shape))
