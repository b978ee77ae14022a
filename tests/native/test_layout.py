"""Drawings of nets: every layer has a place of its own, every edge a free way, repeats are folded."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from convolve import (
    BatchNorm,
    Concat,
    Conv,
    Dense,
    Dropout,
    Flatten,
    Input,
    Model,
    Net,
    Parallel,
    ReLU,
    Residual,
    Sequential,
    zoo,
)
from convolve.layers import Layer
from convolve.view.layout import Layout, layout


def drawn(net: Layer, shape: tuple[int, ...] = (8, 8, 4), fold: bool | None = None) -> Layout:
    return layout(Model(net, input_shape=shape).network, fold)


def dense_net() -> Net:
    """Every layer reads all before it (Huang et al., 2017)."""
    x = Input()
    read = [x]
    for _ in range(4):
        read.append(ReLU()(Conv(4, 3)(Concat()(*read))))
    return Net(x, read[-1])


NETS = {
    "residual": (Sequential(Conv(4, 3), Residual(Conv(4, 3), shortcut=Conv(4, 1)), ReLU()), (8, 8, 4)),
    "dense": (dense_net(), (8, 8, 4)),
    "branches": (Parallel(Conv(2, 1), Sequential(Conv(2, 3), ReLU(), Conv(2, 3)), Conv(3, 5)), (8, 8, 4)),
    "resnet20": (zoo.resnet20(), (32, 32, 3)),
    "unet": (zoo.unet(), (32, 32, 3)),
    "squeezenet": (zoo.squeezenet(), (64, 64, 3)),
}


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_nothing_stands_or_passes_where_something_stands(name: str, fold: bool) -> None:
    found = drawn(*NETS[name], fold)
    cells = {place.layer: (place.row, place.column) for place in found.places}
    used = Counter(cells.values())
    for edge in found.edges:
        top, bottom = cells[edge.source][0], cells[edge.target][0]
        assert top < bottom
        assert (edge.lane is None) == (bottom == top + 1)
        used.update((row, edge.lane) for row in range(top + 1, bottom))
    assert set(used.values()) == {1}
    assert max(row for row, _ in used) == found.rows - 1
    assert max(column for _, column in used) == found.columns - 1
    assert {edge.target for edge in found.edges} == set(cells) - {""}
    assert json.loads(json.dumps(found.as_dict()))["rows"] == found.rows


def test_a_residual_block_is_its_body_and_an_edge_beside_it() -> None:
    found = drawn(Sequential(Residual(Conv(4, 3), ReLU()), Dropout(), Flatten()))
    assert [(e.source, e.target, e.lane) for e in found.edges] == [
        ("", "residual1.conv1", None),
        ("residual1.conv1", "residual1.relu1", None),
        ("residual1.relu1", "residual1", None),
        ("", "residual1", 1),
        ("residual1", "dropout1", None),
        ("dropout1", "flatten1", None),
    ]


def test_what_a_block_hands_on_inside_is_not_read_around_it() -> None:
    found = drawn(Residual(Dropout(), Conv(4, 3)))
    assert {(e.source, e.target) for e in found.edges} == {
        ("", "residual1.dropout1"),
        ("residual1.dropout1", "residual1.conv1"),
        ("residual1.conv1", "residual1"),
        ("", "residual1"),
    }


def test_blocks_that_come_again_are_folded() -> None:
    block = (Residual(Conv(4, 3, bias=False), BatchNorm(), ReLU(), Conv(4, 3, bias=False), BatchNorm()), ReLU())
    net = Sequential(Conv(4, 3), *(block * 3), Conv(8, 3), ReLU())
    found = drawn(net, fold=True)
    [fold] = found.folds
    assert (fold.times, len(fold.shown)) == (3, 7)
    assert (fold.shown[0], fold.shown[-1]) == ("residual1.conv1", "relu1")
    assert fold.hidden[1][-1] == "relu3"
    names = [place.layer for place in found.places]
    assert names == ["", "conv1", *fold.shown, "conv2", "relu4"]
    assert ("relu1", "conv2") in {(e.source, e.target) for e in found.edges}
    assert drawn(net, fold=False).folds == ()
    assert drawn(Sequential(Conv(4, 3), Conv(4, 3), Conv(4, 3), Conv(4, 3))).folds == (), "a short net is drawn whole"


def test_layers_that_others_read_from_afar_are_not_folded() -> None:
    x = Input()
    a = ReLU()(Conv(4, 3)(x))
    b = ReLU()(Conv(4, 3)(a))
    c = ReLU()(Conv(4, 3)(b))
    assert drawn(Net(x, c), fold=True).folds[0].times == 3
    assert drawn(Net(x, c + a), fold=True).folds[0].shown == ("conv2", "relu2")
    inner = Conv(4, 3)(a)
    assert drawn(Net(x, ReLU()(Conv(4, 3)(ReLU()(inner))) + inner), fold=True).folds == ()


def test_a_place_says_what_a_fully_connected_layer_would_cost() -> None:
    found = drawn(Sequential(Conv(8, 3), Flatten(), Dense(10)), (28, 28, 1))
    conv, dense = found.places[1], found.places[-1]
    assert conv.dense_multiply_adds == 28 * 28 * 28 * 28 * 8
    assert conv.summary is not None
    assert conv.summary.multiply_adds == 9 * 28 * 28 * 8
    assert dense.summary is not None
    assert dense.dense_multiply_adds == dense.summary.multiply_adds
