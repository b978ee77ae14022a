"""Whole nets against PyTorch: output, loss, gradients and steps of its optimizers, from the same weights."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from helpers import Array

from convolve import Model, optim, zoo

torch: Any = pytest.importorskip("torch")

TOLERANCE = 1e-4
"""Largest difference over the largest element of an array."""
CHANGE_TOLERANCE = 1e-3
"""Largest difference over the largest change of an array, beside the rounding of the array itself."""
FLIPS = 3e-2
"""Likewise in a deep net, where a ReLU or two flip with the last bit: PyTorch differs as much from its own float64."""
STEPS = 5


def benchmarks() -> ModuleType:
    """The benchmark's nets: the same mapping between layouts serves both."""
    path = Path(__file__).parents[2] / "benchmarks" / "peers_torch.py"
    spec = importlib.util.spec_from_file_location("peers_torch", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["peers_torch"] = module
    spec.loader.exec_module(module)
    return module


peers: Any = benchmarks()
DEEP = ("resnet20", "unet")
CASES = {
    # net: input, small where the net takes any
    "mlp": (28, 28, 1),
    "lenet5": (28, 28, 1),
    "mnist_cnn": (28, 28, 1),
    "resnet20": (32, 32, 3),
    "m5": (2300, 1),
    "cnn3d": (9, 8, 12, 1),
    "unet": (24, 16, 3),
}
BATCH = 6


class Pair:
    """A net here and there, with the same weights and one batch."""

    def __init__(self, name: str) -> None:
        self.name, shape = name, CASES[name]
        self.model = Model(getattr(zoo, name)(normalize=False), shape, seed=3)
        self.net = peers.NETS[name]().train()
        peers.load(self.net, list(self.model.parameters.values()))
        random = np.random.default_rng(0)
        self.x = random.standard_normal((BATCH, *shape), np.float32)
        *positions, classes = self.model.output_shape
        self.y = random.integers(0, classes, (BATCH, *positions))

    def output(self) -> Any:
        return self.net(torch.from_numpy(self.x).movedim(-1, 1).contiguous())

    def loss(self) -> Any:
        return torch.nn.functional.cross_entropy(self.output(), torch.from_numpy(self.y))

    def theirs(self, arrays: Iterable[Array]) -> dict[str, Array]:
        """Arrays of ours, one a parameter, by PyTorch's names and in its layout."""
        other = peers.NETS[self.name]()
        peers.load(other, list(arrays))
        return {name: value.detach().numpy() for name, value in other.named_parameters()}

    def parameters(self) -> dict[str, Array]:
        """PyTorch's, copied."""
        return {name: value.detach().numpy().copy() for name, value in self.net.named_parameters()}

    def statistics(self) -> list[Array]:
        return [
            value.numpy()
            for module in self.net.modules()
            if isinstance(module, tuple(peers.NORM.values()))
            for value in (module.running_mean, module.running_var)
        ]


@pytest.fixture(params=CASES)
def pair(request: pytest.FixtureRequest) -> Pair:
    return Pair(request.param)


def assert_close(got: Array, true: Array, what: str, tolerance: float = TOLERANCE) -> None:
    error, scale = np.abs(got - true).max(), np.abs(true).max()
    assert error <= tolerance * scale, f"{what}: {error:.3g} at scale {scale:.3g}"


def assert_changed_alike(pair: Pair, before: dict[str, Array]) -> None:
    found = pair.theirs(pair.model.parameters.values())
    tolerance = FLIPS if pair.name in DEEP else CHANGE_TOLERANCE
    for name, true in pair.parameters().items():
        error, change = np.abs(found[name] - true).max(), np.abs(true - before[name]).max()
        rounding = 4 * np.finfo(np.float32).eps * np.abs(true).max()
        assert error <= tolerance * change + rounding, f"{name}: {error:.3g}, changed by {change:.3g}"


def test_predictions_are_pytorchs(pair: Pair) -> None:
    pair.net.eval()
    with torch.no_grad():
        assert_close(pair.model.predict(pair.x), pair.output().movedim(1, -1).numpy(), "output")


def test_loss_and_gradients_are_pytorchs(pair: Pair) -> None:
    loss, gradients = pair.model.gradients(pair.x, pair.y)
    expected = pair.loss()
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    found = pair.theirs(gradients.values())
    for name, parameter in pair.net.named_parameters():
        assert_close(found[name], parameter.grad.numpy(), name, FLIPS if pair.name in DEEP else TOLERANCE)


def decayed(net: Any, weight_decay: float) -> list[dict[str, Any]]:
    """PyTorch's groups: weight decay for weights, none for biases and norms."""
    weights = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim == 1]
    return [{"params": weights, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


OPTIMIZERS: dict[str, tuple[optim.Optimizer, Callable[[Any], Any]]] = {
    "sgd": (optim.SGD(0.01), lambda net: torch.optim.SGD(net.parameters(), 0.01)),
    "momentum": (optim.SGD(0.01, momentum=0.9), lambda net: torch.optim.SGD(net.parameters(), 0.01, momentum=0.9)),
    "nesterov": (
        optim.SGD(0.01, momentum=0.8, nesterov=True),
        lambda net: torch.optim.SGD(net.parameters(), 0.01, momentum=0.8, nesterov=True),
    ),
    "adamw": (
        optim.AdamW(1e-3, beta1=0.8, beta2=0.99, epsilon=1e-3, weight_decay=0.1),
        lambda net: torch.optim.AdamW(decayed(net, 0.1), 1e-3, betas=(0.8, 0.99), eps=1e-3),
    ),
    "adam": (optim.Adam(1e-3, epsilon=1e-2), lambda net: torch.optim.Adam(net.parameters(), 1e-3, eps=1e-2)),
    "rmsprop": (
        optim.RMSprop(1e-3, rho=0.8, epsilon=1e-3),
        lambda net: torch.optim.RMSprop(net.parameters(), 1e-3, alpha=0.8, eps=1e-3),
    ),
    "rmsprop, all of it": (
        optim.RMSprop(1e-4, epsilon=1e-2, momentum=0.8, centered=True),
        lambda net: torch.optim.RMSprop(net.parameters(), 1e-4, alpha=0.9, eps=1e-2, momentum=0.8, centered=True),
    ),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_steps_are_pytorchs(pair: Pair, optimizer: str) -> None:
    ours, make = OPTIMIZERS[optimizer]
    trainer, theirs = pair.model.trainer(optimizer=ours), make(pair.net)
    before = pair.parameters()
    for _ in range(1 if pair.name in DEEP else STEPS):
        theirs.zero_grad()
        expected = pair.loss()
        expected.backward()
        theirs.step()
        assert trainer.step(pair.x, pair.y) == pytest.approx(expected.item(), rel=1e-4)
    assert_changed_alike(pair, before)
    for name, true in zip(pair.model.statistics, pair.statistics(), strict=True):
        assert_close(pair.model.statistics[name], true, name)


@pytest.mark.parametrize("limit", [0.1, 1e3])
def test_clipping_is_pytorchs(pair: Pair, limit: float) -> None:
    trainer = pair.model.trainer(optimizer=optim.SGD(0.1, clip=limit))
    theirs = torch.optim.SGD(pair.net.parameters(), 0.1)
    before = pair.parameters()
    pair.loss().backward()
    norm = float(torch.nn.utils.clip_grad_norm_(pair.net.parameters(), limit))
    theirs.step()
    assert (norm > limit) == (limit < 1), "the limits stand on both sides of the norm"
    trainer.step(pair.x, pair.y)
    assert_changed_alike(pair, before)
