"""The same bits: for any number of threads, any vector width, any batch around an image; and they are the right ones.

Run as a program it prints the digest of the training below, for another process to compare.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import Array, Machine, assert_close, leaf_key, normal, values_of

from convolve import ops
from convolve.graph import Graph, Value, apply, differentiate, leaf
from convolve.native.target import host
from convolve.ops.convolution import Convolution
from convolve.ops.dropout import Dropout
from convolve.ops.norm import group_normalize, moments, normalize
from convolve.ops.pool import Pool
from convolve.ops.softmax import CrossEntropy, Softmax
from convolve.passes import sink
from convolve.window import resolve

STEPS = 4
BATCH = 12
SIZE = (19, 18)
CLASSES = 10


class Net:
    """Convolutions, batch norm, pools, what is padded, resized and joined, dropout and a dense layer."""

    def __init__(self, batch: int, training: bool) -> None:
        self.batch, self.training = batch, training
        self.parameters: list[Value] = []
        self.statistics: list[tuple[Value, Value]] = []

    def parameter(self, *shape: int) -> Value:
        self.parameters.append(leaf("parameter", f"p{len(self.parameters)}", shape))
        return self.parameters[-1]

    def convolution(self, x: Value, filters: int, stride: int = 1) -> Value:
        window = resolve(3, stride, 1, "same", x.shape[1:-1])
        return apply(Convolution(window), x, self.parameter(filters, 3, 3, x.shape[-1]))

    def norm(self, x: Value) -> Value:
        scale, shift = self.parameter(x.shape[-1]), self.parameter(x.shape[-1])
        number = len(self.parameters)
        running = [leaf("statistic", f"{what}{number}", shift.shape) for what in ("mean", "variance")]
        if not self.training:
            return (x - running[0]) * (scale / ops.sqrt(running[1] + 1e-5)) + shift
        axes = tuple(range(len(x.shape) - 1))
        found = (ops.reshape(v, old.shape) for v, old in zip(moments(x, axes), running, strict=True))
        self.statistics += [(old, old * 0.9 + v * 0.1) for old, v in zip(running, found, strict=True)]
        return normalize(x, axes, 1e-5, scale, shift)

    def pool(self, kind: str, x: Value) -> Value:
        return apply(Pool(kind, resolve(3, 2, 1, "same", x.shape[1:-1])), x)

    def logits(self, x: Value) -> Value:
        y = self.pool("max", ops.relu(self.norm(self.convolution(ops.cast(x) * (1 / 255), 24))))
        y = ops.relu(self.norm(self.convolution(y, 24)) + y)
        y = ops.relu(group_normalize(y, 4, 1e-5, self.parameter(24), self.parameter(24)))
        y = normalize(y, (3,), 1e-5, self.parameter(24), self.parameter(24))
        coarse = ops.pad(self.pool("avg", y), 1, "reflect")
        y = ops.concat(y, ops.resize(coarse, y.shape[1:-1], "linear"))
        y = self.pool("avg", ops.relu(self.convolution(y, 40, stride=2) + self.parameter(40)))
        y = ops.reshape(y, (self.batch, -1))
        if self.training:
            y = apply(Dropout(0.3, 1), y, leaf("input", "random", (2,), "i8"))
        window = resolve((), (), (), "valid", ())
        return apply(Convolution(window), y, self.parameter(CLASSES, y.shape[-1])) + self.parameter(CLASSES)


def images(batch: int) -> Array:
    return np.random.default_rng(batch).integers(0, 256, (batch, *SIZE, 3)).astype(np.uint8)


def training() -> tuple[Graph, dict[str, Array]]:
    """A step of SGD with momentum, and what to feed for the first."""
    net = Net(BATCH, training=True)
    x, labels = leaf("input", "x", (BATCH, *SIZE, 3), "u1"), leaf("input", "labels", (BATCH,), "i4")
    loss = ops.mean(apply(CrossEntropy(0.1), net.logits(x), labels))
    loss = sink(Graph({"loss": loss})).outputs["loss"]
    updates = list(net.statistics)
    rate = leaf("number", "rate", ())
    for parameter, gradient in zip(net.parameters, differentiate(loss, net.parameters), strict=True):
        old = leaf("state", f"velocity.{leaf_key(parameter)}", parameter.shape)
        velocity = old * 0.9 + gradient
        updates += [(old, velocity), (parameter, parameter - velocity * rate)]
    feeds = {"x": images(BATCH), "labels": np.arange(BATCH, dtype=np.int32) % CLASSES, "rate": np.float32(0.05)}
    feeds["random"] = np.array([5, 0], np.int64)
    feeds |= {leaf_key(old): np.zeros(old.shape, np.float32) for old, _ in updates}
    for seed, parameter in enumerate(net.parameters):
        fan = max(1, parameter.size // parameter.shape[0])
        feeds[leaf_key(parameter)] = normal(parameter.shape, seed) * np.float32(np.sqrt(2 / fan))
    return Graph({"loss": loss}, updates), feeds


def digest(threads: int) -> str:
    """A hash of every loss and every array after a few steps."""
    graph, feeds = training()
    machine = Machine(graph, feeds)
    found = hashlib.sha256()
    for step in range(STEPS):
        found.update(machine.run(threads, random=np.array([5, step], np.int64))["loss"].tobytes())
    for _, array in sorted(machine.state().items()):
        assert np.isfinite(array).all()
        found.update(array.tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("fused", [True, False])
def test_training_is_what_the_references_compute(fused: bool) -> None:
    """Rounding grows from step to step, hence the tolerance."""
    graph, feeds = training()
    machine = Machine(graph, feeds, fused)
    known = dict(feeds)
    for step in range(STEPS):
        known["random"] = np.array([5, step], np.int64)
        new = values_of(graph, known)
        loss = new.pop("loss")
        assert_close(machine.run(2, random=known["random"])["loss"], loss, 1e-5)
        known |= new
    for key, array in machine.state().items():
        assert_close(array, known[key], 2e-4)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    one = digest(1)
    assert [digest(threads) for threads in (2, 3)] == [one, one]


@pytest.mark.skipif(host().lanes == 4, reason="this CPU has 128-bit vectors only")
def test_any_vector_width_gives_the_same_bits() -> None:
    found = []
    for width in {"128", str(host().lanes * 32)}:
        paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"CONVOLVE_TARGET": width, "PYTHONPATH": os.pathsep.join(paths)}
        process = subprocess.run(
            [sys.executable, __file__], env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        found.append(process.stdout)
    assert len(found) == 2
    assert found[0] == found[1]


def inference(batch: Array) -> Array:
    net = Net(len(batch), training=False)
    logits = net.logits(leaf("input", "x", batch.shape, "u1"))
    feeds: dict[str, Array] = {"x": batch}
    for value in Graph({"y": logits}).values():
        if value.op.name == "leaf" and leaf_key(value) != "x":
            feeds[leaf_key(value)] = np.abs(normal(value.shape)) * np.float32(0.1)
    return Machine(Graph({"y": apply(Softmax(), logits)}), feeds).run()["y"]


def test_an_images_bits_do_not_depend_on_its_batch() -> None:
    seven = images(7)
    together = inference(seven)
    assert len({y.tobytes() for y in together}) == 7
    for count in (1, 2):
        for first in range(0, 8 - count, count):
            part = inference(seven[first : first + count])
            np.testing.assert_array_equal(part, together[first : first + count])


if __name__ == "__main__":
    print(digest(2))
