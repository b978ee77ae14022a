"""ONNX's light models with weights: those that come with the onnx package hold constants in their place.

    python benchmarks/light_models.py FOLDER      writes all nine as files

The weights are random, drawn from a seed, with He et al.'s variance (2015), so that activations stay finite; batch
norms get scales around 1/2 and variances around 1, so that sums of residual branches grow slowly.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

NAMES = (
    *("bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50"),
    *("shufflenet", "squeezenet", "vgg19", "zfnet512"),
)
SHAPE = (1, 3, 224, 224)
"""What all of them take."""


def path_of(name: str) -> Path:
    return Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"light_{name}.onnx"


def with_weights(name: str, seed: int = 0) -> bytes:
    """A light model whose weights are random numbers, as a file's contents."""
    model: Any = onnx.load(path_of(name))
    graph = model.graph
    shapes = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    constant = {n.output[0]: n for n in graph.node if n.op_type == "ConstantOfShape"}
    passed = {n.output[0]: n.input[0] for n in graph.node if n.op_type in ("Unsqueeze", "Reshape", "Identity")}
    users: dict[str, tuple[str, int]] = {}
    for node in graph.node:
        for place, value in enumerate(node.input):
            while value in passed:
                value = passed[value]
            if value in constant and node.op_type not in ("Unsqueeze", "Reshape", "Identity"):
                users.setdefault(value, (node.op_type, place))
    random = np.random.default_rng(seed)
    made = {
        value: _weight(random, tuple(int(n) for n in shapes[node.input[0]]), *users[value])
        for value, node in constant.items()
        if node.input[0] in shapes and value in users
    }
    kept = [n for n in graph.node if not set(n.output) & made.keys()]
    spare = {constant[value].input[0] for value in made}
    del graph.node[:]
    graph.node.extend(kept)
    initial = [t for t in graph.initializer if t.name not in spare]
    inputs = [v for v in graph.input if v.name not in spare]
    del graph.initializer[:], graph.input[:]
    graph.initializer.extend([*initial, *(numpy_helper.from_array(a, value) for value, a in made.items())])
    graph.input.extend(inputs)
    model.ir_version = 8  # earlier versions want weights among the inputs
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _weight(random: np.random.Generator, shape: tuple[int, ...], op: str, place: int) -> np.ndarray:
    """What stands at an input of an operator."""
    if op in ("Conv", "Gemm") and place == 1:
        made = random.standard_normal(shape, np.float32) * math.sqrt(2 / math.prod(shape[1:]))
    elif (op, place) in (("BatchNormalization", 1), ("BatchNormalization", 4), ("Mul", 1)):
        made = random.uniform(0.3, 0.7, shape) if place == 1 else random.uniform(0.8, 1.2, shape)
    else:
        made = random.standard_normal(shape, np.float32) * 0.1
    return made.astype(np.float32)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for each in NAMES:
        (folder / f"{each}.onnx").write_bytes(with_weights(each))
