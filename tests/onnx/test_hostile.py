"""Damaged and hostile files: a clear error, in bounded time and memory, never a crash."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzz
import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from convolve import from_onnx
from convolve.errors import ConvolveError, FileError
from convolve.onnx import wire

RUNS = 600


@pytest.mark.parametrize("seed", [0, 1])
def test_mutated_files_are_refused_or_run(tmp_path: Path, seed: int) -> None:
    """In a process of its own: what would end it must not end the tests."""
    last = tmp_path / "last.onnx"
    command = [sys.executable, fuzz.__file__, "--runs", str(RUNS), "--seed", str(seed), "--keep", str(last)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"the file is {last}\n{done.stderr[-2000:]}"
    found = re.search(r"(\d+) ran, (\d+) were refused", done.stdout)
    assert found
    assert min(int(n) for n in found.groups()) > RUNS // 20


def test_the_files_to_begin_with_run() -> None:
    assert all(fuzz.tried(model.SerializeToString()) for model in fuzz.SEEDS)


def base() -> ModelProto:
    model = ModelProto()
    model.CopyFrom(fuzz.SEEDS[0])
    return model


def cycle(model: ModelProto) -> None:
    model.graph.node[0].input[0] = "y"


def dangling(model: ModelProto) -> None:
    model.graph.node[2].input[0] = "nobody"


def twice(model: ModelProto) -> None:
    model.graph.node[2].output[0] = model.graph.node[3].input[0] = "c"


def without_output(model: ModelProto) -> None:
    del model.graph.output[:]


def disagreeing(model: ModelProto) -> None:
    [w] = [t for t in model.graph.initializer if t.name == "w"]
    w.CopyFrom(numpy_helper.from_array(np.zeros((4, 2, 3, 3), np.float32), "w"))


def short(model: ModelProto) -> None:
    model.graph.initializer[0].raw_data = bytes(428)


def negative(model: ModelProto) -> None:
    model.graph.initializer[0].dims[0] = -4


def enormous(model: ModelProto) -> None:
    model.graph.initializer[0].dims[0] = 2**62


def enormous_input(model: ModelProto) -> None:
    for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim, (1, 3, 2**20, 2**20), strict=True):
        dim.dim_value = size


def many_dimensions(model: ModelProto) -> None:
    model.graph.initializer[0].dims.extend([1] * 100_000)


def missing_input(model: ModelProto) -> None:
    del model.graph.node[0].input[1:]


def negative_stride(model: ModelProto) -> None:
    [strides] = [a for a in model.graph.node[0].attribute if a.name == "strides"]
    strides.ints[0] = -2


def text(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING


def without_opset(model: ModelProto) -> None:
    del model.opset_import[:]


def sparse(model: ModelProto) -> None:
    model.graph.sparse_initializer.add()


REFUSED: dict[Callable[[ModelProto], None], str] = {
    cycle: r"conv reads 'y', which no earlier node makes",
    dangling: r"relu reads 'nobody', which no earlier node makes",
    twice: r"the name 'c' stands for two values",
    without_output: r"no graph with an output",
    disagreeing: r"conv: Conv: convolution of an input .*Received: inputs of shape",
    short: r"constant w: 108 elements of float32 are 432 bytes\. Received: 428",
    negative: r"constant w: no array has the shape \(-4, 3, 3, 3\)",
    enormous: r"constant w: no array has the shape",
    enormous_input: r"x: no array has the shape|elements",
    many_dimensions: r"constant w: no array has the shape",
    missing_input: r"conv: Conv: takes 2 to 3 inputs\. Received: 1",
    negative_stride: r"conv: Conv: stride must be at least 1",
    text: r"x: expected elements of float32.*Received: ",
    without_opset: r"expected an opset",
    sparse: r"sparse constants",
}
"""What is done to a model, and what is said of it."""


@pytest.mark.parametrize("spoil", REFUSED, ids=lambda spoil: spoil.__name__)
def test_a_spoilt_file_is_refused_with_its_name_and_what_is_wrong(
    tmp_path: Path, spoil: Callable[[ModelProto], None]
) -> None:
    model, path = base(), tmp_path / "spoilt.onnx"
    spoil(model)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ConvolveError, match=REFUSED[spoil]) as caught:
        from_onnx(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_million_nodes_are_refused() -> None:
    node = wire.message(1, helper.make_node("Relu", ["x"], ["y"]).SerializeToString())
    data = base().SerializeToString() + wire.message(7, node * 1_000_000)
    with pytest.raises(FileError, match="has more than 20,000 nodes"):
        from_onnx(data)


@pytest.mark.parametrize("part", [0, 1, 10, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(part: float) -> None:
    data = base().SerializeToString()
    with pytest.raises(ConvolveError):
        from_onnx(data[: int(part if part >= 1 else len(data) * part)])


@pytest.mark.parametrize("path", ["/nowhere/net.onnx", "/dev/zero", "/", "with\0null"])
def test_what_is_no_file_is_refused(path: str) -> None:
    with pytest.raises(FileError, match=r"cannot be read"):
        from_onnx(path)


# constants elsewhere


def outside(folder: Path, location: str, **told: str) -> Path:
    """A model one of whose weights lies in another file."""
    model, path = base(), folder / "net.onnx"
    [w] = [t for t in model.graph.initializer if t.name == "w"]
    (folder / "weights.bin").write_bytes(b"12345678" + w.raw_data)
    w.ClearField("raw_data")
    w.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **told}.items():
        entry = w.external_data.add()
        entry.key, entry.value = key, value
    path.write_bytes(model.SerializeToString())
    return path


def test_weights_may_lie_in_another_file_of_the_folder(tmp_path: Path) -> None:
    x = np.ones((2, 3, 8, 6), np.float32)
    found = from_onnx(outside(tmp_path, "weights.bin", offset="8", length="432"))
    np.testing.assert_array_equal(found.predict(x), from_onnx(base().SerializeToString()).predict(x))


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("../weights.bin", {}),
        ("/etc/passwd", {}),
        ("link.bin", {}),
        ("nothing.bin", {}),
        (".", {}),
        ("weights.bin", {"offset": "9"}),
        ("weights.bin", {"offset": "-1"}),
        ("weights.bin", {"offset": "8", "length": "400"}),
        ("weights.bin", {"offset": "eight"}),
    ],
)
def test_weights_outside_of_the_folder_or_the_file_are_refused(
    tmp_path: Path, location: str, told: dict[str, str]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(1000))
    (folder / "link.bin").symlink_to(tmp_path / "weights.bin")
    path = outside(folder, location, **told)
    with pytest.raises(FileError, match=r"constant w: "):
        from_onnx(path)
    with pytest.raises(FileError, match=r"constant w: "):
        from_onnx(path.read_bytes())


# small files that ask for much


def bomb(*nodes: Any, **values: list[int]) -> bytes:
    """A file whose last node's output is the net's, beside what it reads of x."""
    initial = [numpy_helper.from_array(np.array(v, np.int64), name) for name, v in values.items()]
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 1, 4, 4]) for n in ("x", nodes[-1].output[0])]
    graph = helper.make_graph(list(nodes), "bomb", info[:1], info[1:], initial)
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())


node = helper.make_node
BOMBS = {
    "constant": bomb(node("ConstantOfShape", ["s"], ["k"]), node("Add", ["x", "k"], ["y"]), s=[2**20, 2**20]),
    "sums": bomb(
        node("ConstantOfShape", ["s"], ["k"]),
        *(node("Add", ["k" if i == 0 else f"k{i}"] * 2, [f"k{i + 1}"]) for i in range(40)),
        node("Add", ["x", "k40"], ["y"]),
        s=[2**13, 2**13],
    ),
    "steps": bomb(
        node("Constant", [], ["w"], value=numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32))),
        node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2**18]),
    ),
    "tiles": bomb(node("Tile", ["x", "s"], ["y"]), s=[1, 1, 2**20, 2**20]),
    "expansion": bomb(node("Expand", ["x", "s"], ["y"]), s=[2**30, 1, 4, 4]),
    "pads": bomb(node("Pad", ["x", "s"], ["y"]), s=[0, 0, 2**40, 0, 0, 0, 0, 0]),
    "sizes": bomb(node("Resize", ["x", "", "", "s"], ["y"]), s=[1, 1, 2**30, 4]),
    "rank": bomb(node("Reshape", ["x", "s"], ["y"]), s=[1] * 50_000 + [16]),
    "range": bomb(node("Range", ["a", "b", "c"], ["k"]), node("Add", ["x", "k"], ["y"]), a=[0], b=[2**60], c=[1]),
    "depth": bomb(
        node("Constant", [], ["d"], value_int=2**40),
        node("Constant", [], ["v"], value_floats=[0.0, 1.0]),
        node("OneHot", ["x", "d", "v"], ["y"]),
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_that_asks_for_much_is_refused(name: str) -> None:
    with pytest.raises(ConvolveError):
        from_onnx(BOMBS[name])
