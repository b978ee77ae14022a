"""Mutated ONNX files: each is refused with an error of convolve's own, or makes a net that runs.

    python tests/onnx/fuzz.py --runs 100000 --seed 1

prints how many were refused and how many ran, and stops at the first file that does anything else, which it keeps.
Time and memory of the process are limited, so that a file that takes more than it may is found as well.
"""

from __future__ import annotations

import argparse
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from convolve import from_onnx
from convolve.errors import ConvolveError

MEMORY = 6 << 30
"""Bytes of address space that a run may take, the interpreter's own and libraries' included."""
SECONDS = 20
"""Processor time that one file may take."""
MOST_INPUTS = 1 << 16
"""Elements up to which a net that was accepted is run, too."""
NUMBERS = (-(2**63), -(2**31), -7, -1, 0, 1, 2, 3, 5, 1000, 2**16, 2**31 - 1, 2**31, 2**40, 2**63 - 1)


# files to begin with


def _weights(**shapes: tuple[int, ...]) -> list[TensorProto]:
    random = np.random.default_rng(0)
    return [numpy_helper.from_array(random.standard_normal(s).astype(np.float32), n) for n, s in shapes.items()]


def _integers(**values: list[int]) -> list[TensorProto]:
    return [numpy_helper.from_array(np.array(v, np.int64), n) for n, v in values.items()]


def _model(nodes: list[Any], initial: list[TensorProto], shape: list[Any], opset: int = 17) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, [None] * 2)],
        initial,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def seeds() -> list[ModelProto]:
    """Small models of many operators."""
    node = helper.make_node
    return [
        _model(
            [
                node("Conv", ["x", "w", "b"], ["c"], "conv", pads=[1, 1, 1, 1], strides=[2, 1]),
                node("BatchNormalization", ["c", "s", "h", "m", "v"], ["n"], "norm"),
                node("Relu", ["n"], ["r"], "relu"),
                node("MaxPool", ["r"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
                node("Shape", ["p"], ["shape"], "shape"),
                node("Gather", ["shape", "zero"], ["batch"], "gather"),
                node("Concat", ["batch", "rest"], ["target"], "target", axis=0),
                node("Reshape", ["p", "target"], ["f"], "flat"),
                node("Gemm", ["f", "w2", "b2"], ["y"], "fc", transB=1),
            ],
            [
                *_weights(w=(4, 3, 3, 3), b=(4,), s=(4,), h=(4,), m=(4,), v=(4,), w2=(5, 24), b2=(5,)),
                *_integers(zero=[0], rest=[-1]),
            ],
            ["N", 3, 8, 6],
        ),
        _model(
            [
                node("Conv", ["x", "w"], ["c"], "conv", auto_pad="SAME_UPPER", group=4),
                node("Transpose", ["c"], ["t"], "turn", perm=[0, 2, 3, 1]),
                node("Slice", ["t", "start", "stop", "axes", "steps"], ["s"], "slice"),
                node("Pad", ["s", "pads"], ["q"], "pad"),
                node("Resize", ["q", "", "scales"], ["z"], "resize", mode="linear"),
                node("ReduceMean", ["z"], ["m"], "mean", axes=[1, 2], keepdims=0),
                node("Softmax", ["m"], ["y"], "softmax", axis=-1),
            ],
            [
                *_weights(w=(4, 1, 3, 3)),
                *_integers(start=[0, 1], stop=[5, 9], axes=[1, 2], steps=[1, 2], pads=[0, 1, 0, 0, 0, 0, 2, 0]),
                numpy_helper.from_array(np.array([1, 2, 1.5, 1], np.float32), "scales"),
            ],
            [2, 4, 6, 9],
        ),
        _model(
            [
                node("ConstantOfShape", ["size"], ["k"], "constant"),
                node("ConvTranspose", ["x", "w"], ["c"], "up", strides=[2, 2], output_padding=[1, 0]),
                node("Add", ["c", "k"], ["a"], "add"),
                node("Split", ["a", "parts"], ["l", "r"], "split", axis=1),
                node("Sigmoid", ["l"], ["g"], "gate"),
                node("Mul", ["g", "r"], ["h"], "mul"),
                node("DepthToSpace", ["h"], ["d"], "depth", blocksize=2),
                node("GlobalAveragePool", ["d"], ["p"], "pool"),
                node("Flatten", ["p"], ["y"], "flat"),
            ],
            [*_weights(w=(2, 8, 3, 3)), *_integers(size=[1, 8, 1, 1], parts=[4, 4])],
            [1, 2, 3, 3],
        ),
        _model(
            [
                node("LRN", ["x"], ["l"], "lrn", size=3),
                node("InstanceNormalization", ["l", "s", "h"], ["i"], "norm"),
                node("PRelu", ["i", "slope"], ["p"], "prelu"),
                node("QuantizeLinear", ["p", "scale"], ["q"], "quantise"),
                node("DequantizeLinear", ["q", "scale"], ["d"], "back"),
                node("AveragePool", ["d"], ["a"], "average", kernel_shape=[3], pads=[1, 0], count_include_pad=1),
                node("TopK", ["a", "k"], ["t", "j"], "top", axis=1),
                node("Tile", ["t", "times"], ["u"], "tile"),
                node("Expand", ["u", "wide"], ["e"], "expand"),
                node("ReduceMax", ["e"], ["y"], "most", axes=[-1], keepdims=0),
            ],
            [
                *_weights(s=(4,), h=(4,), slope=(4, 1)),
                numpy_helper.from_array(np.array(0.1, np.float32), "scale"),
                *_integers(k=[2], times=[1, 2, 1], wide=[3, 1, 1, 1]),
            ],
            ["N", 4, 7],
            13,
        ),
    ]


# mutations of bytes


def _flip(data: bytearray, random: np.random.Generator) -> bytearray:
    for _ in range(int(random.integers(1, 9))):
        data[int(random.integers(len(data)))] ^= 1 << int(random.integers(8))
    return data


def _cut(data: bytearray, random: np.random.Generator) -> bytearray:
    return data[: int(random.integers(len(data)))]


def _moved(data: bytearray, random: np.random.Generator) -> bytearray:
    a, b, n = (int(v) for v in random.integers(0, len(data), 3))
    data[a : a + n % 40] = data[b : b + n % 40]
    return data


# mutations of graphs


def _pick(items: Any, random: np.random.Generator) -> Any:
    return items[int(random.integers(len(items)))]


def _values(model: ModelProto) -> list[str]:
    given = [v.name for v in (*model.graph.input, *model.graph.initializer)]
    return [*given, *(name for node in model.graph.node for name in node.output)]


def _rewired(model: ModelProto, random: np.random.Generator) -> None:
    node = _pick(model.graph.node, random)
    if node.input:
        node.input[int(random.integers(len(node.input)))] = _pick([*_values(model), "", "nobody"], random)


def _renamed(model: ModelProto, random: np.random.Generator) -> None:
    node = _pick(model.graph.node, random)
    if node.output:
        node.output[0] = _pick([*_values(model), ""], random)


def _other_operator(model: ModelProto, random: np.random.Generator) -> None:
    from convolve.layers.imported import HANDLERS
    from convolve.layers.imported.folding import FOLDS

    _pick(model.graph.node, random).op_type = _pick(sorted({*HANDLERS, *FOLDS, "Loop", "Nothing"}), random)


def _attribute(model: ModelProto, random: np.random.Generator) -> None:
    node = _pick(model.graph.node, random)
    if not node.attribute:
        return
    attribute = _pick(node.attribute, random)
    if attribute.ints:
        attribute.ints[int(random.integers(len(attribute.ints)))] = _pick(NUMBERS, random)
        if random.random() < 0.3:
            attribute.ints.append(_pick(NUMBERS, random))
    elif attribute.type == 2:
        attribute.i = _pick(NUMBERS, random)
    else:
        attribute.type = int(random.integers(0, 15))


def _constant(model: ModelProto, random: np.random.Generator) -> None:
    place = int(random.integers(len(model.graph.initializer)))
    tensor = model.graph.initializer[place]
    chosen = int(random.integers(4))
    if chosen == 0 and tensor.dims:
        tensor.dims[int(random.integers(len(tensor.dims)))] = _pick(NUMBERS, random)
    elif chosen == 1:
        tensor.data_type = int(random.integers(0, 27))
    elif chosen == 2 and tensor.data_type == TensorProto.INT64:
        array = np.frombuffer(tensor.raw_data, np.int64).copy()
        if array.size:
            array[int(random.integers(array.size))] = _pick(NUMBERS, random)
            tensor.raw_data = array.tobytes()
    else:
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", _pick(["../../etc/passwd", "/etc/passwd", "", "."], random)


def _dimension(model: ModelProto, random: np.random.Generator) -> None:
    dims = model.graph.input[0].type.tensor_type.shape.dim
    if dims and random.random() < 0.8:
        _pick(dims, random).dim_value = _pick(NUMBERS, random)
    else:
        dims.add().dim_value = _pick(NUMBERS, random)


def _removed(model: ModelProto, random: np.random.Generator) -> None:
    graph = model.graph
    items = _pick([graph.node, graph.initializer, graph.output], random)
    if items:
        del items[int(random.integers(len(items)))]


def _swapped(model: ModelProto, random: np.random.Generator) -> None:
    nodes = list(model.graph.node)
    random.shuffle(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _opset(model: ModelProto, random: np.random.Generator) -> None:
    model.opset_import[0].version = _pick([-1, 0, 1, 6, 7, 9, 10, 11, 12, 18, 21, 24, 1000], random)


BYTES: list[Callable[[bytearray, np.random.Generator], bytearray]] = [_flip, _cut, _moved]
GRAPHS: list[Callable[[ModelProto, np.random.Generator], None]] = [
    *(_rewired, _renamed, _other_operator, _attribute, _attribute, _constant, _constant),
    *(_dimension, _removed, _swapped, _opset),
]


def mutated(turn: int, seed: int) -> bytes:
    """The file of one turn."""
    random = np.random.default_rng([seed, turn])
    model = ModelProto()
    model.CopyFrom(_pick(SEEDS, random))
    if random.random() < 0.3:
        data = bytearray(model.SerializeToString())
        for _ in range(int(random.integers(1, 4))):
            if data:
                data = _pick(BYTES, random)(data, random)
        return bytes(data)
    for _ in range(int(random.integers(1, 4))):
        if model.graph.node and model.graph.initializer and model.opset_import:
            _pick(GRAPHS, random)(model, random)
    return bytes(model.SerializeToString())


SEEDS = seeds()


def tried(data: bytes) -> bool:
    """Whether a file makes a net; it is run, if that is no great work."""
    try:
        model = from_onnx(data, threads=1)
        ports = model.network.ports
        shapes = [tuple(n if isinstance(n, int) else 2 if i == 0 else 8 for i, n in enumerate(p.shape)) for p in ports]
        if sum(int(np.prod(s, dtype=np.float64)) for s in shapes) <= MOST_INPUTS:
            model.predict({p.name: np.ones(s, p.dtype) for p, s in zip(ports, shapes, strict=True)})
    except ConvolveError:
        return False
    return True


def main(runs: int, seed: int, keep: Path) -> str:
    """Try so many files; what was found, in words."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    ran = 0
    for turn in range(runs):
        used = resource.getrusage(resource.RUSAGE_SELF)
        spent = int(used.ru_utime + used.ru_stime)
        resource.setrlimit(resource.RLIMIT_CPU, (spent + SECONDS, resource.RLIM_INFINITY))
        data = mutated(turn, seed)
        keep.write_bytes(data)
        ran += tried(data)
    keep.unlink(missing_ok=True)
    return f"{runs} files: {ran} ran, {runs - ran} were refused"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failure.onnx"), help="where the last file is kept")
    told = parser.parse_args()
    print(main(told.runs, told.seed, told.keep))
    sys.exit(0)
