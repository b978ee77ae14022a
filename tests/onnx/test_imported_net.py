"""An imported net is a net: it is looked into, trained, given another head, saved, and used from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from convolve import (
    Conv,
    Dense,
    Flatten,
    GlobalAvgPool,
    Model,
    ReLU,
    Residual,
    Sequential,
    Softmax,
    from_onnx,
    load,
    optim,
)
from convolve.cli.app import run
from convolve.errors import ConvolveError, FileError, ShapeError
from convolve.onnx.export import to_bytes


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def net(batch: int | str = "N", side: int | str = 12, softmax: bool = True) -> bytes:
    """A net as exporters write it: a norm behind a convolution, a squeezed weight, a reshape with the batch in it."""
    weights = {
        "w1": normal(8, 3, 3, 3) * 0.3,
        "scale": np.abs(normal(8)) + 0.5,
        "shift": normal(8),
        "mean": normal(8) * 0.1,
        "variance": np.abs(normal(8)) + 0.5,
        "w2": normal(8, 1, 3, 3) * 0.3,
        "b2": normal(8),
        "w3": normal(8, 4) * 0.3,
        "b3": normal(4),
        "target": np.array([batch if isinstance(batch, int) else 0, 8], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], "stem/Conv", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("BatchNormalization", ["c1", "scale", "shift", "mean", "variance"], ["n1"], "stem/norm"),
        helper.make_node("Relu", ["n1"], ["r1"], "stem/Relu"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "body", auto_pad="SAME_UPPER", group=8),
        helper.make_node("Add", ["c2", "r1"], ["s"], "join"),
        helper.make_node("GlobalAveragePool", ["s"], ["p"], "pool"),
        helper.make_node("Reshape", ["p", "target"], ["f"], "flat"),
        helper.make_node("MatMul", ["f", "w3"], ["m"], "head"),
        helper.make_node("Add", ["m", "b3"], ["y" if not softmax else "z"], "head_bias"),
        *([helper.make_node("Softmax", ["z"], ["y"], "probabilities", axis=1)] if softmax else []),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, side, side])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 4])],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in weights.items()],
    )
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())


def labelled(count: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Images whose class is which of three channels is bright."""
    y = np.arange(count) % 3
    x = normal(count, 3, 12, 12) * 0.3
    x[np.arange(count), y] += 1
    return x, y


def test_a_summary_has_the_nodes_with_their_rules() -> None:
    rows = {row.path: row for row in from_onnx(net()).summary(audit=True).rows}
    assert rows["stem"].kind == "Conv"
    assert rows["stem"].pads == ((1, 1), (1, 1))
    assert rows["stem"].output_shape == (6, 6, 8)
    assert rows["stem"].receptive_field == (3, 3)
    assert rows["body"].receptive_field == (7, 7)
    assert rows["stem"].rule == "pads: 1+1 1+1"
    assert rows["body"].rule == "auto_pad SAME_UPPER: 1+1 1+1"
    assert rows["head"].parameters == 32
    assert "auto_pad SAME_UPPER" in str(from_onnx(net()).summary(audit=True))
    assert "auto_pad" not in str(from_onnx(net()).summary())


def test_a_trace_has_every_node_as_it_is_defined() -> None:
    model, x = from_onnx(net()), normal(2, 3, 12, 12)
    trace = model.trace(x)
    assert trace["stem"].shape == (2, 6, 6, 8)
    np.testing.assert_allclose(trace["join"], trace["body"] + trace["stem_Relu"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(trace["probabilities"], model.predict(x), rtol=1e-4, atol=1e-6)


def test_explain_names_the_nodes() -> None:
    assert {"stem_Relu", "body", "head_bias"} <= {row.label for row in from_onnx(net()).explain().rows}


def test_explain_names_what_brings_results_into_the_order_of_the_file() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["maps"], "conv")]
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, 6, 5]) for name in ("x", "maps")]
    weights = [numpy_helper.from_array(normal(3, 3, 1, 1), "w")]
    made = helper.make_model(helper.make_graph(nodes, "g", info[:1], info[1:], weights))
    rows = from_onnx(made.SerializeToString()).explain().rows
    assert [row.label for row in rows if row.kernel == "Transpose"] == ["conv", "maps"]


def test_a_net_of_several_inputs_is_explained() -> None:
    """Of whole numbers, which one of them takes, there are none but zeros."""
    nodes = [
        helper.make_node("Cast", ["count"], ["number"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Div", ["x", "number"], ["y"], "share"),
    ]
    info = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 5]),
        helper.make_tensor_value_info("count", TensorProto.INT64, ["N", 1]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5]),
    ]
    made = helper.make_model(helper.make_graph(nodes, "g", info[:2], info[2:]))
    model = from_onnx(made.SerializeToString())
    assert {row.label for row in model.explain(batch_size=3).rows} >= {"share"}
    with pytest.raises(ShapeError, match=r"dict with an array for each of x, count\. Received: x"):
        model.predict(normal(2, 5))


def test_what_is_saved_comes_back_with_all_its_bits(tmp_path: Path) -> None:
    model, x = from_onnx(net()), normal(3, 3, 12, 12)
    model.save(tmp_path / "net.safetensors")
    again = load(tmp_path / "net.safetensors")
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    np.testing.assert_array_equal(model.copy().predict(x), model.predict(x))


@pytest.mark.parametrize("batch", ["N", 1, 4])
def test_a_net_is_trained_whatever_batch_its_file_is_made_for(batch: int | str) -> None:
    model = from_onnx(net(batch, softmax=False))
    x, y = labelled()
    before = {name: array.copy() for name, array in model.statistics.items()}
    history = model.fit(x, y, epochs=8, batch_size=32, optimizer=optim.AdamW(1e-2))
    assert history["loss"][-1] < history["loss"][0] / 2
    assert model.evaluate(x, y)["accuracy"] > 0.9
    assert not np.array_equal(before["stem_norm.mean"], model.statistics["stem_norm.mean"])


def test_the_softmax_in_which_a_file_ends_is_left_out_of_the_loss() -> None:
    """Both nets have the same logits: so have their losses, gradients and steps the same numbers."""
    (x, y), ends, bare = labelled(24), from_onnx(net()), from_onnx(net(softmax=False))
    np.testing.assert_allclose(ends.predict(x).sum(-1), 1, rtol=1e-5)
    found, true = ends.evaluate(x, y), bare.evaluate(x, y)
    assert found == true
    (loss, gradients), (other, wanted) = ends.gradients(x, y), bare.gradients(x, y)
    assert loss == other
    for name, gradient in wanted.items():
        np.testing.assert_array_equal(gradients[name], gradient)
    assert ends.fit(x, y, epochs=2, batch_size=8)["loss"] == bare.fit(x, y, epochs=2, batch_size=8)["loss"]
    assert {row.kernel for row in ends.explain(training=True).rows}


def test_a_file_for_batches_of_one_size_takes_several_such_batches() -> None:
    model, x = from_onnx(net(2)), normal(6, 3, 12, 12)
    np.testing.assert_array_equal(model.predict(x), from_onnx(net()).predict(x))
    with pytest.raises(ShapeError, match=r"batches of 2\. Received: 5"):
        model.predict(x[:5])


def test_sizes_that_the_file_leaves_open_are_those_of_the_call() -> None:
    model, small, large = from_onnx(net(side="side")), normal(2, 3, 12, 12), normal(1, 3, 20, 20)
    np.testing.assert_array_equal(model.predict(small), from_onnx(net()).predict(small))
    assert model.predict(large).shape == (1, 4)
    for ask in (model.summary, lambda: model.input_shape, lambda: model.fit(small, [0, 1])):
        with pytest.raises(ShapeError, match="input_shape"):
            ask()
    bound = from_onnx(net(side="side"), input_shape=(3, 20, 20))
    assert bound.summary().rows[0].output_shape == (10, 10, 8)
    np.testing.assert_array_equal(bound.predict(large), model.predict(large))
    with pytest.raises(ShapeError, match=r"expected x \(N, 3, side, side\).*Received: shape \(1, 4, 9, 9\)"):
        model.predict(normal(1, 4, 9, 9))
    with pytest.raises(ShapeError, match="input_shape"):
        from_onnx(net(side="side"), input_shape=(4, 20, 20))


# heads


def test_an_imported_head_is_replaced_and_the_softmax_left_out() -> None:
    model, x = from_onnx(net()), normal(3, 3, 12, 12)
    features = model.trace(x)["flat"]
    old = dict(model.parameters)
    model.replace_head(["red", "green", "blue"], seed=3)
    assert model.output_shape == (3,)
    assert model.parameters["head.weight"].shape == (3, 8)
    assert model.parameters["head_bias.bias"].shape == (3,)
    assert np.abs(model.parameters["head.weight"]).min() > 0
    for name in old.keys() - {"head.weight", "head_bias.bias"}:
        np.testing.assert_array_equal(model.parameters[name], old[name])
    np.testing.assert_allclose(model.trace(x)["flat"], features, rtol=1e-5, atol=1e-6)
    assert set(model.classify(x)) <= {"red", "green", "blue"}
    images, labels = labelled()
    model.fit(images, labels, epochs=6, batch_size=32, optimizer=optim.AdamW(1e-2))
    assert model.evaluate(images, labels)["accuracy"] > 0.9


def test_a_head_that_makes_maps_of_one_position_makes_a_row() -> None:
    """As SqueezeNet's: a convolution, then the mean of its positions."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], "flatten", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["y_map"], "active"),
        helper.make_node("Conv", ["y_map", "w2", "b2"], ["c2"], "head"),
        helper.make_node("GlobalAveragePool", ["c2"], ["p"], "pool"),
        helper.make_node("Softmax", ["p"], ["y"], "shares", axis=1),
    ]
    weights = {"w1": normal(8, 3, 3, 3) * 0.3, "w2": normal(5, 8, 1, 1) * 0.3, "b2": normal(5)}
    shapes = {"x": ["N", 3, 12, 12], "y": ["N", 5, 1, 1]}
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    initial = [numpy_helper.from_array(a, name) for name, a in weights.items()]
    graph = helper.make_graph(nodes, "maps", info[:1], info[1:], initial)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model, (x, y) = from_onnx(made.SerializeToString()), labelled(48)
    assert model.replace_head(3) == "head"
    assert model.output_shape == (3,)
    model.fit(x, y, epochs=8, batch_size=16, optimizer=optim.AdamW(2e-2))
    assert model.evaluate(x, y)["accuracy"] > 0.9
    np.testing.assert_array_equal(from_onnx(to_bytes(model.network)).predict(x), model.predict(x))


@pytest.mark.parametrize(
    ("layers", "head"),
    [
        ((Conv(4, 3), ReLU(), Flatten(), Dense(10)), "dense1"),
        ((Conv(4, 3), ReLU(), Flatten(), Dense(10), Softmax()), "dense1"),
        ((Residual(Conv(3, 3), ReLU()), Conv(10, 1), ReLU(), GlobalAvgPool()), "conv1"),
        ((Conv(4, 3), Sequential(Flatten(), Dense(10))), "sequential1.dense1"),
    ],
)
@pytest.mark.parametrize("classes", [2, 10])
def test_the_head_of_a_native_net_is_replaced(layers: Any, head: str, classes: int) -> None:
    model, x = Model(Sequential(*layers), input_shape=(6, 6, 3), seed=1), normal(2, 6, 6, 3)
    old = dict(model.parameters)
    model.replace_head(classes, seed=5)
    assert model.predict(x).shape == (2, classes)
    assert not any(isinstance(row.layer, Softmax) for row in model.network.forward(1).construction.rows)
    assert not np.array_equal(model.parameters[f"{head}.weight"], old[f"{head}.weight"])
    for name in old:
        if not name.startswith(f"{head}."):
            np.testing.assert_array_equal(model.parameters[name], old[name])


def test_what_is_no_head_is_refused() -> None:
    shared = Dense(3)
    for made, message in (
        (Model(Sequential(Conv(3, 3), GlobalAvgPool()), (5, 5, 1)), None),
        (Model(Sequential(Flatten(), shared, shared), (3,)), "used more than once"),
        (Model(Sequential(Flatten(), Dense(3), Residual(ReLU())), (3,)), None),
        (Model(Sequential(Flatten()), (3,)), "Dense or a Conv"),
    ):
        if message is None:
            made.replace_head(2) if made.net.layers[-1] != Residual(ReLU()) else None  # type: ignore[attr-defined]
        else:
            with pytest.raises(ConvolveError, match=message):
                made.replace_head(2)
    with pytest.raises(ConvolveError, match="classes"):
        from_onnx(net()).replace_head(0)


# freezing


@pytest.mark.parametrize("imported", [True, False])
def test_frozen_layers_keep_every_bit_and_the_others_learn(imported: bool) -> None:
    x, y = labelled()
    if imported:
        model, until, kept = from_onnx(net(softmax=False)), "head", {"stem", "stem_norm", "body"}
    else:
        x = np.moveaxis(x, 1, -1)
        layers = (Residual(Conv(3, 3), ReLU(), Conv(3, 3)), Conv(8, 3), ReLU(), GlobalAvgPool(), Dense(4))
        model, until, kept = Model(Sequential(*layers), (12, 12, 3)), "conv1", {"residual1.conv1", "residual1.conv2"}
    model.freeze(until)
    before = {name: a.copy() for name, a in (*model.parameters.items(), *model.statistics.items())}
    model.fit(x, y, epochs=2, batch_size=32, optimizer=optim.AdamW(1e-2, weight_decay=0.1))
    after = {**model.parameters, **model.statistics}
    changed = {name.rpartition(".")[0] for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {name.rpartition(".")[0] for name in before} - kept
    _, gradients = model.gradients(x[:8], y[:8])
    assert set(gradients) == set(model.network.trained)
    model.freeze(None)
    assert set(model.network.trained) == set(model.parameters)


def test_freezing_until_what_is_not_there_is_refused_with_what_is() -> None:
    with pytest.raises(ConvolveError, match=r"no layer is called 'layer4'\. There are stem, stem_norm"):
        from_onnx(net()).freeze("layer4")


def test_a_net_with_nothing_left_to_learn_is_not_trained() -> None:
    model = Model(Sequential(Conv(2, 3), ReLU(), GlobalAvgPool()), (4, 4, 1))
    model.freeze("relu1")
    with pytest.raises(ConvolveError, match="frozen"):
        model.fit(normal(4, 4, 4, 1), [0, 1, 0, 1])


# files and the command line


def test_unknown_operators_are_listed_with_their_nodes() -> None:
    nodes = [
        helper.make_node("Einsum", ["x"], ["a"], "first", equation="ij->ji"),
        helper.make_node("Einsum", ["a"], ["b"], "second", equation="ij->ji"),
        helper.make_node("NonZero", ["b"], ["y"], "third"),
    ]
    types = {"x": TensorProto.FLOAT, "y": TensorProto.INT64}
    info = [helper.make_tensor_value_info(name, type_, [2, 2]) for name, type_ in types.items()]
    model = helper.make_model(helper.make_graph(nodes, "g", info[:1], info[1:]))
    with pytest.raises(FileError, match=r"operator Einsum \(first, second\); operator NonZero \(third\)"):
        from_onnx(model.SerializeToString())


def test_the_commands_take_onnx_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(net())
    assert run(["summary", str(path), "--audit"]) == 0
    assert "auto_pad SAME_UPPER" in capsys.readouterr().out
    assert run(["explain", str(path), "--quiet"]) == 0
    x, y = labelled()
    images = np.moveaxis(np.clip(x * 80 + 80, 0, 255), 1, -1).astype(np.uint8)
    np.savez(tmp_path / "set.npz", x_train=images, y_train=y, x_test=images[:30], y_test=y[:30])
    open_ = tmp_path / "open.onnx"
    open_.write_bytes(net(side="side"))
    capsys.readouterr()
    for command in ("summary", "explain"):
        assert run([command, str(open_)]) == 0
        assert capsys.readouterr().out.startswith("The net takes other sizes, too; here it takes 3 \u00d7 224")
    out = tmp_path / "run"
    told = ["--epochs", "2", "--batch-size", "16", "--alone", "--out", str(out), "--quiet"]
    assert run(["train", str(tmp_path / "set.npz"), "--net", str(path), *told]) == 0
    assert run(["evaluate", str(out), str(tmp_path / "set.npz")]) == 0
    assert "net.stem.weight" in load(out / "model.safetensors").parameters


def test_a_picture_is_classified_by_a_net_that_takes_any_size_and_gives_a_map_of_one_position(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv"),
        helper.make_node("GlobalAveragePool", ["c"], ["p"], "pool"),
        helper.make_node("Softmax", ["p"], ["y"], "shares", axis=1),
    ]
    info = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "h", "w"]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4, 1, 1]),
    ]
    weights = [numpy_helper.from_array(normal(4, 3, 3, 3) * 0.01, "w")]
    graph = helper.make_graph(nodes, "map", info[:1], info[1:], weights)
    opset = [helper.make_opsetid("", 17)]
    path = tmp_path / "map.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=opset).SerializeToString())
    pixels, photo = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8), tmp_path / "photo.png"
    Image.fromarray(pixels).save(photo)
    x = np.moveaxis(pixels[None].astype(np.float32), -1, 1)
    assert run(["predict", str(path), str(photo), "--json"]) == 0
    said = capsys.readouterr()
    assert "here it takes 20 \u00d7 30 \u00d7 3" in said.err
    [row] = json.loads(said.out)
    true = from_onnx(path).predict(x).ravel()
    assert [c["class"] for c in row["classes"]] == [str(i) for i in np.argsort(-true)[:3]]
    assert row["probability"] == pytest.approx(float(true.max()), rel=1e-4)
