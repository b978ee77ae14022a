"""Imported nets give what ONNX Runtime gives: small graphs, the light models with random weights, real models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, checker, helper, numpy_helper

from convolve import from_onnx
from convolve.layers.imported import HANDLERS
from convolve.layers.imported.folding import FOLDS
from light_models import NAMES, SHAPE, with_weights

onnxruntime = pytest.importorskip("onnxruntime")

REAL = Path(__file__).parents[3] / "shared" / "models"
"""Models from elsewhere, which are not part of the repository."""
SIZES = {"ch_ppocr_mobile_v2.0_cls_infer": (1, 3, 48, 192), "mtcnn_pnet": (2, 61, 80, 3)}
"""Shapes for the models that leave their input's open."""
TOLERANCE = 1e-4
"""Largest difference over the largest element."""


def normal(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def truth(model: bytes, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What ONNX Runtime makes of it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def assert_alike(got: Any, true: Mapping[str, np.ndarray], tolerance: float = TOLERANCE) -> None:
    made = got if isinstance(got, dict) else {next(iter(true)): got}
    assert list(made) == list(true)
    for name, expected in true.items():
        assert made[name].shape == expected.shape
        assert np.abs(made[name] - expected).max() <= tolerance * np.abs(expected).max(), name


def small_net() -> bytes:
    """What an exporter makes of a small convolutional net."""
    weights = {"w1": (6, 3, 3, 3), "b1": (6,), "w2": (5, 6 * 4 * 5), "b2": (5,)}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c"], name="/conv1/Conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["y"], name="fc", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 10])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(normal(shape), name) for name, shape in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    checker.check_model(model)
    return bytes(model.SerializeToString())


def test_a_small_net_keeps_its_interface_and_its_names() -> None:
    model, x = from_onnx(small_net()), normal((3, 3, 8, 10))
    assert_alike(model.predict(x), truth(small_net(), {"x": x}), 1e-6)
    shapes = {name: array.shape for name, array in model.parameters.items()}
    assert shapes == {"conv1.weight": (6, 3, 3, 3), "conv1.bias": (6,), "fc.weight": (5, 120), "fc.bias": (5,)}
    assert (model.input_shape, model.output_shape) == ((3, 8, 10), (5,))


def test_the_flattened_features_of_a_weight_are_brought_to_channels_last() -> None:
    [w] = [t for t in _initial(small_net()) if t.name == "w2"]
    expected = numpy_helper.to_array(w).reshape(5, 6, 4, 5).transpose(0, 2, 3, 1).reshape(5, 120)
    np.testing.assert_array_equal(from_onnx(small_net()).parameters["fc.weight"], expected)


def _initial(data: bytes) -> Any:
    from onnx import load_from_string

    return load_from_string(data).graph.initializer


def test_the_documentation_lists_the_operators_that_are_known() -> None:
    told = re.search(r"training:\s+(.+?)\.\s+Args:", from_onnx.__doc__ or "", re.DOTALL)
    assert told
    assert re.split(r",\s+", told[1]) == sorted({*HANDLERS, *FOLDS, "Constant"})


@pytest.mark.parametrize("name", NAMES)
def test_light_models_with_random_weights(name: str) -> None:
    data, x = with_weights(name), normal(SHAPE)
    model = from_onnx(data)
    assert_alike(model.predict(x), truth(data, {model.network.ports[0].name: x}))


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no models at {REAL}")
@pytest.mark.parametrize("path", sorted(REAL.glob("*.onnx")), ids=lambda path: path.stem)
def test_real_models(path: Path) -> None:
    model = from_onnx(path)
    [port] = model.network.ports
    shape = SIZES.get(path.stem) or (1, *model.input_shape)
    x = normal(shape)
    assert_alike(model.predict(x), truth(path.read_bytes(), {port.name: x}))
