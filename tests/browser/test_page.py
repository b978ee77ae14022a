"""The views of the page, in a real browser, each against what NumPy says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save
from playwright.sync_api import expect

from browser.conftest import made_up
from convolve import (
    AvgPool,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Flatten,
    GlobalAvgPool,
    LayerNorm,
    MaxPool,
    Model,
    Normalize,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    Softmax,
    from_onnx,
    zoo,
)
from convolve.page.opening import write_page
from convolve.page.subject import Subject, subject
from convolve.page.watch import Moment, Watched
from convolve.view.anatomy import Anatomy
from convolve.view.excitation import beside, measure
from convolve.view.filters import compare, filters, with_filters
from convolve.view.pixel import Traced
from convolve.view.saliency import occlusion

BYTES = Normalize(0.0, 255.0, name="normalize")


def residual() -> Model:
    block = Residual(Conv(6, 3), BatchNorm(), ReLU(), Conv(6, 3), shortcut=Conv(6, 1))
    head = (AvgPool(2), Flatten(), Dense(4), Softmax())
    return Model(Sequential(BYTES, Conv(4, 3), ReLU(), block, ReLU(), *head), (12, 12, 3), classes=list("abcd"))


def imported(tmp_path: Path) -> Model:
    net = Sequential(BYTES, Conv(4, 3), ReLU(), MaxPool(2), Conv(6, 3, stride=2), Sigmoid(), Flatten(), Dense(3))
    Model(net, (12, 12, 1)).export_onnx(tmp_path / "net.onnx")
    return from_onnx(tmp_path / "net.onnx").channels_last()


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32) * np.float32(0.3)


def several(tmp_path: Path) -> Model:
    """Two inputs that meet."""
    arrays = {"w1": weights(6, 3, 3, 3), "w2": weights(6, 1, 5, 5), "w3": weights(4, 12)}
    nodes = [
        helper.make_node("Conv", ["photo", "w1"], ["a"], "/encoder/photo/Conv", pads=[1] * 4),
        helper.make_node("Conv", ["mask", "w2"], ["b"], "/encoder/mask/Conv", pads=[2] * 4),
        helper.make_node("Concat", ["a", "b"], ["c"], "join", axis=1),
        helper.make_node("GlobalAveragePool", ["c"], ["g"], "mean"),
        helper.make_node("Flatten", ["g"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "w3"], ["y"], "head", transB=1),
    ]
    return written(tmp_path, nodes, {"photo": ("n", 3, 9, 12), "mask": ("n", 1, 9, 12)}, 4, arrays)


def open_sizes(tmp_path: Path) -> Model:
    """A net for pictures of any size, of a thousand classes without names, with a layer of a long name."""
    arrays = {"w1": weights(6, 3, 3, 3), "w2": weights(1000, 6)}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], "/the_encoder/of/a_rather/long_name/Conv_17", pads=[1] * 4),
        helper.make_node("GlobalAveragePool", ["a"], ["g"], "mean"),
        helper.make_node("Flatten", ["g"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "w2"], ["y"], "head", transB=1),
    ]
    return written(tmp_path, nodes, {"x": ("n", 3, "height", "width")}, 1000, arrays)


def written(
    tmp_path: Path, nodes: list[Any], inputs: dict[str, Any], classes: int, arrays: dict[str, np.ndarray]
) -> Model:
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    made = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", classes))]
    kept = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "net", given, made, kept)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "net.onnx")
    return from_onnx(tmp_path / "net.onnx").channels_last()


def signals() -> Model:
    net = Sequential(
        BYTES, Conv(5, 9, stride=2), BatchNorm(), ReLU(), MaxPool(4), Conv(3, 3), GlobalAvgPool(), Dense(2)
    )
    return Model(net, (200, 2))


def volumes() -> Model:
    net = Sequential(
        BYTES, Conv(4, 3), LayerNorm(), ReLU(), MaxPool(2), ConvTranspose(2, 2, stride=2), Flatten(), Dense(2)
    )
    return Model(net, (8, 10, 12, 1))


NETS: dict[str, Callable[[Path], Model]] = {
    "residual": lambda _: residual(),
    "onnx": imported,
    "several inputs": several,
    "open sizes": open_sizes,
    "signals": lambda _: signals(),
    "volumes": lambda _: volumes(),
}


def epochs(layer: str, weight: np.ndarray, shape: tuple[int, ...]) -> Watched:
    """A training of two epochs, as `convolve train --look` notes it."""
    pictures = np.zeros((1, *(min(n, 48) for n in shape[-3:])), np.float32)
    moments = [Moment({"loss": 2.0 - k, "validation_loss": 2.5 - k}, weight, pictures, ("0, not 1",)) for k in range(2)]
    return Watched(layer, (), moments, [(0.5, 2.0), (1.5, 1.0)])


@pytest.mark.parametrize("name", NETS)
def test_each_view_shows_any_net(
    name: str, visit: Callable[..., Any], serve: Callable[[Subject], str], tmp_path: Path
) -> None:
    model = NETS[name](tmp_path)
    layer = with_filters(Anatomy(model.network.closed({})))[0]
    weight = filters(model.network.closed({}), layer).weights
    drawn = model.network.closed({}).input_shape
    watched = epochs(layer, weight, drawn)
    if name in ("several inputs", "open sizes"):
        shown = subject(model.network, name, model.classes, watched=watched)
    else:
        shown = made_up(model, name, watched=watched)
    page = visit(serve(shown))
    # the net, and the training
    assert page.locator("#strip .card").count() == len(shown.nodes)
    expect(page.locator("#training .forming .filters, #training .forming canvas").first).to_be_visible()
    page.locator("#epoch").fill("0")
    expect(page.locator("#training output")).to_have_text("1 of 2")
    # the answer, and where it comes from
    expect(page.locator("#answer .best")).to_have_count(1)
    page.select_option("#heat", "occlusion")
    expect(page.locator("canvas.heat:visible")).to_have_count(1)
    # what filters look for
    if len(shown.samples) > 1:
        place = next(i for i, node in enumerate(shown.nodes) if node.path in shown.filtered and len(node.shape) > 1)
        page.click(f'[data-node="{place}"] .open')
        page.click("#measure")
        expect(page.locator(".excitation")).to_have_count(min(12, shown.nodes[place].shape[-1]))
    # each layer, and a value of it
    for place, node in enumerate(shown.nodes):
        page.click(f'[data-node="{place}"] .open')
        expect(page.locator("#layer-head")).to_have_text(node.path)
        expect(page.locator("#pixel-head")).to_contain_text(f"One value: {node.path},")
        expect(page.locator("#verdict-line")).to_have_class("verdict-line equal")
        maps = min(64, node.shape[-1]) if len(node.shape) > 1 else 1
        expect(page.locator(".map-card")).to_have_count(maps)


def test_of_several_inputs_one_is_drawn(
    visit: Callable[..., Any], serve: Callable[[Subject], str], tmp_path: Path
) -> None:
    model = several(tmp_path)
    given = {
        "photo_image": np.full((9, 12, 3), 0.5, np.float32),
        "mask_image": np.arange(108, dtype=np.float32).reshape(9, 12, 1),
    }
    page = visit(serve(subject(model.network, "two", None, given)))
    assert page.locator("#input option").all_text_contents() == ["photo_image", "mask_image"]
    page.select_option("#input", "1")
    page.click('[data-node="3"] .open')
    expect(page.locator("#pixel .read figcaption")).to_have_text("channel 0 of mask_image")
    grey = "c => Array.from(c.getContext('2d').getImageData(0, 0, 12, 9).data).filter((_, i) => i % 4 === 0)"
    assert page.eval_on_selector("#picture-canvas-1", grey) == [round(255 * i / 107) for i in range(108)]
    page.select_option("#heat-1", "occlusion")
    expect(page.locator("canvas.heat:visible")).to_have_count(1)
    np.save(tmp_path / "mask.npy", np.zeros((9, 12), np.uint8))
    page.set_input_files("#file", tmp_path / "mask.npy")
    page.locator("#total").scroll_into_view_if_needed()  # what is not on the screen follows when it comes there
    expect(page.locator("#total")).to_have_attribute("data-value", "0")


def test_sizes_that_a_net_leaves_open_are_said(
    visit: Callable[..., Any], serve: Callable[[Subject], str], tmp_path: Path
) -> None:
    network = open_sizes(tmp_path).network
    for x, size in ((None, "224 \u00d7 224"), (np.zeros((40, 56, 3), np.uint8), "40 \u00d7 56")):
        page = visit(serve(subject(network, "open", None, x)))
        expect(page.locator("#note")).to_have_text(f"The net takes other sizes, too; here it takes {size} \u00d7 3.")


def test_branches_lie_beside_each_other(visit: Callable[..., Any], serve: Callable[[Subject], str]) -> None:
    shown = made_up(residual(), "residual")
    page = visit(serve(shown))
    tops = page.eval_on_selector_all("#strip .card", "cards => cards.map(c => c.style.top)")
    places = {node.path: top for node, top in zip(shown.nodes, tops, strict=True)}
    assert len(set(tops)) == 2
    assert places["residual1.conv3"] != places["residual1.conv1"] == places["residual1"]
    edges = sum(sum(i >= 0 for i in node.inputs) for node in shown.nodes)
    assert page.locator("#strip .edges path").count() == edges


def test_a_long_net_is_folded_and_unfolds(visit: Callable[..., Any], serve: Callable[[Subject], str]) -> None:
    blocks = [layer for _ in range(8) for layer in (Residual(Conv(2, 3), BatchNorm(), ReLU(), Conv(2, 3)), ReLU())]
    shown = made_up(Model(Sequential(BYTES, Conv(2, 3), *blocks, Flatten(), Dense(2)), (6, 6, 1)), "long")
    page = visit(serve(shown))
    assert page.locator("#strip .card").count() == 12
    page.get_by_role("button", name="Unfold residual2").click()
    assert page.locator("#strip .card").count() == 17
    page.get_by_role("button", name="Fold residual2").click()
    assert page.locator("#strip .card").count() == 12


def test_names_are_text(visit: Callable[..., Any], serve: Callable[[Subject], str]) -> None:
    net = Sequential(Conv(2, 3), Flatten(), Dense(2))
    model = Model(net, (6, 6, 1), classes=["<img src=x onerror=alert(1)>", '"><script>alert(2)</script>'])
    shown = made_up(model, "<b>net</b>")
    page = visit(serve(shown))
    assert page.locator("#title").text_content() == "<b>net</b>"
    assert page.locator("#answer img, #answer script, #title b").count() == 0
    assert page.locator("#answer .class").all_text_contents() == list(model.classes or ())


def numbers(page: Any, selector: str) -> np.ndarray:
    """Exact numbers of a table's cells, as their titles hold them."""
    return np.array(
        page.eval_on_selector_all(
            f"{selector} td", "cells => cells.map(c => c.title === 'padding' ? 0 : Number(c.title))"
        )
    )


def test_every_layer_has_a_card_with_its_maps(visit: Callable[..., Any], lenet5_page: str, lenet5: Subject) -> None:
    page = visit(lenet5_page)
    names = page.locator("#strip .card .name").all_text_contents()
    assert names == [node.path for node in lenet5.nodes]
    assert page.locator('[data-node="1"] canvas').count() == 4
    drawn = page.eval_on_selector('[data-node="1"] canvas', "c => [c.width, c.height]")
    assert drawn == [28, 28]


def test_a_value_is_the_sum_that_numpy_makes(visit: Callable[..., Any], lenet5_page: str, lenet5: Subject) -> None:
    page = visit(lenet5_page)
    page.click('[data-node="4"] .open')
    page.wait_for_selector("#pixel-head:has-text('conv2')")
    before = page.locator("#pixel-head").text_content()
    page.locator("#pixel .made canvas").click(position={"x": 40, "y": 100})
    expect(page.locator("#pixel-head")).not_to_have_text(before)
    row, column = (int(n) for n in page.locator("#pixel-head").text_content().rpartition(" at ")[2].split(", "))
    network = lenet5.network
    traced = network.trace(lenet5.samples[:1])
    patch = traced["max_pool1"][0, row : row + 5, column : column + 5].astype(np.float64)
    weight, bias = network["parameter:conv2.weight"][0], network["parameter:conv2.bias"][0]
    products = patch * weight
    shown = numbers(page, ".channel:nth-child(3) .kernel:last-of-type")
    assert np.allclose(shown, products[..., 2].ravel(), rtol=1e-12, atol=0)
    total = float(page.get_attribute("#total", "data-value"))
    assert np.isclose(total, products.sum() + bias, rtol=1e-12)
    scale = np.abs(products).sum() + abs(bias)
    assert abs(total - traced["conv2"][0, row, column, 0]) <= 1e-6 * scale
    assert "equal to within 1e\u22126" in page.locator("#verdict-line").text_content()


def test_a_drawn_digit_is_answered(visit: Callable[..., Any], lenet5_page: str) -> None:
    page = visit(lenet5_page)
    page.click("#clear")
    board = page.locator("#picture-canvas").bounding_box()
    x, y = board["x"] + board["width"] / 2, board["y"]
    page.mouse.move(x, y + 0.2 * board["height"])
    page.mouse.down()
    page.mouse.move(x, y + 0.8 * board["height"], steps=8)
    page.mouse.up()
    expect(page.locator("#verdict")).to_have_text("1")
    assert "labelled" not in page.locator("#answer").text_content()


def test_a_stroke_right_after_clear_is_alone(visit: Callable[..., Any], lenet5_page: str) -> None:
    page = visit(lenet5_page)
    page.evaluate(  # within one task of the browser: the answer to the first cannot come before the second
        """() => {
            document.querySelector("#clear").click();
            document.querySelector("#picture-canvas").dispatchEvent(new KeyboardEvent("keydown", { key: " " }));
        }"""
    )
    page.wait_for_function("() => performance.getEntriesByName('answer').length === 3")
    grey = "c => Array.from(c.getContext('2d').getImageData(0, 0, 28, 28).data).filter((_, i) => i % 4 === 0)"
    drawn = np.array(page.eval_on_selector("#picture-canvas", grey)).reshape(28, 28)
    rows, columns = np.nonzero(drawn)
    assert drawn[14, 14] == 255
    assert np.abs(rows - 14).max() <= 2
    assert np.abs(columns - 14).max() <= 2


def test_the_answer_says_where_it_comes_from(visit: Callable[..., Any], lenet5_page: str, lenet5: Subject) -> None:
    page = visit(lenet5_page)
    for method, words in (("grad_cam", "speaks for 7."), ("occlusion", "lowers the score of 7,")):
        page.select_option("#heat", method)
        heat = page.locator("canvas.heat")
        expect(heat).to_be_visible()
        expect(heat).to_have_attribute("aria-label", re.compile(re.escape(words)))
    assert page.eval_on_selector("canvas.heat", "c => [c.width, c.height]") == [28, 28]
    found = occlusion(lenet5.network, lenet5.samples[:1].astype(np.float32)).map
    pixels = "c => Array.from(c.getContext('2d').getImageData(0, 0, 28, 28).data).filter((_, i) => i % 4 === 3)"
    opacity = np.array(page.eval_on_selector("canvas.heat", pixels)).reshape(28, 28)
    assert np.abs(opacity - 255 * 0.85 * np.abs(found) / np.abs(found).max()).max() < 1


def test_what_filters_look_for_is_measured(visit: Callable[..., Any], lenet5_page: str, lenet5: Subject) -> None:
    page = visit(lenet5_page)
    page.click('[data-node="1"] .open')
    page.click("#measure")
    expect(page.locator(".excitation")).to_have_count(6)
    expect(page.locator("#excitation progress")).to_be_hidden()
    *_, found = measure(lenet5.network, "conv1", lenet5.samples, lenet5.labels)
    assert page.locator("#excitation .words").text_content().startswith("On 50 samples, heard through relu1")
    for i, text in enumerate(page.locator(".excitation > .hint").all_text_contents()):
        assert found.dead[i] or text.startswith(f"most for {found.favourite[i]},")
        assert found.dead[i] or text.endswith(f"without it {100 * found.accuracy_without[i]:.1f}\u2009%")


def test_maps_are_sorted(visit: Callable[..., Any], lenet5_page: str, lenet5: Subject) -> None:
    page = visit(lenet5_page)
    page.click('[data-node="4"] .open')
    expect(page.locator(".map-card")).to_have_count(16)
    page.select_option("#order", "similarity")
    wanted = [str(i) for i in filters(lenet5.network, "conv2").order("similarity")]
    expect(page.locator(".map-card .caption")).to_have_text([re.compile(rf"^{i}( silent)?$") for i in wanted])


def test_the_window_slides_and_the_map_fills_in(visit: Callable[..., Any], lenet5_page: str) -> None:
    page = visit(lenet5_page)
    page.click('[data-node="1"] .open')
    expect(page.locator("#pixel-head")).to_contain_text("conv1")
    page.locator("#slide").fill("30")
    expect(page.locator("#pixel-head")).to_have_text("One value: conv1, map 0 at 1, 2")
    pixels = "c => Array.from(c.getContext('2d').getImageData(0, 0, 28, 28).data).filter((_, i) => i % 4 === 3)"
    assert page.eval_on_selector("#pixel .made canvas", pixels) == [255] * 31 + [0] * (28 * 28 - 31)
    page.click("#play")
    expect(page.locator("#pixel-head")).not_to_have_text("One value: conv1, map 0 at 1, 2")
    page.click("#play")


def test_everything_goes_by_keyboard(visit: Callable[..., Any], lenet5_page: str) -> None:
    page = visit(lenet5_page)
    page.locator('[data-node="4"] .open').focus()
    page.keyboard.press("Enter")
    expect(page.locator("#layer-head")).to_have_text("conv2")
    page.locator('.map-card[data-channel="2"]').focus()
    page.keyboard.press("Enter")
    expect(page.locator("#pixel-head")).to_contain_text("conv2, map 2 at")
    page.locator("#pixel .made canvas").focus()
    for _ in range(12):
        page.keyboard.press("ArrowUp")
        page.keyboard.press("ArrowLeft")
    expect(page.locator("#pixel-head")).to_contain_text("conv2, map 2 at 0, 0")
    page.locator("#clear").press("Enter")
    page.locator("#picture-canvas").focus()
    for key in "ArrowUp", " ", "ArrowUp", " ":
        page.keyboard.press(key)
    expect(page.locator("#answer")).not_to_contain_text("labelled")
    unreachable = page.eval_on_selector_all(
        "button, select, input, [tabindex='0']", "all => all.filter(e => e.tabIndex < 0).map(e => e.outerHTML)"
    )
    assert unreachable == []
    assert (
        page.eval_on_selector_all("canvas[role=img]", "all => all.filter(c => !c.ariaLabel && !c.hidden).length") == 0
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_of_it(visit: Callable[..., Any], lenet5_page: str, scheme: str) -> None:
    settings = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    page = visit(lenet5_page, color_scheme=scheme, reduced_motion="reduce", **settings)
    page.tap('[data-node="4"] .open')
    expect(page.locator("#pixel-head")).to_contain_text("conv2")
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_it_is_readable_at_twice_the_size(visit: Callable[..., Any], lenet5_page: str) -> None:
    page = visit(lenet5_page, viewport={"width": 640, "height": 400}, device_scale_factor=2)
    page.click('[data-node="4"] .open')
    expect(page.locator("#pixel-head")).to_contain_text("conv2")
    assert page.evaluate("document.documentElement.scrollWidth") == 640
    cut = """all => all.filter(e => e.scrollWidth > e.clientWidth + 1 && !e.title).map(e => e.outerHTML)"""
    assert page.eval_on_selector_all("h1, h2, p, button, label, figcaption, li", cut) == []


def test_a_bad_file_is_answered_on_the_page(visit: Callable[..., Any], lenet5_page: str, tmp_path: Path) -> None:
    page = visit(lenet5_page)
    (tmp_path / "letter.png").write_text("Dear page")
    page.set_input_files("#file", tmp_path / "letter.png")
    expect(page.locator("#notice")).to_contain_text("letter.png: not an image that is known here")
    page.locator(".sample").nth(1).click()
    expect(page.locator("#notice")).to_be_hidden()
    expect(page.locator("#verdict")).to_have_text("2")


def test_a_file_holds_it_all_offline(
    visit: Callable[..., Any], lenet5: Subject, tmp_path: Path, console: list[str]
) -> None:
    write_page(lenet5, tmp_path / "net.html")
    page = visit((tmp_path / "net.html").as_uri(), offline=True)
    expect(page.locator("#verdict")).to_have_text("7")
    for place, node in enumerate(lenet5.nodes):
        page.click(f'[data-node="{place}"] .open')
        expect(page.locator("#pixel-head")).to_contain_text(f"One value: {node.path},")
        expect(page.locator("#verdict-line")).to_have_class("verdict-line equal")
    page.click('[data-node="1"] .open')
    for index, place in ((0, "0, 0"), (57, "2, 1"), (783, "27, 27")):
        page.locator("#slide").fill(str(index))
        expect(page.locator("#pixel-head")).to_have_text(re.compile(rf"conv1, map \d at {place}$"))
    page.select_option("#heat", "grad_cam")
    expect(page.locator("canvas.heat")).to_be_visible()
    assert "://" not in (tmp_path / "net.html").read_text()
    page.click('[data-node="4"] .open')
    page.locator('.map-card[data-channel="9"]').click()
    page.locator("#slide").fill("37")  # any value of any map, not those alone that were asked for beforehand
    expect(page.locator("#pixel-head")).to_have_text("One value: conv2, map 9 at 3, 7")
    made = Traced(lenet5.network, lenet5.samples[:1]).pixel("conv2", (3, 7, 9)).made
    assert float(page.get_attribute("#total", "data-value")) == pytest.approx(made.total, rel=1e-12)
    shown = numbers(page, ".channel:nth-child(3) .kernel:first-of-type")
    assert np.array_equal(shown.astype(np.float32), made.patch[..., 2].ravel())


def test_a_file_holds_slices_measurements_and_the_other_checkpoint(visit: Callable[..., Any], tmp_path: Path) -> None:
    model, later = volumes(), volumes()
    later.network["parameter:conv1.weight"] = later.network["parameter:conv1.weight"] * np.float32(2)
    shown = made_up(model, "volumes", other=later.network, other_title="later", file=tmp_path / "model.safetensors")
    *_, found = measure(shown.network, "conv1", shown.samples)
    found.save(beside(tmp_path / "model.safetensors", "conv1"))
    write_page(shown, tmp_path / "net.html")
    page = visit((tmp_path / "net.html").as_uri(), offline=True)
    traced = model.trace(shown.samples[:1])
    for place, node in enumerate(shown.nodes[:5]):
        if node.kind == "LayerNorm":  # not every value of it is in the file
            continue
        page.click(f'[data-node="{place}"] .open')
        page.locator(".map-card").last.click()
        channel = node.shape[-1] - 1
        for depth in (0, 7):
            page.locator(".slider input").fill(str(depth))
            at = [round(depth / 7 * (node.shape[0] - 1)), 2, 1]
            page.locator("#slide").fill(str(2 * node.shape[2] + 1))
            expect(page.locator("#pixel-head")).to_have_text(
                f"One value: {node.path}, map {channel} at {', '.join(map(str, at))}"
            )
            expect(page.locator("#verdict-line")).to_have_class("verdict-line equal")
            assert float(page.get_attribute("#verdict-line", "data-traced")) == traced[node.path][(0, *at, channel)]
        expect(page.locator(".excitation:visible")).to_have_count(4 if node.path == "conv1" else 0)
        expect(page.locator(".pair:visible")).to_have_count(4 if node.path == "conv1" else 0)


def test_a_large_net_fits_into_a_file(visit: Callable[..., Any], tmp_path: Path) -> None:
    net = Sequential(BYTES, Conv(48, 3), ReLU(), MaxPool(8), Flatten(), Dense(2))
    shown = made_up(Model(net, (128, 128, 3)), "large", count=1)
    write_page(shown, tmp_path / "large.html")
    assert (tmp_path / "large.html").stat().st_size < 1_000_000
    page = visit((tmp_path / "large.html").as_uri(), offline=True, shows="#answer .best")
    page.click('[data-node="1"] .open')
    expect(page.locator(".map-card")).to_have_count(12)
    expect(page.locator("#pixel")).to_be_hidden()


def test_two_checkpoints_lie_side_by_side(
    visit: Callable[..., Any], serve: Callable[[Subject], str], lenet5: Subject
) -> None:
    before = Model(zoo.lenet5(), (28, 28, 1)).network
    shown = subject(before, "before", None, lenet5.samples[:2], other=lenet5.network, other_title="after")
    page = visit(serve(shown))
    page.click('[data-node="4"] .open')
    change = next(c for c in compare(before, lenet5.network) if c.layer == "conv2")
    captions = [re.compile(rf"^{i}: changed by {change.distance[i]:.3g}"[:-1]) for i in change.order]
    expect(page.locator(".pair figcaption")).to_have_text(captions)
    assert page.locator(".pair").first.locator("canvas").count() == 2 * (1 + 6)
    page.click('[data-node="5"] .open')
    expect(page.locator("#compare .words")).to_contain_text("relu2 has no filters")
