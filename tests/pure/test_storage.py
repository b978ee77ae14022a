"""Saving and loading: nets there and back, own layers as ops, files that are whole or refused."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import safetensors.numpy
from helpers import IMPORTED
from hypothesis import given
from hypothesis import strategies as st

from convolve import ops
from convolve.errors import ConvolveError, FileError, ShapeError
from convolve.graph import OPS, Constant, Leaf, Op, Value, apply, evaluate, leaf
from convolve.layers import (
    VOCABULARY,
    Add,
    BatchNorm,
    Construction,
    Conv,
    Dense,
    Dropout,
    Expanded,
    Flatten,
    Imported,
    Input,
    Layer,
    MaxPool,
    Net,
    Normalize,
    Parameter,
    ReLU,
    Residual,
    Scope,
    Sequential,
    Symbol,
)
from convolve.layers.expanded import STEPS, Apply, Body, Statistic, Step, Weight
from convolve.network import Network
from convolve.ops.dropout import Dropout as DropoutOp
from convolve.ops.resample import Map
from convolve.storage import describe, dumps, load, loads, restore, save, words
from convolve.window import Window

SWISH = Body((Apply(OPS["pointwise"]("sigmoid"), (0,)), Apply(OPS["pointwise"]("multiply"), (0, 1))), 2)  # type: ignore[call-arg]


def functional() -> Net:
    x = Input()
    conv = Conv(2, 3)
    h = conv(x)
    return Net(x, Add(name="sum")(h, conv(h), x * x), name="whole")


def nested() -> Layer:
    return Sequential(
        Normalize((1.0, 2.0), 3),  # type: ignore[arg-type]
        Residual(Conv(4, 3), BatchNorm(), shortcut=Conv(4, 1, bias=False), name="block"),
        functional(),
        Flatten(),
        Dense(3),
    )


# nets


def examples(hint: Any) -> list[Any]:
    """Values of a field's type that are hardly its default: one for each kind of value it may have."""
    plain = {int: 7, float: 0.3, bool: True, str: "sigmoid", type(None): None, Op: Constant(1e-30), Layer: Dense(2)}
    special = {Body: SWISH, Symbol: None, Window: Window((3,), (2,), (1,), ((1, 0),)), Step: Statistic("m", (2,), 0.1)}
    special[Map] = Map("reflect", 7, 12, 2)
    if get_origin(hint) in (Union, types.UnionType):
        return [value for choice in get_args(hint) for value in examples(choice)]
    if get_origin(hint) is tuple:
        inner = [examples(choice)[0] for choice in get_args(hint) if choice is not ...]
        return [tuple(inner * (3 - len(inner)))]
    if hint in plain:
        return [plain[hint]]
    if hint in special:
        return [special[hint]]
    return [hint(**{f.name: examples(get_type_hints(hint)[f.name])[0] for f in fields(hint)})]


def instances(cls: Any) -> Iterator[Any]:
    """Instances of a layer, op or step with values of every kind in its fields."""
    if cls is Net:
        yield functional()
        return
    if cls is Expanded:
        yield Expanded("swish", ((3, 2),), SWISH, None, "named")
        yield Expanded("swish", ((3, 2),), SWISH, SWISH)
        return
    if cls is Imported:
        yield IMPORTED
        return
    hints = get_type_hints(cls)
    choices = {f.name: examples(hints[f.name]) for f in fields(cls)}
    for turn in range(max(map(len, choices.values()), default=1)):
        values = {name: several[turn % len(several)] for name, several in choices.items()}
        yield cls(*values.pop("layers", ()), **values)


@pytest.mark.parametrize("name", VOCABULARY)
def test_every_layer_comes_back(name: str) -> None:
    for layer in instances(VOCABULARY[name]):
        description = describe(layer)
        again = restore(json.loads(json.dumps(description)))
        assert type(again) is type(layer)
        assert describe(again) == description
        assert again == layer or isinstance(layer, Net)
        given = {f.name for f in fields(type(layer)) if not isinstance(layer, Net)}  # type: ignore[arg-type]
        assert given <= set(description[name])


@pytest.mark.parametrize("name", [name for name in OPS if name != "leaf"])
def test_every_op_comes_back(name: str) -> None:
    for op in instances(OPS[name]):
        layer = Expanded("own", ((3, 2),), Body((Apply(op, (0, 0)),), 1))
        assert restore(json.loads(json.dumps(describe(layer)))) == layer


@pytest.mark.parametrize("name", STEPS)
def test_every_step_comes_back(name: str) -> None:
    for step in instances(STEPS[name]):
        layer = Expanded("own", ((3, 2),) * 9, Body((step,), 0))
        assert restore(json.loads(json.dumps(describe(layer)))) == layer


def test_numbers_that_json_lacks_come_back() -> None:
    for number in (np.inf, -np.inf, np.nan, 1e-45, 0.1):
        layer = Expanded("own", ((3,),), Body((Apply(Constant(number), ()),), 1))
        again = restore(json.loads(json.dumps(describe(layer), allow_nan=False)))
        assert isinstance(again, Expanded)
        assert repr(again) == repr(layer)


def test_equal_nets_are_equal_text() -> None:
    written = [
        Sequential(Normalize(0, 255), Conv(np.int64(4), [3, 3])),  # type: ignore[arg-type]
        Sequential(Normalize(0.0, 255.0), Conv(4, (3, 3))),
    ]
    texts = {json.dumps(describe(net)) for net in written}
    assert len(texts) == 1
    assert list(describe(written[0])["Sequential"]) == sorted(describe(written[0])["Sequential"])


def test_a_functional_net_keeps_names_and_gives_a_layer_used_twice_two_sets_of_parameters() -> None:
    net, again = functional(), restore(describe(functional()))
    assert list(built(net, (4, 4, 2)).construction.parameters) == [
        "conv1.weight",
        "conv1.bias",
        "conv2.weight",
        "conv2.bias",
    ]
    same(net, again, (4, 4, 2))


def test_a_field_that_may_be_left_out_takes_its_default() -> None:
    assert restore({"Conv": {"filters": 2, "kernel_size": [3, 3]}}) == Conv(2, (3, 3))
    assert restore({"Dropout": {"rate": 0.25, "name": None}}) == Dropout(0.25)


def test_parameters_may_begin_with_a_number() -> None:
    @dataclass(frozen=True)
    class Own(Layer):
        name: str | None = None

        def build(self, scope: Any, x: Value) -> Value:  # type: ignore[override]
            return x * scope.parameter("a", (1,), 0.5) + scope.parameter("b", (1,), "ones")

    again = restore(describe(Sequential(Own()), (3,)))
    found = Network(again, (3,)).specs
    assert [spec.init for spec in found.values()] == [0.5, "ones"]


CONV = {"filters": 2, "kernel_size": 3}
BAD: dict[str, tuple[object, str]] = {
    "no object": ([], "net: expected an object"),
    "two layers": ({"ReLU": {}, "Conv": CONV}, "net: expected .* ReLU"),
    "no layer": ({}, "net: expected"),
    "unknown layer": ({"os.system": {}}, r"net: expected .*AvgPool.*Received: \['os.system'\]"),
    "a base": ({"Layer": {}}, "net: expected"),
    "unknown field": ({"ReLU": {"slope": 1}}, "net.ReLU: expected the fields name. Received: 'slope'"),
    "missing field": ({"Conv": {"filters": 2}}, "net.Conv: expected the fields filters.*no kernel_size"),
    "missing layers": ({"Sequential": {}}, "no layers"),
    "no fields": ({"ReLU": None}, r"net.ReLU: expected an object.*Received: None"),
    "string for int": ({"Conv": {**CONV, "filters": "2"}}, "net.Conv.filters: expected an integer. Received: '2'"),
    "bool for int": ({"Conv": {**CONV, "filters": True}}, "expected an integer. Received: True"),
    "float for int": ({"Conv": {**CONV, "filters": 2.0}}, "expected an integer. Received: 2.0"),
    "int for bool": ({"Conv": {**CONV, "bias": 1}}, "net.Conv.bias: expected true or false"),
    "null": ({"Conv": {**CONV, "init": None}}, "net.Conv.init: expected a printable string"),
    "escape": ({"ReLU": {"name": "\x1b[2J"}}, "net.ReLU.name: expected a printable string or null"),
    "surrogate": ({"ReLU": {"name": "\ud800"}}, "net.ReLU.name"),
    "large": ({"Dense": {"units": 2**31}}, "net.Dense.units"),
    "not finite": ({"LeakyReLU": {"slope": float("nan")}}, "net.LeakyReLU.slope: expected a number"),
    "no number": ({"LeakyReLU": {"slope": "Infinity"}}, "net.LeakyReLU.slope"),
    "in a tuple": ({"Conv": {**CONV, "kernel_size": [3, "3"]}}, r"net.Conv.kernel_size\[1\]: expected an integer"),
    "a pair of three": ({"Conv": {**CONV, "padding": [[1, 2, 3]]}}, r"net.Conv.padding\[0\]: expected a list of 2"),
    "in a layer": ({"Sequential": {"layers": [{"ReLU": {}}, {"No": {}}]}}, r"net.Sequential.layers\[1\]: expected"),
    "no layer in layers": ({"Sequential": {"layers": [None]}}, r"net.Sequential.layers\[0\]: expected an object"),
    "forward": ({"Net": {"nodes": [{"layer": {"ReLU": {}}, "inputs": [1]}], "output": 1}}, "node 1 takes value 1"),
    "negative": ({"Net": {"nodes": [{"layer": {"ReLU": {}}, "inputs": [-1]}], "output": 1}}, "node 1 takes value -1"),
    "output": ({"Net": {"nodes": [], "output": 1}}, "net.Net: the output takes value 1"),
    "nowhere": ({"Net": {"nodes": [{"layer": {"ReLU": {}}, "inputs": [0]}], "output": 0}}, "does not depend on all"),
    "symbols": ({"Net": {"input": 0, "output": 0}}, "net.Net: expected the fields nodes, output, name"),
}


@pytest.mark.parametrize("description", BAD)
def test_a_bad_description_is_refused(description: str) -> None:
    net, text = BAD[description]
    with pytest.raises(FileError, match=text):
        restore(net)


def body(steps: Sequence[object], output: int = 0, updates: Sequence[object] = ()) -> dict[str, Any]:
    return {
        "Expanded": {
            "origin": "own",
            "inputs": [[2]],
            "body": {"steps": steps, "output": output, "updates": list(updates)},
        }
    }


def test_a_bad_expansion_is_refused() -> None:
    window = {"kernel": [3], "stride": [0], "dilation": [1], "pads": [[0, 0]]}
    mirror = {"kind": "reflect", "size": 3, "output": 6, "lo": 3}
    statistic = {"Statistic": {"name": "m", "shape": [2], "value": 0.0}}
    leaf_op = {"op": {"leaf": {"kind": "parameter", "key": "dense1.weight"}}, "inputs": []}
    bad: list[tuple[object, str]] = [
        (body([{"Apply": leaf_op}]), r"net.Expanded.body.steps\[0\].Apply.op: expected .* Received: \['leaf'\]"),
        (
            body([{"Apply": {"op": {"softmax": {}}, "inputs": [1]}}]),
            "step 0 takes value 1; the values before it are 0 to 0",
        ),
        (
            body([{"Apply": {"op": {"convolution": {"window": window}}, "inputs": [0]}}]),
            r"op.convolution.window: kernel, str",
        ),
        (body([{"Apply": {"op": {"pool": {"kind": 1, "window": window}}, "inputs": [0]}}]), "op.pool.kind"),
        (
            body([{"Apply": {"op": {"resample": {"maps": [mirror]}}, "inputs": [0]}}]),
            r"op.resample.maps\[0\]: reflection reaches 2 positions into 3.*Received: padding \(3, 0\)",
        ),
        (body([], 1), "the result takes value 1"),
        (body([statistic], 0, [[0, 0]]), "an update sets value 0, which is not a statistic"),
        (body([statistic], 0, [[1, 2]]), "an update takes value 2"),
        (body([statistic], 0, [[1]]), r"updates\[0\]: expected a list of 2"),
    ]
    for description, text in bad:
        with pytest.raises(FileError, match=text):
            restore(description)


def test_a_description_too_deep_too_large_or_endless_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    deep: dict[str, Any] = {"ReLU": {}}
    for _ in range(10_000):
        deep = {"Sequential": {"layers": [deep]}}
    with pytest.raises(FileError, match="nested deeper"):
        restore(deep)
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(FileError, match="nested deeper"):
        restore(endless)
    net: Layer = ReLU()
    for _ in range(38):
        net = Sequential(net)
    assert restore(describe(net)) == net
    monkeypatch.setattr(words, "MOST_VALUES", 100)
    with pytest.raises(FileError, match="more than 100 values"):
        restore({"Sequential": {"layers": [{"ReLU": {}}] * 100}})


def test_a_field_that_json_cannot_hold_is_refused_before_it_is_written() -> None:
    with pytest.raises(ConvolveError, match=r"Received: array\("):
        describe(Normalize(np.zeros(3)))  # type: ignore[arg-type]
    with pytest.raises(ConvolveError, match=r"net\.Dense\.units: expected an integer"):
        describe(Dense(2.5))  # type: ignore[arg-type]


MUTATIONS: list[Any] = [
    None,
    True,
    -1,
    0,
    2,
    2**70,
    0.5,
    float("inf"),
    "",
    "relu",
    "Conv",
    [],
    [0],
    [[1, 1]],
    {},
    {"ReLU": {}},
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from places(part, (*path, key))


@cache
def described() -> tuple[str, str]:
    own = Sequential(Block(), Gate())
    return json.dumps({"root": describe(nested())}), json.dumps({"root": describe(own, (4, 4, 2))})


@given(data=st.data())
def test_a_mutated_description_is_refused_or_is_a_net(data: st.DataObject) -> None:
    description = json.loads(data.draw(st.sampled_from(described())))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from([p for p in places(description) if p]))
        holder = description
        for key in path[:-1]:
            holder = holder[key]
        action = data.draw(st.sampled_from(["set", "delete", "rename"]))
        if action == "delete":
            del holder[path[-1]]
        elif action == "rename" and isinstance(holder, dict):
            holder[data.draw(st.sampled_from(["ReLU", "name", "Sequential", "bogus"]))] = holder.pop(path[-1])
        else:
            holder[path[-1]] = copy.deepcopy(data.draw(st.sampled_from(MUTATIONS)))
        if "root" not in description:
            return
    try:
        net = restore(description["root"])
    except FileError:
        return
    again = describe(net)
    assert describe(restore(again)) == again


# own layers


@dataclass(frozen=True)
class Swish(Layer):
    slope: float = 1.5
    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        [x] = inputs
        return x * ops.sigmoid(x * self.slope)


@dataclass(frozen=True)
class Gate(Layer):
    """Reshapes and broadcasts with the batch in their shapes, a parameter, and a statistic that training moves."""

    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        [x] = inputs
        n, h, w, c = x.shape
        gain = scope.parameter("gain", (c,), "lecun_normal", fan_in=c, fan_out=3, decay=False)
        scope.parameter("unused", (2, 3), "ones")
        peak = scope.statistic("peak", (), 0.25)
        rows = ops.reshape(x, (n * h * w, c)) * gain
        mean = ops.reshape(ops.mean(ops.reshape(rows, (n, -1, c)), 1), (n, 1, 1, c))
        scope.update(peak, ops.maximum(peak, ops.max(x)))
        return x * ops.broadcast(mean, (n, h, w, c)) + peak


@dataclass(frozen=True)
class Block(Layer):
    """Inner layers of the vocabulary, of one's own, in a container, and one that draws random numbers."""

    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        [x] = inputs
        channels = x.shape[-1]
        y = scope.apply(Conv(channels, 3, name="first"), x)
        y = scope.apply(BatchNorm(), y)
        y = scope.apply(Sequential(Swish(), Gate(), Dropout(0.25), Swish(2.0, name="last")), y)
        return scope.apply(Gate(), y) + scope.parameter("shift", (channels,), "zeros") * x


@dataclass(frozen=True)
class Noisy(Layer):
    """Another thing in training."""

    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        [x] = inputs
        return scope.apply(Dropout(0.5), x) * 2.0 if scope.training else ops.tanh(scope.apply(Dropout(0.5), x))


@dataclass(frozen=True)
class Nothing(Layer):
    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        return inputs[0]


@dataclass(frozen=True)
class Blend(Layer):
    """Two inputs; the second is masked with a number that JSON lacks."""

    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        a, b = inputs
        return ops.maximum(a, ops.where(ops.greater(b, 0.0), b, -np.inf))


class Plain(Layer):
    """Not even a dataclass."""

    name = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        return scope.apply(Net(x := Input(), Add()(Swish()(x), x)), *inputs)


@dataclass(frozen=True)
class Wider(Conv):
    """A subclass of a layer of the vocabulary."""

    def build(self, scope: Scope, *inputs: Value) -> Value:
        return super().build(scope, *inputs) * 2.0


def joined() -> Net:
    x = Input()
    own = Swish()
    h = own(own(x))
    return Net(x, Blend()(h, Nothing()(x)) + Conv(2, 1)(own(h)))


OWN: dict[str, Callable[[], Layer]] = {
    "alone": Swish,
    "between": lambda: Sequential(Conv(3, 3), Swish(), Swish(name="named"), Conv(2, 1)),
    "parameters": lambda: Sequential(Gate(), Gate(), Residual(Gate(), shortcut=Gate())),
    "inner": lambda: Sequential(Dropout(0.5), Block(), MaxPool(2), Block(), Dropout(0.5)),
    "same object, two shapes": lambda: Sequential(*[own := Gate(), MaxPool(2), own]),
    "training": lambda: Sequential(Noisy(), Dropout(0.5)),
    "nothing": lambda: Sequential(Nothing(), Flatten(), Dense(2), Nothing()),
    "functional": joined,
    "plain": lambda: Sequential(Plain(), Plain()),
    "subclass": lambda: Sequential(Wider(3, 3), Conv(2, 1), Wider(2, 3)),
    "own namesake": lambda: Sequential(type("Conv", (Swish,), {})(), Conv(2, 1)),
}


@dataclass(frozen=True)
class Built:
    construction: Construction
    x: Value
    output: Value


def built(net: Layer, shape: tuple[int, ...], training: bool = False, batch: int = 5) -> Built:
    x = leaf("input", "x", (batch, *shape))
    construction = Construction(training)
    return Built(construction, x, net.build(Scope(construction), x))


def numbers(one: Built) -> list[np.ndarray]:
    """The output and every statistic's new value, by the ops' references."""
    feeds = {}
    for seed, value in enumerate([one.x, *one.construction.leaves.values()]):
        assert isinstance(value.op, Leaf)
        random = np.random.default_rng(seed)
        feeds[value.op.key] = random.random(value.shape, np.float32) - np.float32(0.4)
    if "random" in feeds:
        feeds["random"] = np.array([7, 11])
    return evaluate([one.output, *(value for _, value in one.construction.updates)], feeds)


def same(net: Layer, again: Layer, shape: tuple[int, ...]) -> None:
    """Both nets have the same parameters, in the same order, and give the same bits."""
    for training in (False, True):
        for batch in (2, 5):
            one, two = built(net, shape, training, batch), built(again, shape, training, batch)
            assert list(one.construction.parameters.items()) == list(two.construction.parameters.items())
            assert one.construction.counter == two.construction.counter
            first, second = one.construction.statistics, two.construction.statistics
            assert list(first) == list(second)
            assert all(np.array_equal(first[k], second[k]) for k in first)
            assert [row.path for row in one.construction.rows] == [row.path for row in two.construction.rows]
            for a, b in zip(numbers(one), numbers(two), strict=True):
                np.testing.assert_array_equal(a, b, strict=True)


@pytest.mark.parametrize("name", OWN)
def test_an_own_layer_is_saved_as_the_ops_it_writes(name: str) -> None:
    net = OWN[name]()
    description = describe(net, (4, 4, 2))
    again = restore(json.loads(json.dumps(description, allow_nan=False)))
    same(net, again, (4, 4, 2))
    assert describe(again) == describe(again, (4, 4, 2)) == describe(OWN[name](), (4, 4, 2)) == description


def test_what_differs_in_training_alone_is_saved_twice() -> None:
    for layer, twice in ((Swish(), False), (Block(), False), (Noisy(), True)):
        found = describe(layer, (4, 4, 2))["Expanded"]
        assert (found["training"] is not None) == twice


def test_own_layers_need_the_input_shape() -> None:
    with pytest.raises(ConvolveError, match=r"give describe the net's input_shape"):
        describe(Sequential(ReLU(), Swish()))


def test_an_expanded_layer_refuses_other_shapes() -> None:
    net = restore(describe(Sequential(Swish()), (4, 2)))
    with pytest.raises(ShapeError, match=r"swish1: was saved .* on inputs of shape \(4, 2\).*Received: \(5, 2\)"):
        built(net, (5, 2))


@dataclass(frozen=True)
class OfBatch(Layer):
    """Ways to depend on the batch size, to draw random numbers, and to use what is not one's own."""

    way: str = "mean"
    name: str | None = None

    def build(self, scope: Scope, *inputs: Value) -> Value:
        [x] = inputs
        if self.way == "mean":
            return x - ops.mean(x, 0)
        if self.way == "training":
            return x - ops.mean(x, 0) if scope.training else x
        if self.way == "steps":
            return ops.concat(*(ops.cut(x, 0, i, i + 1) for i in range(x.shape[0])), axis=0)
        if self.way == "square":
            return x * float(x.shape[0])
        if self.way == "random":
            return apply(DropoutOp(0.5, scope.number()), x, scope.construction.random)
        return x + leaf("parameter", "foreign", x.shape)


@pytest.mark.parametrize(
    ("way", "text"),
    [
        ("mean", "depends on the batch size.*inner BatchNorm"),
        ("training", "depends on the batch size in training"),
        ("steps", "depends on the batch size.*2 steps|3 steps"),
        ("square", "depends on the batch size.*value=2.0.*value=3.0"),
        ("random", r"draws random numbers itself.*scope.apply\(Dropout"),
        ("foreign", "uses a value from outside, parameter 'foreign'"),
    ],
)
def test_what_cannot_be_saved_is_named(way: str, text: str) -> None:
    with pytest.raises(ConvolveError, match=f"^residual1.of_batch1: OfBatch cannot be saved, because .*{text}"):
        describe(Sequential(ReLU(), Residual(OfBatch(way))), (2, 4))


def test_a_hostile_expansion_fails_with_its_layer_and_op() -> None:
    window = Window((3,), (1,), (1,), ((0, 0),))
    wrong: list[tuple[Op, tuple[int, ...]]] = [
        (OPS["convolution"](window), (0,)),  # type: ignore[call-arg]
        (OPS["concat"](0), ()),  # type: ignore[call-arg]
        (OPS["pointwise"]("no such"), (0,)),  # type: ignore[call-arg]
        (OPS["reshape"]((0, 0)), (0,)),  # type: ignore[call-arg]
        (OPS["slice"](5, 0, 1), (0,)),  # type: ignore[call-arg]
        (OPS["pool"]("max", window), (0,)),  # type: ignore[call-arg]
        (OPS["pool"]("max", Window((1,), (1,), (1,), ((9, 9),))), (0,)),  # type: ignore[call-arg]
        (OPS["pool"]("avg", Window((1,), (1,), (1,), ((0, 0),)), ((-9, 0),)), (0,)),  # type: ignore[call-arg]
        (OPS["resample"]((Map("edge", 3, 4),)), (0,)),  # type: ignore[call-arg]
    ]
    for op, inputs in wrong:
        layer = Sequential(Expanded("own", ((2, 4),), Body((Apply(op, inputs),), 1)))
        with pytest.raises(ShapeError, match=f"own1: op {op.name} does not suit"):
            built(restore(describe(layer)), (2, 4))


def test_labels_that_a_file_computes_are_refused() -> None:
    """Kernels trust labels to be classes: what the boundary has not seen must not become one."""
    steps = (Apply(OPS["reduce"]("sum", (1,)), (0,)), Apply(OPS["cross_entropy"](), (0, 1)))  # type: ignore[call-arg]
    layer = Sequential(Expanded("own", ((4,),), Body(steps, 2)))
    with pytest.raises(ShapeError, match=r"own1: op cross_entropy does not suit.*labels that are 32-bit integers"):
        built(restore(describe(layer)), (4,))


# files


def arrays() -> dict[str, np.ndarray]:
    return {
        "parameter:b.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "parameter:a.bias": np.array([np.nan, np.inf, -0.0], np.float32),
        "state:random": np.array([3, -1]),
        "statistic:scalar": np.full((), 2, np.float32),
        "statistic:none": np.zeros((0, 3), np.float32),
    }


HEADER: dict[str, Any] = {"net": {"ReLU": {"name": None}}, "classes": ["ä", "b"], "extra": {"rate": 0.1}}


def equal(
    left: tuple[dict[str, np.ndarray], dict[str, Any]], right: tuple[dict[str, np.ndarray], dict[str, Any]]
) -> bool:
    return (
        left[1] == right[1]
        and list(left[0]) == list(right[0])
        and all(
            a.tobytes() == b.tobytes() and a.shape == b.shape
            for a, b in zip(left[0].values(), right[0].values(), strict=True)
        )
    )


def test_a_file_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save(path, arrays(), HEADER)
    tensors, header = load(path)
    assert header == {**HEADER, "format_version": 1}
    assert list(tensors) == sorted(arrays())
    for name, array in arrays().items():
        np.testing.assert_array_equal(tensors[name], array, strict=True)
    assert list(tmp_path.iterdir()) == [path]


def test_equal_contents_are_equal_files(tmp_path: Path) -> None:
    turned = {name: np.asfortranarray(array) if array.ndim else array for name, array in reversed(arrays().items())}
    save(tmp_path / "a", arrays(), HEADER)
    save(tmp_path / "b", turned, dict(reversed(HEADER.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == dumps(arrays(), HEADER)


def test_a_file_is_replaced_through_a_link_and_keeps_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "model")
    for header in (HEADER, {}):
        save(tmp_path / "link", arrays(), header)
    assert (tmp_path / "link").is_symlink()
    assert load(tmp_path / "folder" / "model")[1] == {"format_version": 1}
    (tmp_path / "plain").touch()
    assert (tmp_path / "folder" / "model").stat().st_mode == (tmp_path / "plain").stat().st_mode


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_nothing_is_written_where_it_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    before = snapshot(tmp_path)
    for name, text in {
        "file/model": "cannot be written.*is a file: choose another folder",
        "missing/model": "cannot be written.*Make the folder first",
        "folder": "cannot be written.*Give the name of a file",
        "x" * 300: "cannot be written",
        "nul\0l": "cannot be written",
    }.items():
        with pytest.raises(FileError, match=text) as caught:
            save(tmp_path / name, arrays(), HEADER)
        assert str(caught.value).startswith(str(tmp_path / name))
    assert snapshot(tmp_path) == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device")
def test_a_device_is_not_replaced() -> None:
    with pytest.raises(FileError, match=r"^/dev/full: cannot be written .*device"):
        save("/dev/full", arrays(), HEADER)
    assert Path("/dev/full").is_char_device()


FULL = """
import resource, sys
import numpy as np
from convolve.errors import FileError
from convolve.storage import save
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    save(sys.argv[1], {"x": np.zeros(10_000, np.float32)}, {})
except FileError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of POSIX")
def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save(path, arrays(), HEADER)
    before = snapshot(tmp_path)
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{path}: cannot be written (File too large)")
    assert "what was there before is unchanged" in done.stdout
    assert snapshot(tmp_path) == before


def test_what_fails_on_the_way_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    save(path, arrays(), HEADER)
    before = snapshot(tmp_path)
    for failing, error in ((os.fsync, OSError(28, "No space left on device")), (os.fsync, KeyboardInterrupt())):

        def fail(descriptor: int, error: BaseException = error) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(os, failing.__name__, fail)
            with pytest.raises((FileError, KeyboardInterrupt)):
                save(path, {}, {})
        assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("tensors", "header", "text"),
    [
        ({"a": np.zeros(2)}, {}, "tensor 'a': expected float32 or int64. Received: float64"),
        ({"a": np.zeros(2, ">f4")}, {}, "tensor 'a': expected float32 or int64. Received: >f4"),
        ({}, {"extra": float("nan")}, "JSON holds finite numbers"),
        ({}, {"extra": object()}, "JSON holds finite numbers"),
        ({}, {"extra": {1: 0, "1": 0}}, "JSON holds finite numbers"),
        ({"\ud800": np.zeros(2, np.float32)}, {}, "a name cannot be written"),
    ],
)
def test_what_a_file_cannot_hold_is_refused(tmp_path: Path, tensors: Any, header: Any, text: str) -> None:
    with pytest.raises(FileError, match=f"model: .*{text}"):
        save(tmp_path / "model", tensors, header)
    assert not list(tmp_path.iterdir())


def file_of(text: str | None, tensors: dict[str, np.ndarray] | None = None) -> bytes:
    return safetensors.numpy.save(tensors or {}, None if text is None else {"convolve": text})


def raw(header: object, rest: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + rest


def tensor(start: int, stop: int, shape: Sequence[int] = (2,), dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


VERSION_1 = """
{"classes":null,"extra":{},"format_version":1,"input_shape":[2,2,1],"net":{"Sequential":{"layers":[
{"Conv":{"bias":true,"dilation":1,"filters":1,"init":"he_normal","kernel_size":2,"name":null,
"padding":[[0,1],[1,0]],"stride":1}},
{"Expanded":{"body":{"output":4,"steps":[{"Apply":{"inputs":[],"op":{"constant":{"value":1.5}}}},
{"Apply":{"inputs":[0,1],"op":{"pointwise":{"function":"multiply"}}}},
{"Apply":{"inputs":[2],"op":{"pointwise":{"function":"sigmoid"}}}},
{"Apply":{"inputs":[0,3],"op":{"pointwise":{"function":"multiply"}}}}],"updates":[]},
"inputs":[[2,2,1]],"name":null,"origin":"swish","training":null}},
{"MaxPool":{"name":null,"padding":"valid","pool_size":2,"stride":null}},{"Flatten":{"name":null}},
{"Dense":{"bias":false,"init":"he_normal","name":null,"units":2}}],"name":null}}}
"""


def test_a_file_of_version_1_stays_readable() -> None:
    """What this text says is what it said when the version was new: never edit it."""
    data = file_of(VERSION_1, {"parameter:dense1.weight": np.array([[1], [2]], np.float32)})
    tensors, header = loads(data)
    np.testing.assert_array_equal(tensors["parameter:dense1.weight"], [[1], [2]])
    assert header["input_shape"] == [2, 2, 1]
    net = Sequential(Conv(1, 2, padding=((0, 1), (1, 0))), Swish(), MaxPool(2), Flatten(), Dense(2, bias=False))
    same(net, restore(header["net"]), (2, 2, 1))


OURS = {"__metadata__": {"convolve": '{"format_version":1}'}}
DAMAGED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "no whole safetensors file .*truncated, damaged or of another kind"),
    "another kind": (b"\x89PNG\r\n\x1a\n" + bytes(100), "no whole safetensors file"),
    "truncated": (dumps(arrays(), HEADER)[:-1], "no whole safetensors file"),
    "in the header": (dumps(arrays(), HEADER)[:100], "no whole safetensors file"),
    "longer": (dumps(arrays(), HEADER) + b"\0", "no whole safetensors file"),
    "huge header": ((2**62).to_bytes(8, "little") + b"{}", "no whole safetensors file"),
    "overlap": (raw({**OURS, "a": tensor(0, 8), "b": tensor(4, 12)}, bytes(12)), "no whole safetensors file"),
    "outside": (raw({**OURS, "a": tensor(0, 800)}, bytes(8)), "no whole safetensors file"),
    "hole": (raw({**OURS, "a": tensor(4, 12)}, bytes(12)), "no whole safetensors file"),
    "wrong shape": (raw({**OURS, "a": tensor(0, 8, (3,))}, bytes(8)), "no whole safetensors file"),
    "overflow": (raw({**OURS, "a": tensor(0, 0, (2**40, 2**40))}), "no whole safetensors file"),
    "huge and empty": (raw({**OURS, "a": tensor(0, 0, (0, 2**40, 2**40))}), "no whole safetensors file"),
    "negative": (raw({**OURS, "a": tensor(0, 8, (-2,))}, bytes(8)), "no whole safetensors file"),
    "deep": (raw(0)[:8] + b"[" * 10_000, "no whole safetensors file"),
    "float64": (file_of('{"format_version":1}', {"a": np.zeros(2)}), "tensor 'a': expected float32.*float64"),
    "bfloat16": (
        raw({**OURS, "a": tensor(0, 4, dtype="BF16")}, bytes(4)),
        "expected float32.*BF16|BF16.*expected|bfloat",
    ),
    "foreign": (file_of(None), "without the metadata key 'convolve'"),
    "null": (raw({"__metadata__": None}), "without the metadata key 'convolve'"),
    "no JSON": (file_of("pickle"), "not the JSON that convolve writes"),
    "NaN": (file_of('{"format_version":1,"extra":NaN}'), "not the JSON .*NaN is not a finite number"),
    "infinite": (file_of('{"format_version":1,"extra":1e999}'), "not the JSON .*1e999 is not a finite number"),
    "twice": (file_of('{"format_version":1,"format_version":2}'), "not the JSON .*a key stands twice"),
    "long number": (file_of('{"format_version":' + "1" * 5000 + "}"), "not the JSON|Received: 1111"),
    "deep JSON": (file_of("[" * 100_000), "not the JSON that convolve writes"),
    "a list": (file_of("[1]"), "expected format_version 1.*Received: None"),
    "no version": (file_of("{}"), "expected format_version 1, which .* reads. Received: None"),
    "version 2": (file_of('{"format_version":2}'), "expected format_version 1.*Received: 2; a newer convolve"),
    "version true": (file_of('{"format_version":true}'), "expected format_version 1.*Received: True"),
    "version 1.0": (file_of('{"format_version":1.0}'), "expected format_version 1.*Received: 1.0"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    data, text = DAMAGED[damage]
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(FileError, match=text) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    wrong = {"missing": "No such file", "": "folder or a device", "nul\0l": "null"}
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        wrong["pipe"] = "a device"
    for name, text in wrong.items():
        with pytest.raises(FileError, match=f"cannot be read .*{text}"):
            load(tmp_path / name)


@given(data=st.data())
def test_a_file_with_other_bytes_is_refused_or_still_a_file(data: st.DataObject) -> None:
    tensors = {name: array for name, array in arrays().items() if array.size < 5}
    whole = bytearray(dumps(tensors, HEADER))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del whole[data.draw(st.integers(0, len(whole) - 1)) :]
    try:
        found = loads(bytes(whole))
    except FileError:
        return
    assert equal(loads(dumps(*found)), found)


def test_dataclasses_are_what_files_hold() -> None:
    """Every layer, op and step is a dataclass whose field types can be looked up at run time."""
    for cls in (*VOCABULARY.values(), *OPS.values(), *STEPS.values(), Window, Parameter, Weight):
        assert is_dataclass(cls)
        assert get_type_hints(cls) is not None
