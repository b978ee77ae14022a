"""Summaries: counts against published ones and compiled programs, receptive fields against the gradient's footprint."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers import Array
from hypothesis import given
from hypothesis import strategies as st

from convolve import (
    AdaptiveAvgPool,
    Add,
    AvgPool,
    Concat,
    Conv,
    ConvTranspose,
    Dense,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    Input,
    Layer,
    LpPool,
    MaxPool,
    Multiply,
    Net,
    Pad,
    Parallel,
    ReLU,
    Reshape,
    Residual,
    Sequential,
    Sigmoid,
    Softmax,
    Upsample,
    ops,
    zoo,
)
from convolve.errors import ShapeError
from convolve.graph import Graph, Value, differentiate, evaluate, leaf
from convolve.native.kernels.pointwise import Pointwise
from convolve.network import Forward, Network, build
from convolve.passes import compile_graph
from convolve.program import Buffer, Memory
from convolve.view.summary import Summary, receptive_fields, summarise

Shape = tuple[int, ...]


def built(name: str, batch: int = 1) -> Forward:
    entry = zoo.by_name(name)
    return build(entry.make(), entry.input_shape, batch)


def summary(name: str) -> Summary:
    entry = zoo.by_name(name)
    return summarise(entry.make(), entry.input_shape)


# counts

PUBLISHED = {
    # net: parameters, multiply-adds of a sample
    "mlp": (79_400, 79_400),
    "lenet5": (61_706, 416_520),
    "mnist_cnn": (1_199_882, 11_992_448),
    "resnet20": (272_474, 40_813_184),
    "resnet32": (466_906, 69_124_736),
    "resnet56": (855_770, 125_747_840),
    "resnet18": (11_689_512, 1_814_073_344),
    "resnet34": (21_797_672, 3_663_761_408),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name: str) -> None:
    found = summary(name)
    assert (found.parameters, found.multiply_adds) == PUBLISHED[name]
    assert found.parameter_bytes == 4 * found.parameters


TORCHVISION = {
    # net: billions of multiply-adds of a sample, as torchvision's table of weights has them ("GFLOPS")
    "resnet18": 1.814,
    "resnet34": 3.664,
    "resnet50": 4.089,
    "resnet101": 7.801,
    "vgg11": 7.609,
    "vgg13": 11.308,
    "vgg16": 15.470,
    "vgg19": 19.632,
    "mobilenet_v2": 0.301,
    "squeezenet": 0.349,
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_multiply_adds_are_torchvisions(name: str) -> None:
    assert round(summary(name).multiply_adds / 1e9, 3) == TORCHVISION[name]


@pytest.mark.parametrize("name", zoo.NETS)
def test_multiply_adds_are_those_of_the_compiled_program(name: str) -> None:
    found = summary(name)
    for batch in (1, 5):
        calls = compile_graph(Graph({"output": built(name, batch).output})).calls
        flops = sum(call.flops for call in calls if not isinstance(call.spec, Pointwise))
        assert flops == 2 * batch * found.multiply_adds


SMALL: dict[str, Shape] = {
    "m5": (1800, 1),
    "m5_narrow": (1800, 1),
    "cnn3d": (9, 8, 10, 1),
    "unet": (16, 24, 3),
}
NARROW: dict[str, Any] = {name: {"hidden": 32} for name in ("vgg11", "vgg13", "vgg16", "vgg19")}


def small(name: str) -> tuple[Layer, Shape]:
    """A net of the zoo that takes little time, for an input that does."""
    entry = zoo.by_name(name)
    cut = (*(min(n, 32) for n in entry.input_shape[:-1]), entry.input_shape[-1])
    return entry.make(**NARROW.get(name, {})), SMALL.get(name, cut)


class Counted(np.ndarray):
    """An array that counts the multiplications of the matrix products it goes into."""

    multiplications = 0

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        plain = [np.asarray(a) for a in inputs]
        made = getattr(ufunc, method)(*plain, **options)
        if ufunc is np.matmul:
            Counted.multiplications += made.size * plain[0].shape[-1]
        return made


@pytest.mark.parametrize("name", zoo.NETS)
def test_multiply_adds_are_those_that_the_definitions_make(name: str) -> None:
    """Every product of a filter with the plain references, counted while they run."""
    net, input_shape = small(name)
    network = build(net, input_shape, 1)
    feeds: dict[str, Array] = {"x": np.ones((1, *input_shape), np.float32)}
    for key, spec in network.construction.parameters.items():
        feeds[key] = np.ones(spec.shape, np.float32).view(Counted)
    feeds |= network.construction.statistics
    Counted.multiplications = 0
    with np.errstate(over="ignore", invalid="ignore"):
        evaluate([network.output], feeds)
    assert Counted.multiplications == summarise(net, input_shape).multiply_adds


@pytest.mark.parametrize("name", zoo.NETS)
def test_a_block_counts_what_is_in_it_and_the_net_what_is_in_its_rows(name: str) -> None:
    found = summary(name)
    assert found.parameters == sum(math.prod(s.shape) for s in built(name).construction.parameters.values())
    for count in ("parameters", "multiply_adds"):
        assert sum(getattr(row, count) for row in found.rows if row.depth == 0) == getattr(found, count)
        for block in found.rows:
            inner = [r for r in found.rows if r.path.rpartition(".")[0] == block.path]
            assert all(r.depth == block.depth + 1 for r in inner)
            assert not inner or sum(getattr(r, count) for r in inner) == getattr(block, count)


def test_activations_are_counted_once_and_views_take_nothing() -> None:
    net = Sequential(Conv(8, 3), ReLU(), Residual(Conv(8, 3)), Reshape((36, 8)), Flatten(), Dense(10))
    found = summarise(net, (6, 6, 1))
    assert found.activation_bytes == 4 * (2 * 6 * 6 * 8 + 2 * 6 * 6 * 8 + 10)


def test_concatenations_take_what_does_not_lie_in_them_already() -> None:
    x = Input()
    a, b = Conv(2, 3)(x), Conv(3, 3)(x)
    first = Concat()(a, b)
    again = Concat()(first, a, x)
    net = Net(x, Concat()(Flatten()(again), Flatten()(a)))
    ab, again_again, flat = 2 + 3, 2 + 1, 5 + 2 + 1 + 2
    assert summarise(net, (6, 1)).activation_bytes == 4 * 6 * (ab + again_again + flat)


def taken(outputs: Mapping[str, Buffer]) -> int:
    """Bytes of all elements of these buffers, each place counted once."""
    places: dict[Memory, Array] = {b.memory: np.zeros(b.memory.size, bool) for b in outputs.values()}
    for buffer in outputs.values():
        steps = [np.arange(n) * stride for n, stride in zip(buffer.shape, buffer.strides, strict=True)]
        places[buffer.memory][buffer.start + functools.reduce(np.add.outer, steps)] = True
    return 4 * int(sum(place.sum() for place in places.values()))


@pytest.mark.parametrize("name", zoo.NETS)
def test_activations_are_the_memory_of_a_program_that_keeps_them(name: str) -> None:
    outputs = {row.path: row.output for row in built(name).construction.rows}
    assert taken(compile_graph(Graph(outputs), fused=False).outputs) == summary(name).activation_bytes


def test_a_layer_of_ones_own_is_counted_by_its_ops() -> None:
    class Twice(Layer):
        name = None

        def build(self, scope: Any, *inputs: Value) -> Value:
            scale = scope.parameter("scale", inputs[0].shape[-1:], "ones")
            return scope.apply(Conv(4, 3), inputs[0] * scale) + scope.apply(Conv(4, 1), inputs[0])

    [own, first, second] = summarise(Twice(), (5, 5, 2)).rows
    assert (own.kind, own.parameters, own.multiply_adds) == ("Twice", 2 + 76 + 12, 25 * 4 * (18 + 2))
    assert (first.parameters, second.parameters, own.pads, own.receptive_field) == (76, 12, None, (3, 3))


# windows


def test_pads_are_those_that_the_layer_resolved() -> None:
    net = Sequential(Conv(4, 3, stride=2), MaxPool(2), Conv(4, (2, 3), padding=((1, 0), (2, 2))), AvgPool(2), ReLU())
    rows = summarise(net, (28, 27, 1)).rows
    assert [row.pads for row in rows] == [
        *(((0, 1), (1, 1)), ((0, 0), (0, 0)), ((1, 0), (2, 2)), ((0, 0), (0, 0)), None),
    ]
    assert [row.output_shape for row in rows] == [(14, 14, 4), (7, 7, 4), (7, 9, 4), (3, 4, 4), (3, 4, 4)]


def test_pads_and_unread_positions_of_pools() -> None:
    net = Sequential(
        *(MaxPool(2, ceil_mode=True), AvgPool(3, 2, ((1, 0), (0, 2)), ceil_mode=True), MaxPool(2, 3, dilation=2)),
        *(LpPool((2, 1), stride=(1, 3), ceil_mode=True), GlobalMaxPool()),
    )
    rows = summarise(net, (29, 28, 3)).rows
    assert [row.pads for row in rows] == [
        *(((0, 1), (0, 0)), ((1, 1), (0, 2)), ((0, 0), (0, 0)), ((0, 0), (0, 0)), None),
    ]
    assert [row.output_shape for row in rows] == [(15, 14, 3), (8, 7, 3), (2, 2, 3), (1, 1, 3), (3,)]
    assert [row.unread for row in rows] == [(0, 0), (0, 0), (4, 3), (0, 1), None]
    assert [row.receptive_field for row in rows] == [(2, 2), (6, 6), (14, 14), (26, 14), (26, 14)]


def test_pads_are_those_of_padding_layers_too() -> None:
    net = Sequential(Pad(((1, 2), (0, 0)), "edge"), Conv(4, 3, padding="valid"), Upsample(2), AdaptiveAvgPool(3))
    rows = summarise(net, (8, 7, 1)).rows
    assert [row.pads for row in rows] == [((1, 2), (0, 0)), ((0, 0), (0, 0)), None, None]
    assert "1+2, 0" in str(summarise(net, (8, 7, 1)))


def test_positions_that_no_window_reads_are_counted() -> None:
    net = Sequential(MaxPool((2, 3)), Conv(4, 1, stride=2, padding=0), Conv(2, 3, stride=2, padding=1), ReLU())
    assert [row.unread for row in summarise(net, (15, 13, 1)).rows] == [(1, 1), (3, 2), (0, 0), None]


def unread(layer: Layer, size: Shape) -> Shape:
    """Positions that the gradient of a window's sum does not reach, per dimension, where all weights are one."""
    one = build(layer, (*size, 1), 1)
    feeds = {key: np.ones(spec.shape) for key, spec in one.construction.parameters.items()}
    slope = differentiate(ops.sum(one.output), [one.input])
    [gradient] = evaluate(slope, feeds | {"x": np.ones(one.input.shape)})
    seen = np.nonzero(gradient)[1:-1]
    return tuple(n - len(np.unique(places)) for n, places in zip(size, seen, strict=True))


@pytest.mark.parametrize("name", zoo.NETS)
def test_unread_positions_are_those_without_a_gradient(name: str) -> None:
    """Of one filter over one channel, and of means, which read as maxima do."""
    for made, found in zip(built(name).construction.rows, summary(name).rows, strict=True):
        size = made.inputs[0].shape[1:-1]
        if isinstance(made.layer, Conv):
            assert found.unread == unread(replace(made.layer, filters=1, groups=1), size)
        elif isinstance(made.layer, MaxPool):
            pool = made.layer
            mean = AvgPool(pool.pool_size, pool.stride, pool.padding, dilation=pool.dilation, ceil_mode=pool.ceil_mode)
            assert found.unread == unread(mean, size)


# receptive fields


def footprints(network: Network, x: Value, output: Value) -> list[tuple[int, int]]:
    """First and last input position, per dimension, that the output's middle position depends on by its gradient."""
    random = np.random.default_rng(0)
    place = (0, *(n // 2 for n in output.shape[1:-1]))
    middle = np.zeros(output.shape)
    middle[place] = random.uniform(0.1, 1, output.shape[-1])
    loss = ops.sum(output * leaf("input", "mask", output.shape))
    feeds = {name: random.uniform(0.1, 1, spec.shape) for name, spec in network.specs.items()}
    feeds |= {"x": random.uniform(0.1, 1, x.shape), "mask": middle}
    [gradient] = evaluate(differentiate(loss, [x]), feeds)
    return [(int(p.min()), int(p.max())) for p in np.nonzero(gradient)[1:-1] if p.size]


def assert_field_is_footprint(net: Layer, input_shape: Shape) -> None:
    """The interval of the middle position, cut at the image's edges, is exactly what the gradient reaches."""
    network = Network(net, input_shape)
    built = network.forward(1)
    sizes = zip(field_of_middle(built), input_shape[:-1], strict=True)
    expected = [(max(0, low), min(n - 1, high)) for (low, high), n in sizes]
    assert footprints(network, built.input, built.output) == expected


def field_of_middle(built: Forward) -> list[tuple[int, int]]:
    """First and last position, per dimension, that the output's middle position sees: inside the image or beyond."""
    field = receptive_fields(built.input, built.output)[built.output.serial]
    middle = [n // 2 for n in built.output.shape[1:-1]] or [0] * len(field)
    ends = [i.at(np.array(o)) for o, i in zip(middle, field, strict=True)]
    return [(int(low), int(high)) for low, high in ends]


def _branches() -> Net:
    x = Input()
    h = Conv(2, 3)(x)
    gate = Sigmoid()(Conv(2, 1)(h))
    wide = Conv(2, 3, dilation=2)(h)
    return Net(x, Multiply()(Add()(h, wide), gate))


def _joined() -> Net:
    x = Input()
    return Net(x, Concat()(Conv(2, (2, 1))(x), Conv(3, (1, 4))(x), x))


def _gated() -> Net:
    x = Input()
    h = Conv(2, 3)(x)
    return Net(x, h + Conv(2, 1)(AvgPool(3, stride=1, padding="same")(h)))


def _u_net(mode: str) -> Net:
    """Down twice and up again, with what was there before beside it."""
    x = Input()
    high = Conv(2, 3)(x)
    middle = Conv(2, 3)(AvgPool(2)(high))
    low = Conv(2, 3)(AvgPool(2)(middle))
    middle = Conv(2, 3)(Concat()(middle, Upsample(2, mode)(low)))
    return Net(x, Conv(2, 3)(Concat()(high, Upsample(2, mode)(middle))))


def _excited() -> Net:
    x = Input()
    h = Conv(2, 3)(x)
    return Net(x, h * Sigmoid()(Conv(2, 1)(AdaptiveAvgPool(1)(h))))


NETS: list[tuple[Layer, Shape]] = [
    *((Sequential(Pad(2, mode), Conv(2, 3, padding=0)), (7, 6, 1)) for mode in ("constant", "reflect", "edge")),
    (Sequential(Pad(((4, 0), (0, 3)), "reflect"), Conv(2, 3, padding=0), AvgPool(2)), (5, 6, 1)),
    (Sequential(Conv(2, 3, stride=2), Upsample(), Conv(2, 3)), (20, 24, 1)),
    (Sequential(AvgPool(2), Upsample((2, 3, 2), "linear"), Conv(2, 3)), (8, 6, 10, 1)),
    (Sequential(Conv(2, 3), AdaptiveAvgPool((3, 5)), Conv(1, 1)), (11, 12, 1)),
    (Sequential(AdaptiveAvgPool(9), Conv(1, 2)), (4, 1)),
    (ConvTranspose(2, 3, stride=2), (9, 8, 1)),
    (Sequential(Conv(2, 3, stride=2), ConvTranspose(2, (4, 5), stride=(3, 2)), Conv(2, 2)), (24, 20, 1)),
    (Sequential(ConvTranspose(2, 3, stride=2, dilation=2), AvgPool(3)), (12, 1)),
    (_u_net("nearest"), (32, 24, 1)),
    (_u_net("linear"), (32, 24, 1)),
    (_excited(), (6, 5, 2)),
    (Parallel(Conv(2, 3), Sequential(Conv(2, 1), Conv(2, 5)), AvgPool(3, 1, "same")), (12, 11, 2)),
    (Conv(2, 3), (12, 11, 1)),
    (Sequential(Conv(2, 5, stride=2), Conv(2, 3, dilation=2), ReLU(), Conv(1, 2)), (40, 37, 1)),
    (Sequential(Conv(2, 3, padding="valid"), AvgPool(2), Conv(2, 3, padding=((3, 0),))), (32, 2)),
    (Sequential(Residual(Conv(2, 3), Conv(2, 3)), AvgPool(3, stride=2), Residual(Conv(2, 4))), (30, 30, 2)),
    (Sequential(Conv(2, 3), Conv(2, (1, 2, 3), stride=(2, 1, 3))), (9, 10, 14, 1)),
    (_branches(), (24, 24, 2)),
    (_joined(), (9, 9, 1)),
    (_gated(), (12, 12, 1)),
    (Sequential(Conv(2, 3), Softmax(), Conv(2, 3)), (12, 2)),
    (Sequential(Conv(2, 3, padding="valid"), AvgPool(2), GlobalAvgPool(), Dense(3)), (12, 13, 1)),
    (Sequential(AvgPool(3), Flatten(), Dense(3)), (11, 10, 2)),
    (Sequential(AvgPool(3, 2, 1, ceil_mode=True), AvgPool(2, 1, dilation=3)), (24, 23, 2)),
    (Sequential(Conv(2, 3), LpPool(3, (1, 2), ((2, 0), (0, 1)), p=3, dilation=(2, 1))), (14, 15, 1)),
    (LpPool(5, 4, ceil_mode=True), (7, 2)),
    (Sequential(Flatten(), Softmax()), (3, 2)),
]


@pytest.mark.parametrize(("net", "input_shape"), NETS, ids=range(len(NETS)))
def test_receptive_fields_are_footprints_of_the_gradient(net: Layer, input_shape: Shape) -> None:
    assert_field_is_footprint(net, input_shape)


@st.composite
def stacks(draw: st.DrawFn) -> list[Layer]:
    """Windows upon windows, some with a branch beside them."""
    layers: list[Layer] = []
    for _ in range(draw(st.integers(1, 4))):
        kernel, stride, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
        padding = draw(st.sampled_from(["same", "valid", 1, ((0, 2),), ((3, 0),)]))
        kind = draw(st.sampled_from(["conv", "pool", "residual", "pad", "upsample", "share"]))
        if kind == "conv":
            layers.append(Conv(2, kernel, stride, padding, dilation))
        elif kind == "pool":
            layers.append(AvgPool(kernel, stride, padding, dilation=dilation, ceil_mode=draw(st.booleans())))
        elif kind == "pad":
            pads = ((draw(st.integers(0, 4)), draw(st.integers(0, 4))),)
            layers.append(Pad(pads, draw(st.sampled_from(["constant", "reflect", "edge"]))))
        elif kind == "upsample":
            layers.append(Upsample(stride, draw(st.sampled_from(["nearest", "linear"]))))
        elif kind == "share":
            layers.append(AdaptiveAvgPool(draw(st.integers(1, 20))))
        else:
            layers.append(
                Residual(Conv(2, kernel, dilation=dilation), Conv(2, 2), shortcut=Conv(2, draw(st.integers(1, 5))))
            )
    return layers


@given(stacks(), st.integers(20, 200))
def test_receptive_fields_of_any_stack(layers: Sequence[Layer], size: int) -> None:
    """Where a field reaches beyond the image, padding on the way may hide more of the image than its end."""
    try:
        network = Network(Sequential(*layers), (size, 1))
    except ShapeError:  # a window does not fit, or sees nothing but padding
        return
    built = network.forward(1)
    [(low, high)], found = field_of_middle(built), footprints(network, built.input, built.output)
    if 0 <= low <= high < size:
        assert found == [(low, high)]
    for first, last in found:
        assert max(0, low) <= first <= last <= min(size - 1, high)


def test_receptive_fields_of_known_nets() -> None:
    resnet18, vgg16 = ({row.path: row.receptive_field for row in summary(name).rows} for name in ("resnet18", "vgg16"))
    assert resnet18["max_pool1"] == (11, 11)
    assert resnet18["layer4_1"] == (435, 435)  # Araujo et al., 2019, table 1
    assert vgg16["max_pool5"] == (212, 212)  # likewise
    assert summarise(Dense(10), (784,)).rows[0].receptive_field == ()


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_what_is_seen_through_upsampling_is_counted_by_position(mode: str) -> None:
    """Neighbours share what was pooled before: two positions here, and the next two there."""
    net = Sequential(AvgPool(2, name="pool"), Upsample(2, mode), Conv(2, 3))
    fields = {row.path: row.receptive_field for row in summarise(net, (16, 1)).rows}
    assert fields == {
        "pool": (2,),
        "upsample1": ({"nearest": 2, "linear": 4}[mode],),
        "conv1": (4 + 2 * (mode == "linear"),),
    }


def test_around_what_is_wrapped_the_input_goes_on() -> None:
    """An interval beyond the ends means the positions at the other end."""
    network = Network(Sequential(Pad(2, "wrap"), Conv(2, 3, padding="valid")), (6, 1))
    built = network.forward(1)
    [interval] = receptive_fields(built.input, built.output)[built.output.serial]
    assert interval.size == 3
    for place in range(built.output.shape[1]):
        loss = ops.sum(ops.cut(built.output, 1, place, place + 1))
        feeds = {name: np.ones(spec.shape) for name, spec in network.specs.items()} | {"x": np.ones((1, 6, 1))}
        [gradient] = evaluate(differentiate(loss, [built.input]), feeds)
        seen = np.arange(interval.low[place], interval.high[place] + 1) % 6
        np.testing.assert_array_equal(np.flatnonzero(gradient), np.sort(seen))


def test_positions_laid_out_anew_may_see_everything() -> None:
    rows = summarise(
        Sequential(Conv(2, 3), Reshape((4, 6, 2)), Conv(2, 3), Flatten(), Reshape((24, 2))), (6, 4, 1)
    ).rows
    assert [row.receptive_field for row in rows] == [(3, 3), (8, 6), (8, 6), (8, 6), (8, 6)]
    same = summarise(Sequential(Conv(2, 3), Reshape((6, 4, 2)), Conv(2, 3)), (6, 4, 1)).rows
    assert [row.receptive_field for row in same] == [(3, 3), (3, 3), (5, 5)]


def test_a_cut_moves_what_is_seen() -> None:
    class Differences(Layer):
        name = None

        def build(self, scope: Any, *inputs: Value) -> Value:
            [x] = inputs
            n = x.shape[1]
            return ops.cut(x, 1, 2, n) - ops.cut(x, 1, 0, n - 2)

    assert summarise(Differences(), (9, 1)).rows[0].receptive_field == (3,)
    assert_field_is_footprint(Sequential(Conv(2, 2), Differences(), Conv(2, 3, stride=2)), (20, 1))


def test_what_mixes_positions_sees_all_of_them() -> None:
    class Turned(Layer):
        name = None

        def build(self, scope: Any, *inputs: Value) -> Value:
            [x] = inputs
            return scope.apply(Conv(1, 1), ops.max(x, axes=1))

    assert summarise(Turned(), (5, 4, 3)).rows[0].receptive_field == (5, 4)


# what people see

TABLE = """\
layer                     output    pads  unread  parameters  multiply-adds     sees
------------------------------------------------------------------------------------
conv1      Conv      14 x 14 x 8  0+1, 1                  80         14,112    3 x 3
block      Residual  14 x 14 x 8                         848        163,072    9 x 7
  conv1    Conv      14 x 14 x 8  1+2, 1                 776        150,528    9 x 7
  relu1    ReLU      14 x 14 x 8                                               9 x 7
  conv2    Conv      14 x 14 x 8       0                  72         12,544    3 x 3
max_pool1  MaxPool     4 x 4 x 8       0   2 x 2                             13 x 11
flatten1   Flatten           128                                             13 x 11
dense1     Dense              10                       1,290          1,280  31 x 29
------------------------------------------------------------------------------------
2,218 parameters (0.01 MB); a sample takes 178,464 multiply-adds and 0.03 MB of activations"""


def test_a_summary_prints_as_a_table() -> None:
    block = Residual(Conv(8, (4, 3)), ReLU(), shortcut=Conv(8, 1), name="block")
    found = summarise(Sequential(Conv(8, 3, stride=2), block, MaxPool(3), Flatten(), Dense(10)), (28, 27, 1))
    assert str(found) == repr(found) == TABLE


def test_a_summary_is_json() -> None:
    found = summarise(Sequential(Conv(8, 3), Flatten(), Dense(10)), (8, 8, 1))
    read = json.loads(json.dumps(found.as_dict()))
    assert read["parameters"] == found.parameters
    assert read["rows"][0] == {
        "path": "conv1",
        "kind": "Conv",
        "depth": 0,
        "output_shape": [8, 8, 8],
        "pads": [[1, 1], [1, 1]],
        "unread": [0, 0],
        "parameters": 80,
        "multiply_adds": 4608,
        "receptive_field": [3, 3],
        "rule": "padding='same'",
    }


def test_an_audit_says_where_padding_comes_from() -> None:
    net = Sequential(Conv(8, 3, padding="valid"), MaxPool(2, ceil_mode=True), Flatten(), Dense(3))
    lines = str(summarise(net, (9, 9, 1), audit=True)).splitlines()
    assert [row.rule for row in summarise(net, (9, 9, 1)).rows] == [
        *("padding='valid'", "padding='valid', ceil_mode=True", "", ""),
    ]
    assert lines[0].split()[:2] == ["layer", "rule"]
    assert "padding='valid', ceil_mode=True" in lines[3]


def test_columns_without_anything_are_left_out() -> None:
    heads = str(summarise(Dense(3), (4,))).splitlines()[0].split()
    assert heads == ["layer", "output", "parameters", "multiply-adds"]
