"""Optimizers: formulas in float64, one sweep a parameter, weight decay. Those that PyTorch has: tests/peers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import Array, normal

from convolve import BatchNorm, Conv, Dense, Flatten, Model, ReLU, Sequential, optim
from convolve.errors import ConvolveError
from convolve.training.optim import Optimizer
from convolve.training.trainer import Trainer

STEPS = 5
ALL: list[Optimizer] = [
    optim.SGD(0.1),
    optim.SGD(0.1, momentum=0.9, nesterov=True),
    optim.Adam(),
    optim.AdamW(),
    optim.AdamW(clip=1.0),
    optim.RMSprop(),
    optim.RMSprop(momentum=0.9),
    optim.RMSprop(centered=True),
    optim.RMSprop(momentum=0.9, centered=True, weight_decay=0.1),
    optim.Lion(),
    optim.Lion(weight_decay=0.1, clip=0.5),
    optim.Muon(weight_decay=0.1),
    optim.LayerRates(optim.AdamW(clip=1.0), {"conv1": 0.3, "dense1.bias": 2.0}),
    optim.LayerRates(optim.Muon(clip=1.0), {"conv1": 0.3, "dense1.bias": 2.0}),
]
State = dict[str, Array]


def moments(o: Any, p: Array, g: Array, s: State, step: int) -> Array:
    s["m"] = o.beta1 * s["m"] + (1 - o.beta1) * g
    s["v"] = o.beta2 * s["v"] + (1 - o.beta2) * g**2
    m, v = s["m"] / (1 - o.beta1**step), s["v"] / (1 - o.beta2**step)
    return p - o.rate * (m / (np.sqrt(v) + o.epsilon) + o.weight_decay * p)


def rmsprop(o: Any, p: Array, g: Array, s: State, step: int) -> Array:
    s["v"] = o.rho * s["v"] + (1 - o.rho) * g**2
    s["m"] = o.rho * s["m"] + (1 - o.rho) * g
    spread = s["v"] - s["m"] ** 2 if o.centered else s["v"]
    s["b"] = o.momentum * s["b"] + g / (np.sqrt(spread) + o.epsilon)
    return p - o.rate * (s["b"] + o.weight_decay * p)


def lion(o: Any, p: Array, g: Array, s: State, step: int) -> Array:
    """Algorithm 2 of the paper, line by line."""
    c = o.beta1 * s["m"] + (1 - o.beta1) * g
    p = p - o.rate * (np.sign(c) + o.weight_decay * p)
    s["m"] = o.beta2 * s["m"] + (1 - o.beta2) * g
    return p


def orthogonal(d: Array) -> Array:
    """Five iterations of the quintic, upon singular values themselves."""
    left, s, right = np.linalg.svd(d, full_matrices=False)
    s = s / np.linalg.norm(s)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return (left * s) @ right


def muon(o: Any, p: Array, g: Array, s: State, step: int) -> Array:
    s["b"] = o.momentum * s["b"] + g
    d = orthogonal(g + o.momentum * s["b"])
    return p - o.rate * (0.2 * math.sqrt(max(p.shape)) * d + o.weight_decay * p)


FORMULAS: list[tuple[Optimizer, Callable[..., Array]]] = [
    (optim.Adam(0.01, epsilon=1e-4), moments),
    (optim.AdamW(0.01, beta1=0.8, beta2=0.9, epsilon=1e-4, weight_decay=0.3), moments),
    (optim.RMSprop(0.01, epsilon=1e-3, weight_decay=0.2), rmsprop),
    (optim.RMSprop(0.01, rho=0.8, epsilon=1e-3, momentum=0.9, centered=True), rmsprop),
    (optim.Lion(0.01), lion),
    (optim.Lion(0.003, beta1=0.8, beta2=0.95, weight_decay=0.5), lion),
    (optim.Muon(0.01, weight_decay=0.0), muon),
    (optim.Muon(0.003, momentum=0.8, weight_decay=0.5), muon),
]


@pytest.mark.parametrize(("optimizer", "formula"), FORMULAS, ids=lambda v: getattr(v, "__name__", str(v)))
def test_steps_are_the_formulas(optimizer: Optimizer, formula: Callable[..., Array]) -> None:
    """On mean squared error of one layer, whose gradient in float64 is a line."""
    units, features = 17, 9
    model = Model(Dense(units, bias=False), (features,), seed=3)
    trainer = model.trainer("mse", optimizer)
    p = model.parameters["dense1.weight"].astype(np.float64)
    state = {key: np.zeros(p.shape) for key in "mvb"}
    for step in range(1, STEPS + 1):
        x, y = normal((6, features), step), normal((6, units), 50 + step)
        error = x.astype(np.float64) @ p.T - y
        assert trainer.step(x, y) == pytest.approx(np.mean(error**2), rel=1e-5)
        p = formula(optimizer, p, 2 * error.T @ x / error.size, state, step)
        np.testing.assert_allclose(model.parameters["dense1.weight"], p, rtol=0, atol=3e-5 * np.abs(p).max())


def net() -> Model:
    return Model(Sequential(Conv(17, 3), BatchNorm(), ReLU(), Flatten(), Dense(5)), (6, 5, 3), seed=1)


@pytest.mark.parametrize("optimizer", [o for o in ALL if "Muon" not in str(o)], ids=str)
def test_one_sweep_updates_a_parameter_and_its_state(optimizer: Optimizer) -> None:
    model, x, y = net(), normal((4, 6, 5, 3)), np.arange(4, dtype=np.int32)
    trainer = Trainer(model.network, "cross_entropy", optimizer)
    program = trainer.executable(x, y).program
    stores = {b.memory: key for key, b in program.stores.items() if b.memory.home == "store"}
    updates = [[stores[m] for m in call.writes if m in stores] for call in program.calls]
    kinds = {key.split(":")[1].split("/")[0] for key in stores.values() if key.startswith("state:")}
    expected = [{f"parameter:{name}", *(f"state:{kind}/{name}" for kind in kinds)} for name in model.network.specs]
    found = [set(keys) for keys in updates if any(not key.startswith("statistic:") for key in keys)]
    assert sorted(found, key=sorted) == sorted(expected, key=sorted)


@pytest.mark.parametrize("optimizer", ALL, ids=str)
def test_every_optimizer_learns(optimizer: Optimizer) -> None:
    model, x, y = net(), normal((16, 6, 5, 3)), np.arange(16) % 5
    trainer = model.trainer(optimizer=optimizer)
    found = [trainer.step(x, y, 0.01) for _ in range(20)]
    assert found[-1] < 0.7 * found[0]


def test_layers_with_rates_of_their_own_move_so_much_further() -> None:
    """A step of SGD is linear in the rate, of each parameter by itself."""
    plain, layered = net(), net()
    x, y, before = normal((4, 6, 5, 3)), np.arange(4), plain.copy()
    factors = {"conv1": 0.25, "conv1.bias": 4.0, "dense1": 0.5}
    plain.trainer(optimizer=optim.SGD(0.1)).step(x, y)
    layered.trainer(optimizer=optim.LayerRates(optim.SGD(0.1), factors)).step(x, y)
    for name, start in before.parameters.items():
        factor = factors.get(name, factors.get(name.partition(".")[0], 1.0))
        expected = start + factor * (plain.parameters[name] - start).astype(np.float64)
        np.testing.assert_allclose(layered.parameters[name], expected, rtol=0, atol=1e-6, err_msg=name)
    assert np.abs(plain.parameters["conv1.weight"] - before.parameters["conv1.weight"]).max() > 1e-3


def test_rates_of_layers_that_are_not_there() -> None:
    with pytest.raises(ConvolveError, match=r"no layer with parameters is called 'conv2'\. There are conv1\.weight"):
        net().trainer(optimizer=optim.LayerRates(optim.SGD(0.1), {"conv2": 0.1}))
    with pytest.raises(ConvolveError, match="a factor must be positive"):
        optim.LayerRates(optim.SGD(0.1), {"conv1": 0.0})


@pytest.mark.parametrize("cls", [optim.SGD, optim.Adam, optim.AdamW, optim.Muon, optim.RMSprop, optim.Lion])
def test_weight_decay_shrinks_weights_alone(cls: Any) -> None:
    """Decoupled: by rate * weight_decay, whatever the gradient; biases and norms are left out."""
    model, x, y = net(), normal((4, 6, 5, 3)), np.arange(4)
    with_decay, without = net(), net()
    with_decay.trainer(optimizer=cls(0.1, weight_decay=0.25)).step(x, y)
    without.trainer(optimizer=cls(0.1, weight_decay=0.0)).step(x, y)
    for name, before in model.parameters.items():
        shrunk = 0.1 * 0.25 * before if name.endswith("weight") else 0
        expected = without.parameters[name] - shrunk
        np.testing.assert_allclose(with_decay.parameters[name], expected, rtol=0, atol=1e-6, err_msg=name)


def test_adamw_is_adam_with_a_weight_decay() -> None:
    x, y = normal((4, 6, 5, 3)), np.arange(4)
    models = []
    for optimizer in (optim.Adam(weight_decay=0.01), optim.AdamW()):
        models.append(net())
        models[-1].trainer(optimizer=optimizer).step(x, y)
    for name, array in models[0].parameters.items():
        np.testing.assert_array_equal(models[1].parameters[name], array)


def test_muon_sees_filters_as_rows_and_leaves_the_rest_to_adam() -> None:
    hidden = (Conv(17, 3), BatchNorm(), ReLU(), Flatten(), Dense(40), ReLU())
    start = Model(Sequential(*hidden, Dense(5)), (6, 5, 3), seed=1)
    x, y = normal((16, 6, 5, 3)), np.arange(16) % 5
    by = {}
    for optimizer in (optim.SGD(1.0), optim.Adam(0.1), optim.Muon(0.1, weight_decay=0.0)):
        model = start.copy()
        model.trainer(optimizer=optimizer).step(x, y)
        by[type(optimizer)] = model.parameters
    for name, before in start.parameters.items():
        expected = by[optim.Adam][name]
        if name in ("conv1.weight", "dense1.weight"):
            gradient = (before - by[optim.SGD][name]).astype(np.float64).reshape(len(before), -1)
            expected = before - (0.02 * math.sqrt(max(gradient.shape)) * orthogonal(gradient)).reshape(before.shape)
        np.testing.assert_allclose(by[optim.Muon][name], expected, rtol=0, atol=1e-4, err_msg=name)


def test_muon_without_a_gradient_changes_nothing() -> None:
    model = Model(Dense(3, bias=False), (4,), seed=0)
    before = model.parameters["dense1.weight"]
    model.trainer("mse", optim.Muon(0.1, weight_decay=0.0)).step(np.zeros((2, 4)), np.ones((2, 3)))
    np.testing.assert_array_equal(model.parameters["dense1.weight"], before)


def test_lion_stands_still_where_there_is_no_gradient() -> None:
    model = Model(Dense(3, bias=False), (4,), seed=0)
    before = model.parameters["dense1.weight"]
    model.trainer("mse", optim.Lion(0.1)).step(np.zeros((2, 4)), np.ones((2, 3)))
    np.testing.assert_array_equal(model.parameters["dense1.weight"], before)


def test_a_constant_gradient_has_no_spread_and_stays_finite() -> None:
    """Rounding may make the centred mean square less than nothing."""
    model = Model(Dense(3, bias=False), (4,), seed=0)
    trainer = model.trainer("mae", optim.RMSprop(1e-6, rho=0.5, centered=True))
    for _ in range(60):
        trainer.step(np.full((2, 4), 0.3), np.full((2, 3), 1e6))
    assert np.isfinite(model.parameters["dense1.weight"]).all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: optim.Adam(0), "Adam: rate must be positive. Received: rate=0"),
        (lambda: optim.AdamW(math.inf), "AdamW: rate must be positive"),
        (lambda: optim.Lion(math.nan), "Lion: rate must be positive"),
        (lambda: optim.Adam(beta1=1.0), "Adam: beta1 must be from 0 to below 1. Received: beta1=1.0"),
        (lambda: optim.AdamW(beta2=-0.1), "AdamW: beta2 must be from 0"),
        (lambda: optim.Adam(epsilon=0), "Adam: epsilon must be positive. Received: epsilon=0"),
        (lambda: optim.Muon(momentum=1), "Muon: momentum must be from 0 to below 1. Received: momentum=1"),
        (lambda: optim.RMSprop(rho=1), "RMSprop: rho must be from 0"),
        (lambda: optim.RMSprop(momentum=1.5), "RMSprop: momentum must be from 0"),
        (lambda: optim.RMSprop(epsilon=-1), "RMSprop: epsilon must be positive"),
        (lambda: optim.Lion(beta1=2), "Lion: beta1 must be from 0"),
        (lambda: optim.Lion(weight_decay=-1), "Lion: weight_decay must not be negative. Received: weight_decay=-1"),
        (lambda: optim.SGD(weight_decay=math.inf), "SGD: weight_decay must not be negative"),
        (lambda: optim.SGD(momentum=1.0), "SGD: momentum must be from 0"),
        (lambda: optim.SGD(nesterov=True), "nesterov needs a momentum"),
        (lambda: optim.RMSprop(clip=0), "RMSprop: clip must be positive or None. Received: clip=0"),
    ],
)
def test_numbers_that_make_no_sense(make: Callable[[], Optimizer], words: str) -> None:
    with pytest.raises(ConvolveError, match=words):
        make()
