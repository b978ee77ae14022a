"""What one process found out of a file, another may use: the same bits, or all anew."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from convolve import Model, from_onnx
from convolve.errors import FileError
from convolve.native import disk
from convolve.onnx import opening

SHAPE = (2, 3, 12, 10)
ANSWER = """
import sys
import numpy as np
from convolve import from_onnx
made = from_onnx(sys.argv[1]).predict(np.load(sys.argv[2]))
np.save(sys.argv[3], made)
"""
LOOK = """
rooms = {name.split(".")[1] for name in sys.modules if name.startswith("convolve.")}
assert not rooms & {"graph", "layers", "ops", "passes", "lowering"}, rooms
assert "llvmlite.ir" not in sys.modules
"""


def model(size: int | str = 12, stride: int = 1, scale: float = 1.0, bias: float = 0.0) -> ModelProto:
    """Two convolutions, one of large weights, and a table of zeros that follows from a constant."""
    random = np.random.default_rng(0)
    arrays = {
        "w": random.standard_normal((32, 3, 5, 5)).astype(np.float32) * scale,
        "b": np.full(32, bias, np.float32),
        "v": random.standard_normal((8, 32, 1, 1)).astype(np.float32),
        "shape": np.array([8], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["y"], "first", pads=[2, 2, 2, 2], strides=[stride] * 2),
        helper.make_node("Relu", ["y"], ["z"], "active"),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"], "zeros"),
        helper.make_node("Conv", ["z", "v", "zeros"], ["out"], "second"),
    ]
    values = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, c, size, None]) for n, c in (("x", 3), ("out", 8))
    ]
    values[1].type.tensor_type.shape.dim[2].Clear()
    initial = [numpy_helper.from_array(a, name) for name, a in arrays.items()]
    graph = helper.make_graph(nodes, "net", values[:1], values[1:], initial)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])


def data(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own; kernels that are in memory need none."""
    monkeypatch.setenv("CONVOLVE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def recalled(made: Model) -> bool:
    """Whether the net was never looked at."""
    return "net" not in vars(made.network)


def afresh(source: bytes, x: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """The answer where nothing is known of the file."""
    with monkeypatch.context() as patch:
        patch.setattr(opening, "sketched", lambda data: None)
        made = from_onnx(source)
        assert not recalled(made)
        return np.asarray(made.predict(x))


def test_another_process_answers_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, given, answer = (tmp_path / name for name in ("net.onnx", "x.npy", "y.npy"))
    path.write_bytes(model().SerializeToString())
    np.save(given, data())
    for program in (ANSWER, ANSWER + LOOK):
        subprocess.run([sys.executable, "-c", program, path, given, answer], check=True)
        np.testing.assert_array_equal(np.load(answer), afresh(path.read_bytes(), data(), monkeypatch))


def test_what_is_recalled_is_the_same_net() -> None:
    source = model().SerializeToString()
    first, second = from_onnx(source, (3, 12, 10)), from_onnx(source, (3, 12, 10))
    np.testing.assert_array_equal(first.predict(data()), second.predict(data()))
    made = from_onnx(source, (3, 12, 10))
    assert recalled(made)
    np.testing.assert_array_equal(made.predict(data()), first.predict(data()))
    assert recalled(made)
    assert str(made.summary()) == str(first.summary())
    assert made.to_bytes() == first.to_bytes()
    assert made.output_shape == first.output_shape
    assert made.parameter_count == first.parameter_count
    np.testing.assert_array_equal(made.copy().predict(data()), first.predict(data()))
    made.parameters["first.weight"] = np.zeros_like(made.parameters["first.weight"])
    assert not np.array_equal(made.predict(data()), first.predict(data()))


def test_weights_of_the_same_sizes_share_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large ones alone: a small constant may be part of the net."""
    from_onnx(model().SerializeToString()).predict(data())
    scaled = model(scale=2.0).SerializeToString()
    made = from_onnx(scaled)
    np.testing.assert_array_equal(made.predict(data()), afresh(scaled, data(), monkeypatch))
    assert recalled(made)


VIEWED = {
    "reshaped": [helper.make_node("Reshape", ["w", "to"], ["v"])],
    "turned": [helper.make_node("Transpose", ["w"], ["t"]), helper.make_node("Reshape", ["t", "turned"], ["v"])],
    "cut": [
        helper.make_node("Cast", ["w"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("Identity", ["c"], ["i"]),
        helper.make_node("Unsqueeze", ["i", "first"], ["u"]),
        helper.make_node("Squeeze", ["u", "first"], ["s"]),
        helper.make_node("Slice", ["s", "first", "end", "last"], ["v"]),
    ],
}
"""Ways from a constant (600, 480) to a weight of some columns."""


def viewed(way: str, scale: float) -> ModelProto:
    """A product with a weight that is another constant seen in another way."""
    large = np.random.default_rng(0).standard_normal((600, 480)).astype(np.float32) * scale
    arrays: dict[str, np.ndarray] = {"w": large}
    for name, value in {"to": [600, -1], "turned": [480, 600], "first": [0], "end": [240], "last": [1]}.items():
        arrays[name] = np.array(value, np.int64)
    rows, columns = {"turned": (480, 600), "cut": (600, 240)}.get(way, (600, 480))
    values = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, rows]),
        helper.make_tensor_value_info("out", TensorProto.FLOAT, [2, columns]),
    ]
    nodes = [*VIEWED[way], helper.make_node("MatMul", ["x", "v"], ["out"], "dense")]
    initial = [numpy_helper.from_array(a, name) for name, a in arrays.items()]
    graph = helper.make_graph(nodes, "net", values[:1], values[1:], initial)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])


@pytest.mark.parametrize("way", VIEWED)
def test_a_weight_seen_in_another_way_is_found_where_the_file_has_it(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (viewed(way, scale).SerializeToString() for scale in (1.0, 2.0))
    x = data((2, 480 if way == "turned" else 600))
    from_onnx(first).predict(x)
    made = from_onnx(second)
    np.testing.assert_array_equal(made.predict(x), afresh(second, x, monkeypatch))
    assert recalled(made)
    assert made.to_bytes() == from_onnx(second).to_bytes()
    assert str(made.summary()) == str(from_onnx(first).summary())
    assert not recalled(made)


def test_what_is_computed_of_a_large_constant_is_read_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its elements nothing is in the digest."""
    monkeypatch.setitem(VIEWED, "added", [helper.make_node("Add", ["w", "w"], ["v"])])
    for scale in (1.0, 2.0):
        source = viewed("added", scale).SerializeToString()
        made = from_onnx(source)
        np.testing.assert_array_equal(made.predict(data((2, 600))), afresh(source, data((2, 600)), monkeypatch))
        assert not recalled(made)


@pytest.mark.parametrize("change", [{"bias": 1.0}, {"stride": 2}, {"size": "h"}], ids=str)
def test_another_net_is_read(change: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    from_onnx(model().SerializeToString()).predict(data())
    other = model(**change).SerializeToString()  # type: ignore[arg-type]
    made = from_onnx(other)
    assert not recalled(made)
    np.testing.assert_array_equal(made.predict(data()), afresh(other, data(), monkeypatch))


def test_another_version_or_target_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    source = model().SerializeToString()
    from_onnx(source)
    assert recalled(from_onnx(source))
    monkeypatch.setattr(opening, "_surroundings", lambda: "another")
    assert not recalled(from_onnx(source))


def test_each_shape_has_its_program(monkeypatch: pytest.MonkeyPatch) -> None:
    source = model("h").SerializeToString()
    shapes = [(2, 3, 12, 10), (2, 3, 7, 9)]
    for expected in (0, 2, 2):
        assert len(disk.entries("program")) == expected
        made = from_onnx(source)
        for shape in shapes:
            np.testing.assert_array_equal(made.predict(data(shape)), afresh(source, data(shape), monkeypatch))
    assert recalled(made)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def foreign(path: Path) -> None:
    """A sound entry of another net under this one's name."""
    kind = path.suffix[1:]
    mine = {p: p.read_bytes() for p in disk.entries(kind)}
    from_onnx(model(stride=2).SerializeToString()).predict(data())
    [other] = [p for p in disk.entries(kind) if p not in mine]
    path.write_bytes(other.read_bytes())


@pytest.mark.parametrize("kind", ["net", "program"])
@pytest.mark.parametrize("damage", [flip, cut, empty, foreign])
def test_a_damaged_entry_is_made_again(
    kind: str, damage: Callable[[Path], None], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = model().SerializeToString()
    from_onnx(source).predict(data())
    [entry] = folder.glob(f"*.{kind}")
    sound = entry.read_bytes()
    damage(entry)
    assert entry.read_bytes() != sound
    made = from_onnx(source)
    np.testing.assert_array_equal(made.predict(data()), afresh(source, data(), monkeypatch))
    assert entry.read_bytes() == sound
    assert not recalled(made)


def test_kernels_that_were_deleted_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from convolve.native import cache

    source = model().SerializeToString()
    true = from_onnx(source).predict(data())
    monkeypatch.setattr(cache, "_addresses", {})
    made = from_onnx(source)
    np.testing.assert_array_equal(made.predict(data()), true)
    assert not recalled(made)


def test_entries_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(disk.KINDS, "program", 3)
    made = from_onnx(model("h").SerializeToString())
    for height in range(5, 10):
        made.predict(data((2, 3, height, 8)))
    assert len(disk.entries("program")) == 3
    assert disk.clear() == len(disk.entries())
    assert not any(disk.entries(kind) for kind in disk.KINDS)


def test_what_is_refused_leaves_no_word() -> None:
    source = model().SerializeToString()
    for spoilt in (source[:-300], source[: len(source) // 2], source.replace(b"ConstantOfShape", b"ConstantOfShade")):
        with pytest.raises(FileError):
            from_onnx(spoilt)
    assert not disk.entries("net")
    assert not disk.entries("program")
