"""Pictures with matplotlib: each draws what it says into the axes that it is given; its numbers are the library's."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.helpers import normal

from convolve import Conv, Dense, Flatten, GlobalAvgPool, MaxPool, Model, ReLU, Sequential, plot, zoo
from convolve.errors import ConvolveError, ShapeError
from convolve.view.filters import filters
from convolve.view.pixel import Traced
from convolve.view.saliency import grad_cam, occlusion

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
pyplot = pytest.importorskip("matplotlib.pyplot")

SHAPES = {1: (24, 2), 2: (12, 14, 2), 3: (8, 7, 9, 2)}


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    pyplot.close("all")


def model_of(rank: int = 2, channels: int = 2) -> Model:
    net = Sequential(Conv(5, 3), ReLU(), MaxPool(2), Conv(6, 3), ReLU(), Flatten(), Dense(4))
    return Model(net, input_shape=(*SHAPES[rank][:-1], channels), classes=("a", "b", "c", "<d>"))


def drawn(axes: Any) -> Any:
    """The axes, all of it really drawn."""
    axes.figure.set_layout_engine("none")  # which draws several times
    axes.figure.canvas.draw()
    return axes


def words(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize("rank", SHAPES)
def test_every_picture_is_drawn_at_every_rank(rank: int) -> None:
    model = model_of(rank)
    x = normal(model.input_shape)
    at = tuple(n // 2 for n in SHAPES[rank][:-1])
    for axes in (
        plot.filters(model, channel=1, order="similarity"),
        plot.filters(Model(Conv(7, 3), (*SHAPES[rank][:-1], 3))),
        plot.activations(model, x),
        plot.patch(model, x, "conv1", (*at, 3)),
        plot.patch(model, x, "max_pool1", (*(0 for _ in at), 3)),
        plot.saliency(model, x),
        plot.saliency(model, x, method="occlusion", size=4),
    ):
        assert drawn(axes).get_title(loc="left")


@pytest.mark.parametrize("name", ["filters", "activations", "patch", "history", "confusion", "saliency"])
def test_each_takes_axes_and_returns_them(name: str) -> None:
    model = model_of()
    x = normal(model.input_shape)
    arguments: dict[str, tuple[Any, ...]] = {
        "filters": (model,),
        "activations": (model, x),
        "patch": (model, x, "conv1", (3, 4, 1)),
        "history": ([{"loss": 1.0, "validation_loss": 2.0}, {"loss": 0.5}],),
        "confusion": (model, normal((30, *model.input_shape)), np.arange(30) % 4),
        "saliency": (model, x),
    }
    _, (ax, other) = pyplot.subplots(1, 2)
    function = getattr(plot, name)
    assert function(*arguments[name], ax=ax) is ax
    assert ax.has_data()
    assert not other.has_data()
    own = function(*arguments[name])
    assert own.figure is not ax.figure


def test_filters_are_the_weights() -> None:
    model = model_of(2, 1)
    weights = np.array(model.parameters["conv1.weight"])
    weights[2] = 0
    model.parameters["conv1.weight"] = weights
    axes = drawn(plot.filters(model, order="strength"))
    shown = axes.images[0].get_array().filled(np.nan)
    order = filters(model.network, "conv1").order("strength")
    np.testing.assert_array_equal(shown[:3, :3], weights[order[0], ..., 0])
    np.testing.assert_array_equal(shown[:3, 4:7], weights[order[1], ..., 0])
    assert len(axes.lines) == 2, "the dead filter is crossed out"


def test_three_channels_are_colours_and_zero_is_grey() -> None:
    model = model_of(2, 3)
    model.parameters["conv1.weight"] = np.zeros((5, 3, 3, 3))
    shown = plot.filters(model).images[0].get_array()
    np.testing.assert_array_equal(shown[:3, :3], np.full((3, 3, 3), 0.5))


def test_activations_are_those_traced() -> None:
    model = model_of()
    x = normal(model.input_shape)
    shown = plot.activations(model, x, "relu1").images[0].get_array().filled(np.nan)
    np.testing.assert_array_equal(shown[:12, :14], model.trace(x[None])["relu1"][0, ..., 0])


def test_a_patch_tells_its_numbers() -> None:
    model = model_of()
    x = normal(model.input_shape)
    made = Traced(model.network, x[None]).pixel("conv1", (0, 3, 1)).made
    axes = drawn(plot.patch(model, x, "conv1", (0, 3, 1), channel=1))
    assert axes.get_title(loc="left").startswith("conv1 [0, 3, 1] = ")
    assert "ReLU: " in axes.get_title(loc="left")
    [told] = [word for word in words(axes) if word.startswith("sum ")]
    assert told.endswith(f"= {made.total:.4g}")
    assert {"patch, channel 1", "filter", "products", "x", "="} <= set(words(axes))
    assert len([patch for patch in axes.patches if patch.get_hatch()]) == 3 * 3, "a row of padding in each grid"
    assert f"{float(model.parameters['conv1.weight'][1, 2, 1, 1]):.2g}" in words(axes)


def test_a_dense_layer_shows_its_largest_contributions() -> None:
    model = model_of()
    x = normal(model.input_shape)
    axes = drawn(plot.patch(model, x, "dense1", (2,)))
    products = model.trace(x[None])["flatten1"][0] * model.parameters["dense1.weight"][2]
    widths = sorted(abs(bar.get_width()) for bar in axes.patches)
    np.testing.assert_allclose(widths, np.sort(np.abs(products))[-20:], rtol=1e-5)


def test_history_has_a_curve_for_each_part() -> None:
    model = model_of()
    x, y = normal((40, *model.input_shape)), np.arange(40) % 4
    found = model.fit(x, y, epochs=3, batch_size=20, validation=(x, y))
    axes = drawn(plot.history(found, "accuracy"))
    assert [line.get_label() for line in axes.lines] == ["training", "validation"]
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), found["validation_accuracy"])
    with pytest.raises(ConvolveError, match=r"no epoch has a finite 'speed'\. Measured: accuracy, loss"):
        plot.history(found, "speed")


def test_a_confusion_counts() -> None:
    model = model_of()
    x, y = normal((30, *model.input_shape)), np.arange(30) % 4
    axes = drawn(plot.confusion(model, x, y))
    said = model.predict(x).argmax(-1)
    assert [t.get_text() for t in axes.get_yticklabels()] == ["a", "b", "c", "<d>"]
    counts = [int(word) for word in words(axes)]
    assert sum(counts) == 30
    assert counts[0] == np.sum((y == 0) & (said == said[y == 0].min()))
    assert axes.get_title(loc="left").startswith(f"{np.mean(said == y):.2%}")


def test_saliency_is_laid_over_the_picture() -> None:
    model = model_of()
    x = normal(model.input_shape)
    for method, measure in (("grad_cam", grad_cam), ("occlusion", occlusion)):
        axes = drawn(plot.saliency(model, x, target=3, method=method))
        found = measure(model.network, x[None], 3)
        assert axes.get_title(loc="left").startswith(f"<d>: {found.method}")
        np.testing.assert_array_equal(axes.images[1].get_array(), found.shares)


def test_what_cannot_be_drawn_is_refused() -> None:
    model = model_of()
    x = normal(model.input_shape)
    with pytest.raises(ShapeError, match="one sample"):
        plot.activations(model, normal((2, *model.input_shape)))
    with pytest.raises(ConvolveError, match="relu1: slides no window"):
        plot.patch(model, x, "relu1", (0, 0, 0))
    with pytest.raises(ShapeError, match="the filter reads channels 0 to 1"):
        plot.patch(model, x, "conv1", (0, 0, 0), channel=2)
    with pytest.raises(ShapeError, match="a channel is from 0 to 1"):
        plot.filters(model, channel=5)
    with pytest.raises(ConvolveError, match="method is grad_cam or occlusion"):
        plot.saliency(model, x, method="magic")
    with pytest.raises(ConvolveError, match="no layer of this net has filters"):
        plot.filters(Model(GlobalAvgPool(), (4, 4, 2)))


def test_the_examples_of_the_document_are_drawn() -> None:
    text = (Path(__file__).parents[2] / "docs" / "looking.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    model = Model(zoo.lenet5(), input_shape=(28, 28, 1))
    x, y = np.abs(normal((20, 28, 28, 1))), np.arange(20) % 10
    names = {"model": model, "x": x, "y": y, "history": [{"accuracy": 0.5}]}
    exec(compile(code, "looking.md", "exec"), names)
    assert len(pyplot.get_fignums()) == 6


def test_without_matplotlib_the_message_is_the_pip_line() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from convolve import Conv, Model, plot\n"
        "try: plot.filters(Model(Conv(2, 3), (5, 5, 1)))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "ConvolveError convolve.plot needs matplotlib: pip install 'convolve[plot]'"
