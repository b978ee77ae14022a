"""Exported nets are valid ONNX, ONNX Runtime computes the same numbers from them, and they say what they hold."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from native.test_layers import EXAMPLES, OWN

from convolve import (
    GELU,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    Layer,
    LeakyReLU,
    MaxPool,
    Model,
    Normalize,
    ReLU,
    Residual,
    Sequential,
    ops,
    zoo,
)
from convolve.cli.app import run
from convolve.errors import ConvolveError, FileError
from convolve.graph import Shape, Value, apply
from convolve.onnx.export import to_bytes
from convolve.ops.pool import Pool, PoolGradient
from convolve.window import Window

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

Array = np.ndarray[Any, Any]
OPSETS = range(18, onnx.defs.onnx_opset_version() + 1)
TOLERANCE = 1e-5


def exported(model: Model, **options: Any) -> Any:
    """The model as a parsed file that passed onnx's own check."""
    made = onnx.load_from_string(to_bytes(model.network, classes=model.classes, **options))
    onnx.checker.check_model(made, full_check=True)
    return made


def operators(made: Any) -> list[str]:
    return [node.op_type for node in made.graph.node]


def answer(made: Any, x: Array) -> Array:
    """What ONNX Runtime computes from a file."""
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    [y] = session.run(["output"], {"input": x})
    return np.asarray(y)


def close(got: Array, true: Array) -> bool:
    assert got.shape == true.shape
    return bool(np.abs(got - true).max() <= TOLERANCE * np.abs(true).max())


def normal(*shape: int) -> Array:
    return np.random.default_rng(3).standard_normal(shape, np.float32)


def randomised(layer: Layer, input_shape: Shape) -> Model:
    """A model whose parameters and statistics are no first values, but as well behaved."""
    model, random = Model(layer, input_shape, seed=1), np.random.default_rng(2)
    for name, array in model.parameters.items():
        noise = 0.1 * random.standard_normal(array.shape, np.float32)
        model.parameters[name] = array * (1 + noise) if array.any() else noise
    for name, array in model.statistics.items():
        model.statistics[name] = array + random.uniform(0.1, 0.3, array.shape).astype(np.float32)
    return model


def check(model: Model, *opsets: int, batch: int = 3) -> Any:
    """Export for each opset (18 by default), and compare with ONNX Runtime. Gives the last file."""
    x = normal(batch, *model.input_shape)
    true = model.predict(x)
    for opset in opsets or (18,):
        made = exported(model, opset=opset)
        got = np.moveaxis(answer(made, np.moveaxis(x, -1, 1)), 1, -1)
        assert close(got, true), f"opset {opset}"
    return made


LAYERS = [
    pytest.param(layer, shape, id=f"{name}{index}")
    for name, examples in (*EXAMPLES.items(), ("Own", OWN))
    if name != "Imported"
    for index, (layer, shape) in enumerate(examples)
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS)
def test_every_layer_is_exported(layer: Layer, shape: Shape) -> None:
    check(randomised(layer, shape), *OPSETS)


SMALL = {
    name: (64, 64, 3) if entry.input_shape == (224, 224, 3) else entry.input_shape for name, entry in zoo.NETS.items()
}


@pytest.mark.parametrize("name", zoo.NETS)
def test_every_net_of_the_zoo_is_exported(name: str) -> None:
    made = check(randomised(zoo.NETS[name].make(), SMALL[name]), batch=2)
    assert "Transpose" not in operators(made)


# what a file says


def small() -> Model:
    """Preprocessing, a block with names, and a flattening of several positions."""
    block = Residual(Conv(4, 3), BatchNorm(), LeakyReLU(0.2), name="block")
    net = Sequential(Normalize(128.0, 64.0), Conv(4, 3, name="stem"), block, MaxPool(2), Flatten(), Dropout(), Dense(3))
    model = randomised(net, (6, 4, 2))
    model.classes = ("cat", "dog", "\u00e9l\u00e9phant")
    return model


def test_names_are_kept() -> None:
    model = small()
    made = exported(model)
    paths = [row.path for row in model.network.forward(1).construction.rows]
    nodes = {node.name: node for node in made.graph.node}
    assert set(paths) - {"flatten1"} <= set(nodes)
    assert nodes["stem"].op_type == "Conv"
    assert nodes["block"].op_type == "Add"
    assert list(nodes["block.batch_norm1"].input)[1:] == [
        f"block.batch_norm1.{name}" for name in ("scale", "shift", "mean", "variance")
    ]
    assert {*model.parameters, *model.statistics} <= {array.name for array in made.graph.initializer}
    results = {path for path in paths if path in nodes and path in nodes[path].output}
    assert results == {*paths} - {paths[-1]}, "the last layer's result is the output"


def test_the_interface_is_channels_first_with_any_batch() -> None:
    made = exported(Model(Conv(5, 3, stride=2), input_shape=(8, 6, 3)))
    [given], [result] = made.graph.input, made.graph.output
    sizes = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (given, result)]
    assert (given.name, result.name, sizes) == ("input", "output", [["batch", 3, 8, 6], ["batch", 5, 4, 3]])
    assert operators(made) == ["Conv"]


def test_classes_and_nothing_else_are_metadata() -> None:
    model = small()
    assert [(p.key, json.loads(p.value)) for p in exported(model).metadata_props] == [("classes", [*model.classes])]
    model.classes = None
    assert not exported(model).metadata_props


def test_values_between_layers_are_those_of_trace() -> None:
    model, x = small(), normal(2, 6, 4, 2)
    made = exported(model)
    kept = [v for v in made.graph.value_info if v.name in ("normalize1", "stem", "block", "max_pool1")]
    made.graph.output.extend(kept)
    session = runtime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    trace = model.trace(x)
    names = [v.name for v in kept]
    for name, got in zip(names, session.run(names, {"input": np.moveaxis(x, -1, 1)}), strict=True):
        assert close(np.moveaxis(got, 1, -1), trace[name]), name
    assert len(names) == 4


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_a_net_that_does_nothing_is_a_file(layout: str) -> None:
    x = normal(2, 3, 3)
    assert (answer(exported(Model(Sequential(), (3, 3)), layout=layout), x) == x).all()


def test_layers_may_be_named_as_the_interface_is() -> None:
    check(Model(Sequential(Conv(3, 1, name="input"), ReLU(), Conv(3, 1, name="output")), (4, 2)))


def test_equal_models_are_equal_files() -> None:
    first, second = to_bytes(small().network), to_bytes(small().network)
    assert first == second
    changed = small()
    changed.parameters["stem.bias"] = changed.parameters["stem.bias"] + 1
    assert to_bytes(changed.network) != first


def test_files_do_not_depend_on_the_order_of_hashes() -> None:
    code = """if True:
        import hashlib
        from convolve import Concat, Conv, Flatten, GELU, Input, Model, Net, Upsample
        from convolve.onnx.export import to_bytes
        x = Input()
        net = Net(x, Flatten()(Concat()(GELU()(x), Upsample(2, "linear")(Conv(2, 3, stride=2)(x)))))
        print(hashlib.sha256(to_bytes(Model(net, (6, 4, 3)).network)).hexdigest())
    """
    made = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert len(made[0]) == 65
    assert made[0] == made[1]


# choices


def test_channels_last_stays_so() -> None:
    model, x = small(), normal(3, 6, 4, 2)
    assert close(answer(exported(model, layout="channels_last"), x), model.predict(x))
    made = exported(Model(Conv(3, 1), input_shape=(5, 4, 2)), layout="channels_last")
    assert operators(made) == ["Transpose", "Conv", "Transpose"]


def test_uint8_images_are_taken_as_they_are() -> None:
    model = small()
    x = np.random.default_rng(0).integers(0, 256, (2, 6, 4, 2), np.uint8)
    made = exported(model, dtype="uint8")
    assert close(answer(made, np.moveaxis(x, -1, 1)), model.predict(x))
    assert operators(made)[0] == "Cast"


def test_flat_features_move_in_the_weights() -> None:
    net = Sequential(Conv(4, 3), Flatten(), BatchNorm(), Dropout(), ReLU(), Dense(5), Dense(2))
    made = check(randomised(net, (3, 5, 2)))
    assert operators(made) == ["Conv", "Flatten", "BatchNormalization", "Dropout", "Relu", "Gemm", "Gemm"]


def test_flat_features_that_people_see_are_in_the_order_of_convolve() -> None:
    made = check(randomised(Sequential(Conv(4, 3), Flatten()), (3, 5, 2)))
    assert operators(made) == ["Conv", "Transpose", "Flatten"]


@pytest.mark.parametrize(("opset", "expected"), [(19, "Erf"), (20, "Gelu")])
def test_newer_opsets_have_operators_for_more(opset: int, expected: str) -> None:
    assert expected in operators(check(Model(GELU(), input_shape=(4, 3)), opset))


def test_arithmetic_between_layers_of_any_rank() -> None:
    @dataclass(frozen=True)
    class Mixed(Layer):
        name: str | None = None

        def build(self, scope: Any, x: Value) -> Value:  # type: ignore[override]
            n, h, w, c = x.shape
            y = scope.apply(Conv(c, 3), x)
            scale = scope.parameter("scale", (h, 1, c), "ones") + ops.vector(range(c))
            rows = ops.mean(y, (1, 3))  # (n, w)
            flat = ops.reshape(y, (n, h * w, c))
            turned = ops.reshape(ops.log_softmax(flat), (n, h, w, c))
            most = ops.max(y, (1, 2, 3))
            mask = ops.greater(y, ops.reshape(rows, (n, 1, w, 1)))
            seen = ops.where(mask, y * scale, y)
            joined = ops.concat(seen, turned, ops.broadcast(scale, (n, h, w, c)), axis=2)
            return ops.cut(joined, 2, 1, 2 * w + 1) / ops.reshape(ops.absolute(most) + 1.0, (n, 1, 1, 1))

    check(randomised(Mixed(), (4, 5, 3)))


# what cannot be


def test_an_unknown_opset_is_refused() -> None:
    model = Model(ReLU(), input_shape=(3,))
    for opset in (17, OPSETS[-1] + 1, "19"):
        with pytest.raises(ConvolveError, match=rf"from 18 to {OPSETS[-1]}.*Received: opset={opset!r}"):
            to_bytes(model.network, opset)  # type: ignore[arg-type]


def test_unknown_choices_are_refused(tmp_path: Path) -> None:
    model = Model(ReLU(), input_shape=(3,))
    with pytest.raises(ConvolveError, match=r"layout must be 'channels_first' or 'channels_last'.*'NCHW'"):
        model.export_onnx(tmp_path / "a.onnx", layout="NCHW")  # type: ignore[arg-type]
    with pytest.raises(ConvolveError, match=r"dtype must be 'float32' or 'uint8'.*'float16'"):
        model.export_onnx(tmp_path / "a.onnx", dtype="float16")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    model = small()
    path = tmp_path / "a.onnx"
    path.write_bytes(b"before")
    model.export_onnx(path, 19)
    assert path.read_bytes() == to_bytes(model.network, 19, classes=model.classes)
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileError, match=r"no/b.onnx: cannot be written.*Make the folder first"):
        model.export_onnx(tmp_path / "no" / "b.onnx")
    with pytest.raises(FileError, match=r"cannot be written.*Give the name of a file"):
        model.export_onnx(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


@dataclass(frozen=True)
class Learning(Layer):
    """A layer that does in inference what only training can mean."""

    name: str | None = None

    def build(self, scope: Any, x: Value) -> Value:  # type: ignore[override]
        window = Window((2,), (1,), (1,), ((0, 0),))
        pooled = apply(Pool("max", window), x)
        return apply(PoolGradient("max", window), x, pooled)


@dataclass(frozen=True)
class Mingling(Layer):
    """A sample's result depends on its batch."""

    name: str | None = None

    def build(self, scope: Any, x: Value) -> Value:  # type: ignore[override]
        return x - ops.mean(x, axes=0)


def test_a_layer_that_cannot_be_exported_is_named() -> None:
    model = Model(Sequential(Conv(2, 3), Learning(name="odd")), input_shape=(5, 2))
    with pytest.raises(ConvolveError, match=r"^odd: cannot be exported.*its op pool_gradient"):
        to_bytes(model.network)
    model = Model(Sequential(Conv(2, 3), Mingling()), input_shape=(5, 2))
    with pytest.raises(ConvolveError, match=r"^mingling1: Mingling cannot be .*depends on the batch size"):
        to_bytes(model.network)


def test_without_the_extra_the_message_is_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConvolveError, match=r"pip install 'convolve\[onnx\]'$"):
        to_bytes(small().network)


def test_more_than_a_file_can_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convolve.onnx.export.MOST_BYTES", 1000)
    with pytest.raises(ConvolveError, match="an ONNX file holds 2 GiB"):
        to_bytes(small().network)


# the command


def test_the_command_writes_what_the_model_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    model = small()
    model.save("small.safetensors")
    assert run(["export", "small.safetensors", "a.onnx", "--opset", "20", "--dtype", "uint8", "--json"]) == 0
    assert Path("a.onnx").read_bytes() == to_bytes(model.network, 20, dtype="uint8", classes=model.classes)
    assert json.loads(capsys.readouterr().out) == {"file": "a.onnx", "bytes": Path("a.onnx").stat().st_size}
    assert run(["export", "mlp", "b.onnx"]) == 0
    assert capsys.readouterr().out == "b.onnx: 0.3 MB\n"
    for arguments, sentence in (
        (["small.safetensors", "no/b.onnx"], "no/b.onnx: cannot be written"),
        (["small.safetensors", "c.onnx", "--opset", "17"], "opset must be a whole number from 18"),
        (["none", "c.onnx"], "none: no such file, folder or net"),
    ):
        assert run(["export", *arguments]) == 1
        error = capsys.readouterr().err
        assert sentence in error
        assert error.count("\n") == 1
    assert not Path("c.onnx").exists()
