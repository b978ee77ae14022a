"""The views of the page, in a real browser, each against what NumPy says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from playwright.sync_api import expect

from convolve.page.session import Subject


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
    page.locator("#pixel .made canvas").click(position={"x": 40, "y": 100})
    expect(page.locator("#pixel-head")).to_contain_text("map 0 at")
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
