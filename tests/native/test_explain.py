"""Explanations: one row a call of the program, shares that add up, a peak that is nothing but multiply-adds."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from convolve import BatchNorm, Conv, Dense, Flatten, MaxPool, Model, ReLU, Sequential
from convolve.errors import ConvolveError
from convolve.execution import Executable
from convolve.native.compiling import assembly
from convolve.native.kernels.peak import Peak, accumulators, flops
from convolve.native.target import host
from convolve.view import explain as module
from convolve.view.explain import Explanation, explain, peak_flops

Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure no longer than it takes to have medians."""
    monkeypatch.setattr(module, "SECONDS", 0.0)


def small(threads: int | None = 2) -> Model:
    net = Sequential(Conv(20, 3, bias=False), BatchNorm(), ReLU(), MaxPool(2), Flatten(), Dense(10))
    return Model(net, input_shape=(12, 12, 3), threads=threads)


def program_of(model: Model, batch: int) -> tuple[Executable, dict[str, Array]]:
    x = np.random.default_rng(0).standard_normal((batch, *model.input_shape), np.float32)
    return model.network.prediction(model.network.feeds(batch)), {"x": x}


def assert_consistent(found: Explanation) -> None:
    assert sum(row.share for row in found.rows) == pytest.approx(1)
    assert all(row.seconds >= 0 and row.pieces > 0 for row in found.rows)
    assert [row.phase for row in found.rows] == sorted(row.phase for row in found.rows)
    assert found.phases == found.rows[-1].phase + 1
    assert found.seconds > 0
    assert found.peak_gflops > 0
    for row in found.rows:
        if row.seconds:
            assert row.gflops == pytest.approx(row.flops / row.seconds / 1e9)


def test_every_call_of_a_prediction_is_explained() -> None:
    model = small()
    executable, inputs = program_of(model, 4)
    found = explain(executable, inputs, 2)
    calls = executable.program.calls
    assert_consistent(found)
    assert [(r.kernel, r.pieces, r.flops) for r in found.rows] == [
        (type(c.spec).__name__, c.pieces, c.flops) for c in calls
    ]
    assert found.kernels == len({c.spec for c in calls})
    assert found.threads == 2
    assert {"relu1", "max_pool1", "dense1"} <= {row.label for row in found.rows}


def test_multiply_adds_are_the_summarys() -> None:
    model = small()
    found = model.explain(batch_size=4)
    products = [row.flops for row in found.rows if row.kernel != "Pointwise"]
    assert sum(products) == 2 * 4 * model.summary().multiply_adds


def test_a_training_step_is_explained_and_changes_nothing() -> None:
    model = small()
    before = {name: np.array(a) for name, a in (*model.parameters.items(), *model.statistics.items())}
    trainer = model.trainer()
    states = set(model.network.stores)
    found = model.explain(batch_size=5, training=True)
    assert_consistent(found)
    labels = {row.label for row in found.rows}
    assert {"d conv1.weight", "conv1.weight", "d dense1.bias", "d flatten1"} <= labels
    assert set(model.network.stores) == states
    for name, array in (*model.parameters.items(), *model.statistics.items()):
        np.testing.assert_array_equal(array, before[name])
    assert trainer.steps == 0


def test_a_net_without_logits_is_explained_by_its_squared_error() -> None:
    found = Model(Conv(4, 3), input_shape=(8, 2)).explain(batch_size=2, training=True)
    assert "d conv1.weight" in {row.label for row in found.rows}


def test_an_explanation_prints_as_a_table() -> None:
    found = small().explain(batch_size=3)
    text = str(found)
    assert repr(found) == text
    lines = text.splitlines()
    assert re.split(" {2,}", lines[0])[-6:] == ["pieces", "phase", "ms", "time", "GFLOP/s", "of peak"]
    assert len(lines) == 2 + len(found.rows) + 3
    dense = next(line for line in lines if line.startswith("dense1"))
    assert dense.split()[1:3] == ["Gemm", "direct"]
    assert f"{len(found.rows)} calls of {found.kernels} kernels in {found.phases} phases" in lines[-2]


def test_an_explanation_is_json() -> None:
    found = small().explain(batch_size=3)
    read = json.loads(json.dumps(found.as_dict()))
    assert [row["label"] for row in read["rows"]] == [row.label for row in found.rows]
    assert read["rows"][0].keys() >= {"kernel", "algorithm", "tile", "seconds", "gflops", "share_of_peak"}
    assert read["share_of_peak"] == pytest.approx(found.gflops / found.peak_gflops)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_of_nothing_is_refused(batch_size: int) -> None:
    with pytest.raises(ConvolveError, match=f"Received: batch_size={batch_size}"):
        small().explain(batch_size=batch_size)


def test_the_peak_is_nothing_but_multiply_adds_between_registers() -> None:
    if not host().fma:
        pytest.skip("a CPU without fused multiply-add")
    lines = assembly(Peak()).splitlines()
    multiply_adds = [
        i for i, line in enumerate(lines) if line.split()[:1] and "fma" in line.split()[0].replace("fmla", "fma")
    ]
    assert len(multiply_adds) == accumulators(host())
    loop = lines[multiply_adds[0] : multiply_adds[-1] + 1]
    assert not any("(" in line or "[" in line for line in loop), "the loop reads or writes memory"
    assert flops(host(), 10) == 2 * host().lanes * accumulators(host()) * 10


def test_the_peak_is_measured_on_so_many_threads() -> None:
    assert all(peak_flops(threads) > 1e8 for threads in (1, 2, 3))
