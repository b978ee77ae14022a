"""Whole nets against PyTorch: output, loss, gradients and steps of its optimizers, from the same weights."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from helpers import Array, normal

from convolve import Dense, Model, optim, zoo

torch: Any = pytest.importorskip("torch")

TOLERANCE = 1e-4
"""Largest difference over the largest element of an array."""
CHANGE_TOLERANCE = 1e-3
"""Length of the difference over that of the change of an array, beside the rounding of the array itself."""
LOSS_ROUNDING = 5e-7
"""Of a loss in float32, a difference of numbers as large as the logits: PyTorch is that far from its own float64."""
FLIPS = 5e-2
"""Likewise in a deep net, where a ReLU or two flip with the last bit: PyTorch differs as much from its own float64."""
MANY_FLIPS = 0.2
"""Where batch norm over few values makes more of it: PyTorch differs by 0.04 from its own float64 in resnet50."""
ROUNDING = 1e-5
"""Of the whole gradient's length: an array may be off by as much, as where its true gradient is zero."""
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


@dataclass(frozen=True)
class Case:
    """A net of the zoo at a size that takes little time."""

    shape: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    """What makes it other than it is by default, here and there."""
    tolerance: float = TOLERANCE
    """Of gradients, and of what a step changes."""


UNDROPPED = {"dropout": 0.0}
NARROW = {"classes": 10, "hidden": 48, "dropout": 0.0}
CASES = {
    "mlp": Case((28, 28, 1)),
    "lenet5": Case((28, 28, 1)),
    "mnist_cnn": Case((28, 28, 1)),
    "digits": Case((28, 28, 1)),
    "glyphs": Case((28, 28, 1)),
    "small": Case((28, 28, 1), tolerance=FLIPS),
    "thumbnails": Case((28, 28, 1), tolerance=FLIPS),
    "resnet20": Case((32, 32, 3), tolerance=FLIPS),
    "resnet32": Case((32, 32, 3), tolerance=FLIPS),
    "resnet56": Case((32, 32, 3), tolerance=MANY_FLIPS),
    "resnet18": Case((64, 64, 3), tolerance=FLIPS),
    "resnet34": Case((64, 64, 3), tolerance=FLIPS),
    "resnet50": Case((64, 64, 3), tolerance=MANY_FLIPS),
    "resnet101": Case((64, 64, 3), tolerance=MANY_FLIPS),
    "vgg11": Case((32, 32, 3), NARROW),
    "vgg13": Case((32, 32, 3), NARROW),
    "vgg16": Case((32, 32, 3), NARROW | {"batch_norm": True}, FLIPS),
    "vgg19": Case((32, 32, 3), NARROW),
    "squeezenet": Case((64, 64, 3), UNDROPPED, FLIPS),
    "mobilenet_v2": Case((64, 64, 3), UNDROPPED, MANY_FLIPS),
    "m5": Case((2300, 1)),
    "m5_narrow": Case((2300, 1)),
    "cnn3d": Case((9, 8, 12, 1)),
    "unet": Case((24, 16, 3)),
    "autoencoder": Case((16, 12, 1), {"classes": 3}),
}
REPEATING = ("resnet56", "resnet34", "resnet101", "vgg13", "vgg19")
"""Nets that only repeat the blocks of others."""
OPTIMISED = ("mlp", "lenet5", "mnist_cnn", "resnet20")
"""Nets that every optimizer trains."""
BATCH = 6


def test_every_net_of_the_zoo_has_a_twin() -> None:
    assert set(CASES) == set(zoo.NETS)


class Pair:
    """A net here and there, with the same weights and one batch."""

    def __init__(self, name: str) -> None:
        self.case = CASES[name]
        shape, options = self.case.shape, self.case.options
        self.model = Model(zoo.by_name(name).make(normalize=False, **options), shape, seed=3)
        self.make: Callable[[], Any] = partial(peers.NETS[name], **options)
        self.net = self.make().train()
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
        other = self.make()
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


@pytest.fixture(params=[name for name in CASES if name not in REPEATING])
def trained(request: pytest.FixtureRequest) -> Pair:
    return Pair(request.param)


@pytest.fixture(params=OPTIMISED)
def optimised(request: pytest.FixtureRequest) -> Pair:
    return Pair(request.param)


def assert_close(got: Array, true: Array, what: str, tolerance: float = TOLERANCE) -> None:
    error, scale = np.abs(got - true).max(), np.abs(true).max()
    assert error <= tolerance * scale, f"{what}: {error:.3g} at scale {scale:.3g}"


def assert_changed_alike(pair: Pair, before: dict[str, Array]) -> None:
    found = pair.theirs(pair.model.parameters.values())
    tolerance = max(pair.case.tolerance, CHANGE_TOLERANCE)
    for name, true in pair.parameters().items():
        error, change = np.linalg.norm(found[name] - true), np.linalg.norm(true - before[name])
        rounding = 4 * np.finfo(np.float32).eps * np.linalg.norm(true)
        assert error <= tolerance * change + rounding, f"{name}: {error:.3g}, changed by {change:.3g}"


def test_predictions_are_pytorchs(pair: Pair) -> None:
    """With statistics that a batch left behind."""
    with torch.no_grad():
        pair.output()
        for name, value in zip(pair.model.statistics, pair.statistics(), strict=True):
            pair.model.statistics[name] = value
        pair.net.eval()
        assert_close(pair.model.predict(pair.x), pair.output().movedim(1, -1).numpy(), "output")


def test_loss_and_gradients_are_pytorchs(trained: Pair) -> None:
    pair = trained
    loss, gradients = pair.model.gradients(pair.x, pair.y)
    expected = pair.loss()
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    found = pair.theirs(gradients.values())
    true = {name: parameter.grad.numpy() for name, parameter in pair.net.named_parameters()}
    whole = np.sqrt(sum(np.square(g, dtype=np.float64).sum() for g in true.values()))
    for name, gradient in true.items():
        error, length = np.linalg.norm(found[name] - gradient), np.linalg.norm(gradient)
        assert error <= pair.case.tolerance * length + ROUNDING * whole, f"{name}: {error:.3g} of {length:.3g}"


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
def test_steps_are_pytorchs(optimised: Pair, optimizer: str) -> None:
    pair = optimised
    ours, make = OPTIMIZERS[optimizer]
    trainer, theirs = pair.model.trainer(optimizer=ours), make(pair.net)
    before = pair.parameters()
    for _ in range(1 if pair.case.tolerance > TOLERANCE else STEPS):
        theirs.zero_grad()
        expected = pair.loss()
        expected.backward()
        theirs.step()
        assert trainer.step(pair.x, pair.y) == pytest.approx(expected.item(), rel=1e-4, abs=LOSS_ROUNDING)
    assert_changed_alike(pair, before)
    for name, true in zip(pair.model.statistics, pair.statistics(), strict=True):
        assert_close(pair.model.statistics[name], true, name)


@pytest.mark.parametrize(("units", "features"), [(17, 30), (30, 17)])
def test_muons_steps_are_pytorchs_but_for_its_bfloat16(units: int, features: int) -> None:
    """PyTorch's takes matrices alone, and multiplies them with eight bits of precision: off by 4 %."""
    model = Model(Dense(units, bias=False), (features,), seed=1)
    trainer = model.trainer("mse", optim.Muon(0.01, weight_decay=0.1))
    start = model.parameters["dense1.weight"]
    weight = torch.nn.Parameter(torch.from_numpy(start.copy()))
    theirs = torch.optim.Muon([weight], 0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for step in range(STEPS):
        x, y = normal((8, features), step), normal((8, units), 50 + step)
        theirs.zero_grad()
        torch.nn.functional.mse_loss(torch.from_numpy(x) @ weight.T, torch.from_numpy(y)).backward()
        theirs.step()
        trainer.step(x, y)
    moved, expected = model.parameters["dense1.weight"] - start, weight.detach().numpy() - start
    assert np.linalg.norm(moved - expected) < 0.06 * np.linalg.norm(expected)


@pytest.mark.parametrize("limit", [0.1, 1e3])
def test_clipping_is_pytorchs(optimised: Pair, limit: float) -> None:
    pair = optimised
    trainer = pair.model.trainer(optimizer=optim.SGD(0.1, clip=limit))
    theirs = torch.optim.SGD(pair.net.parameters(), 0.1)
    before = pair.parameters()
    pair.loss().backward()
    norm = float(torch.nn.utils.clip_grad_norm_(pair.net.parameters(), limit))
    theirs.step()
    assert (norm > limit) == (limit < 1), "the limits stand on both sides of the norm"
    trainer.step(pair.x, pair.y)
    assert_changed_alike(pair, before)
