"""Nets as JSON, and files of tensors: how a model is kept. No code in files: nothing is unpickled or imported by name.

`describe` writes a net in a closed vocabulary and `restore` reads it; `save` and `load` keep tensors with such a header
in one safetensors file, written whole or not at all. Layers of a person's own are kept as the ops they write.
"""

from __future__ import annotations

import contextlib
import errno
import inspect
import json
import math
import numbers
import os
import reprlib
import secrets
import stat
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import safetensors
import safetensors.numpy

from convolve.errors import ConvolveError, FileError, ShapeError
from convolve.graph import OPS, Leaf, Op, Shape, Value, leaf, topological
from convolve.layers import VOCABULARY, Construction, Layer, Scope, Symbol
from convolve.layers.expanded import STEPS, Apply, Body, Call, Expanded, Statistic, Step, Weight, earlier
from convolve.layers.joins import Net
from convolve.ops.pointwise import Broadcast
from convolve.ops.reduce import Reshape
from convolve.window import Window

FORMAT_VERSION = 1
READABLE = (1,)
"""Versions of the format that `load` reads: every one there ever was."""

# nets


def describe(net: Layer, input_shape: Shape | None = None) -> dict[str, Any]:
    """A net as JSON: `{"Conv": {"filters": 8, ...}}`, every field written.

    Args:
        net: any layer. One that is not of the vocabulary, a person's own, becomes an `Expanded`: the ops it writes.
        input_shape: (*spatial, channels) of one sample; needed only where there are own layers.

    Raises:
        ConvolveError: a field holds what a file cannot; an own layer's ops depend on the batch size.

    >>> from convolve.layers import Dense, ReLU, Sequential
    >>> describe(Sequential(Dense(10), ReLU()))["Sequential"]["layers"][0]
    {'Dense': {'bias': True, 'init': 'he_normal', 'name': None, 'units': 10}}
    """
    if _own(net):
        if input_shape is None:
            raise ConvolveError(
                "the net has layers of your own, which are saved as the ops they write: give describe the net's "
                "input_shape, as in describe(net, (28, 28, 1))"
            )
        net = expand(net, input_shape)
    # What is written is what a reader would accept, with the numbers' types as the layers declare them.
    description: dict[str, Any] = _encode(restore(_encode(net)))
    return description


def restore(description: object) -> Layer:
    """The net of a description.

    Raises:
        FileError: with the place in the description, what stands there, and what is accepted.

    >>> restore({"Dense": {"units": 10}})
    Dense(units=10, bias=True, init='he_normal', name=None)
    >>> restore({"Dense": {"units": "ten"}})
    Traceback (most recent call last):
    convolve.errors.FileError: net.Dense.units: expected an integer. Received: 'ten'
    """
    _bound(description, "net")
    net: Layer = _decode(description, Layer, "net")
    return net


class Word:
    """A base of frozen dataclasses that files hold by name; it says itself which there are, so that no more can be.

    What has a field of such a type, or a list of them, is written by `encode` and read by `decode`.
    """

    vocabulary: ClassVar[Mapping[str, type]]


def encode(value: object) -> Any:
    """Words, records and plain values as JSON, keys sorted."""
    return _encode(value)


def decode(description: object, hint: Any, name: str) -> Any:
    """The value of type `hint` that `encode` described; `name` is what the errors call it.

    Raises:
        FileError: with the place in the description, what stands there, and what is accepted.
    """
    _bound(description, name)
    return _decode(description, hint, name)


MOST_VALUES = 500_000
"""JSON values in a description."""
MOST_LEVELS = 120
"""Objects and lists within each other: some forty blocks."""
MOST_INTEGER = 2**31 - 1
NOT_FINITE = ("inf", "-inf", "nan")
"""How numbers are written that JSON lacks."""


@dataclass(frozen=True)
class _Node:
    """A layer in a `_Wiring`, and where its inputs come from: 0 is the net's input, n the n-th node."""

    layer: Layer
    inputs: tuple[int, ...]


@dataclass(frozen=True)
class _Wiring:
    """A `Net` as files hold it: its nodes, each after those it needs. A layer used twice is two nodes."""

    nodes: tuple[_Node, ...]
    output: int
    name: str | None = None

    @classmethod
    def of(cls, net: Net) -> _Wiring:
        place = {id(net.input): 0}
        nodes = []
        for symbol in net.order():
            if symbol.layer is not None:
                nodes.append(_Node(symbol.layer, tuple(place[id(s)] for s in symbol.inputs)))
                place[id(symbol)] = len(nodes)
        return cls(tuple(nodes), place[id(net.output)], net.name)

    def net(self) -> Net:
        symbols = [Symbol(None)]
        for node in self.nodes:
            earlier(node.inputs, len(symbols), f"node {len(symbols)}")
            symbols.append(Symbol(node.layer, tuple(symbols[i] for i in node.inputs)))
        earlier((self.output,), len(symbols), "the output")
        net = Net(symbols[0], symbols[self.output], self.name)
        if len({id(s) for s in net.order()} | {id(symbols[0])}) < len(symbols):
            raise ConvolveError("the output does not depend on all nodes; leave out the others")
        return net


def _known(layer: Layer) -> bool:
    """Whether a layer is of the vocabulary: a class of the same name is not enough."""
    return VOCABULARY.get(type(layer).__name__) is type(layer)


def _form(value: Any) -> Any:
    """What stands for a value in a file."""
    return _Wiring.of(value) if isinstance(value, Net) else value


def _parts(value: Any) -> dict[str, Any]:
    """The fields of a dataclass by name."""
    form = _form(value)
    cls: Any = type(form)
    return {f.name: getattr(form, f.name) for f in fields(cls) if f.name in _parameters(cls)}


def _own(value: Any) -> bool:
    """Whether there are layers in a value that are not of the vocabulary."""
    if isinstance(value, Layer) and not _known(value):
        return True
    if isinstance(value, (tuple, list)):
        return any(_own(v) for v in value)
    return is_dataclass(value) and any(_own(v) for v in _parts(value).values())


@cache
def _parameters(cls: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(cls).parameters


def _make(cls: Any, parts: Mapping[str, Any]) -> Any:
    """An instance from its fields, one of which may be what the class takes by position (`Sequential(*layers)`)."""
    keywords = dict(parts)
    several = [name for name, p in _parameters(cls).items() if p.kind is p.VAR_POSITIONAL]
    positional = [v for name in several for v in keywords.pop(name)]
    made = cls(*positional, **keywords)
    return made.net() if isinstance(made, _Wiring) else made


# to JSON


def _encode(value: Any) -> Any:
    """A value as JSON, keys sorted; what is of a vocabulary carries its name."""
    if isinstance(value, (Layer, Step, Word)):
        return {type(value).__name__: _record(value)}
    if isinstance(value, Op):
        return {value.name: _record(value)}
    if is_dataclass(value):
        return _record(value)
    if isinstance(value, (tuple, list)):
        return [_encode(v) for v in value]
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else str(float(value))
    raise ConvolveError(
        f"a net is saved as JSON: its layers' fields are numbers, strings, None, layers and tuples of them. "
        f"Received: {reprlib.repr(value)}"
    )


def _record(value: Any) -> dict[str, Any]:
    return {name: _encode(part) for name, part in sorted(_parts(value).items())}


# from JSON


def _bound(description: object, name: str) -> None:
    """Refuse what is too large or too deep to be walked."""
    stack: list[tuple[object, int]] = [(description, 0)]
    count = 0
    while stack:
        value, level = stack.pop()
        count += 1
        if level > MOST_LEVELS:
            raise FileError(f"{name}: nested deeper than {MOST_LEVELS} objects and lists; none needs that")
        if count > MOST_VALUES:
            raise FileError(f"{name}: more than {MOST_VALUES:,} values; none needs that many")
        inner: Iterable[object] = ()
        if isinstance(value, dict):
            inner = value.values()
        elif isinstance(value, (list, tuple)):
            inner = value
        stack.extend((v, level + 1) for v in inner)


@cache
def _vocabulary(base: Any) -> Mapping[str, type] | None:
    """The closed vocabulary of which a field of type `base` holds a word; None where it is no such field."""
    if base is Layer:
        return {**VOCABULARY, "Net": _Wiring}
    if base is Step:
        return STEPS
    if base is Op:
        return {name: op for name, op in OPS.items() if op is not Leaf}
    if isinstance(base, type) and issubclass(base, Word) and "vocabulary" in vars(base):
        return base.vocabulary
    return None


@cache
def _schema(cls: Any) -> dict[str, tuple[Any, bool]]:
    """Each field's type, and whether it must be given."""
    hints = get_type_hints(cls)
    names = {f.name for f in fields(cls)}
    return {n: (hints[n], p.default is p.empty) for n, p in _parameters(cls).items() if n in names}


def _decode(value: Any, hint: Any, where: str) -> Any:
    """The value of type `hint` that JSON stands for."""
    origin, choices = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        fitting = [h for h in choices if _fits(value, h)]
        for choice in fitting[:-1]:
            with contextlib.suppress(FileError):
                return _decode(value, choice, where)
        if fitting:
            return _decode(value, fitting[-1], where)
    elif _fits(value, hint):
        if origin is tuple:
            return _decode_tuple(value, choices, where)
        if _vocabulary(hint) is not None:
            return _decode_word(value, hint, where)
        if is_dataclass(hint):
            return _decode_record(value, hint, where)
        return float(value) if hint is float else value
    raise FileError(f"{where}: expected {_words(hint)}. Received: {reprlib.repr(value)}")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value is of the kind that stands for a type; what is inside is looked at later."""
    if get_origin(hint) is Literal:
        return any(type(value) is type(word) and value == word for word in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, list)
    if hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is str:
        return isinstance(value, str) and value.isprintable()
    if hint in (int, float) and isinstance(value, int):
        return not isinstance(value, bool) and abs(value) <= MOST_INTEGER
    if hint is float:
        return (isinstance(value, float) and math.isfinite(value)) or value in NOT_FINITE
    return isinstance(value, dict) and (_vocabulary(hint) is not None or is_dataclass(hint))


def _decode_tuple(value: list[Any], choices: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if choices[-1] is ...:
        choices = choices[:1] * len(value)
    if len(value) != len(choices):
        raise FileError(f"{where}: expected a list of {len(choices)}. Received: {reprlib.repr(value)}")
    return tuple(_decode(v, c, f"{where}[{i}]") for i, (v, c) in enumerate(zip(value, choices, strict=True)))


def _decode_word(value: dict[Any, Any], hint: Any, where: str) -> Any:
    """`{"Conv": {...}}`: one word of a vocabulary with its fields."""
    vocabulary = _vocabulary(hint) or {}
    word = next(iter(value), "")
    if len(value) != 1 or word not in vocabulary:
        raise FileError(
            f'{where}: expected {{"name": {{its fields}}}} with one of the names {", ".join(sorted(vocabulary))}. '
            f"Received: {reprlib.repr(list(value))}; a newer convolve may know it"
        )
    return _decode(value[word], vocabulary[word], f"{where}.{word}")


def _decode_record(value: dict[Any, Any], cls: Any, where: str) -> Any:
    schema = _schema(cls)
    problems = [f"{reprlib.repr(name)}, which is none of them" for name in value if name not in schema]
    problems += [f"no {name}" for name, (_, needed) in schema.items() if needed and name not in value]
    if problems:
        raise FileError(f"{where}: expected the fields {', '.join(schema) or '(none)'}. Received: {problems[0]}")
    parts = {name: _decode(value[name], schema[name][0], f"{where}.{name}") for name in schema if name in value}
    try:
        made = _make(cls, parts)
        if isinstance(made, Window):
            _check_window(made)
    except ConvolveError as error:
        raise FileError(f"{where}: {error}") from None
    return made


def _check_window(window: Window) -> None:
    """A window comes from `window.resolve` or from a file, and kernels trust it."""
    pads = [pad for pair in window.pads for pad in pair]
    if not len(window.stride) == len(window.dilation) == len(window.pads) == window.rank:
        raise ShapeError(f"kernel, stride, dilation and pads need as many entries each. Received: {window}")
    if min((*window.kernel, *window.stride, *window.dilation), default=1) < 1 or min(pads, default=0) < 0:
        raise ShapeError(f"kernel, stride and dilation are at least 1, pads at least 0. Received: {window}")


def _words(hint: Any) -> str:
    """A type in words, for messages."""
    origin, choices = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(h) for h in choices)
    if origin is Literal:
        return " or ".join(map(repr, choices))
    if origin is tuple:
        inner = ", ".join(_words(h) for h in choices if h is not ...)
        return f"a list (each: {inner})" if choices[-1] is ... else f"[{inner}]"
    plain = {int: "an integer", float: "a number", bool: "true or false", str: "a printable string", type(None): "null"}
    return plain.get(hint) or f"an object ({hint.__name__.strip('_')})"


# own layers


def expand(net: Layer, input_shape: Shape, training: bool = True) -> Layer:
    """The net with each layer that is not of the vocabulary replaced by an `Expanded`: the ops it writes.

    The net is built once to see on what shapes each own layer works; that layer is then built alone, for two batch
    sizes, in inference and, unless `training` is false, in training. Inner layers of the vocabulary stay layers. No
    parameter's name changes.

    Raises:
        ConvolveError: an own layer's ops depend on the batch size, draw random numbers, or use values from outside.

    >>> from convolve import ops
    >>> from convolve.layers import Sequential
    >>> @dataclass(frozen=True)
    ... class Swish(Layer):
    ...     name: str | None = None
    ...     def build(self, scope, x):
    ...         return x * ops.sigmoid(x)
    >>> [layer] = expand(Sequential(Swish()), (4,)).layers
    >>> [step.op.function for step in layer.body.steps]
    ['sigmoid', 'multiply']
    """
    root = _Recorder(Construction(training=False), modes=(False, True) if training else (False,))
    return root.recorded(net, "", (leaf("input", "x", (BATCHES[0], *input_shape)),))[0]


BATCHES = (2, 3)
"""Batch sizes for which an own layer is built: what differs otherwise than in proportion cannot be kept."""


@dataclass(frozen=True, eq=False)
class _Applied:
    """A layer applied in a scope, what stands for it in a file, and its result, on which the outer graph goes on."""

    original: Layer
    layer: Layer
    inputs: tuple[Value, ...]
    result: Value


@dataclass(frozen=True)
class _Recorder(Scope):
    """A scope that writes down the layers applied in it. A result is a leaf, so that each layer's graph is its own."""

    modes: tuple[bool, ...] = ()
    calls: list[_Applied] = field(default_factory=list)

    def apply(self, layer: Layer, *inputs: Value) -> Value:
        kept, shape = self.recorded(layer, self.name(layer), inputs)
        result = leaf("call", "", shape)
        self.calls.append(_Applied(layer, kept, inputs, result))
        return result

    def recorded(self, layer: Layer, path: str, inputs: tuple[Value, ...]) -> tuple[Layer, Shape]:
        """What stands for a layer in a file, and the shape of its result."""
        if _known(layer):
            inner = _Recorder(Construction(self.training), path, modes=self.modes)
            shape = layer.build(inner, *inputs).shape
            return _with_inner(layer, inner.calls), shape
        shapes = tuple(v.shape[1:] for v in inputs)
        body, *others = [_body_of_any_batch(layer, path, shapes, training) for training in self.modes]
        differing = [other for other in others if _encode(other) != _encode(body)]
        expanded = Expanded(layer.kind(), shapes, body, differing[0] if differing else None, layer.name)
        return expanded, expanded.build(Scope(Construction(self.training), path), *inputs).shape


def _with_inner(layer: Layer, calls: Sequence[_Applied]) -> Layer:
    """A layer of the vocabulary with the layers it holds replaced by what stands for them."""
    if all(call.layer is call.original for call in calls):
        return layer
    left = list(calls)

    def change(value: Any) -> Any:
        if isinstance(value, Layer):
            found = next((call for call in left if call.original is value), None)
            if found is None:
                return value
            left.remove(found)
            return found.layer
        if isinstance(value, (tuple, list)):
            return tuple(change(v) for v in value)
        return _make(type(value), {n: change(v) for n, v in _parts(value).items()}) if is_dataclass(value) else value

    form = _form(layer)
    changed: Layer = _make(type(form), {name: change(part) for name, part in _parts(form).items()})
    return changed


def _body_of_any_batch(layer: Layer, path: str, inputs: tuple[Shape, ...], training: bool) -> Body:
    """What a layer does, whatever the batch size."""
    first, second = (_body(layer, path, [(n, *shape) for shape in inputs], training) for n in BATCHES)
    if (len(first.steps), first.output, first.updates) != (len(second.steps), second.output, second.updates):
        raise _depends(layer, path, training, f"{len(first.steps)} steps, then {len(second.steps)}")
    steps = []
    for a, b in zip(first.steps, second.steps, strict=True):
        step = _step_of_any_batch(a, b)
        if step is None:
            raise _depends(layer, path, training, f"{a}, then {b}")
        steps.append(step)
    return replace(first, steps=tuple(steps))


def _depends(layer: Layer, path: str, training: bool, found: str) -> ConvolveError:
    return ConvolveError(
        f"{path or 'the net'}: {type(layer).__name__} cannot be saved, because what it writes depends on the batch size"
        f"{' in training' if training else ''}. Received: for batches of {BATCHES[0]} and {BATCHES[1]} {found}. "
        "Write it without means over the batch, for instance with an inner BatchNorm"
    )


def _step_of_any_batch(first: Step, second: Step) -> Step | None:
    """The step that is `first` for the one batch size and `second` for the other; None where there is none."""
    if not (isinstance(first, Apply) and isinstance(second, Apply)) or first.inputs != second.inputs:
        return first if _encode(first) == _encode(second) else None
    a, b = first.op, second.op
    if isinstance(a, (Broadcast, Reshape)) and isinstance(b, (Broadcast, Reshape)):
        target = tuple(m if m == n else -(m // BATCHES[0]) for m, n in zip(a.target, b.target, strict=False))
        first = replace(first, op=replace(a, target=target))
    return first if [_encode(first.at(n)) for n in BATCHES] == [_encode(a), _encode(b)] else None


def _body(layer: Layer, path: str, inputs: Sequence[Shape], training: bool) -> Body:
    """What a layer does when it is built on inputs of these shapes."""
    scope = _Recorder(Construction(training), path, modes=(training,))
    own = scope.construction
    given = [leaf("input", str(i), shape) for i, shape in enumerate(inputs)]
    output = layer.build(scope, *given)
    if own.counter or "random" in own.leaves:
        raise ConvolveError(
            f"{path or 'the net'}: {type(layer).__name__} cannot be saved, because it draws random numbers itself. Let "
            "an inner layer draw them, for instance scope.apply(Dropout(0.5), x)"
        )
    results = {call.result.serial: call for call in scope.calls}
    roots = [output, *own.leaves.values(), *(v for pair in own.updates for v in pair)]
    roots += [v for call in scope.calls for v in (*call.inputs, call.result)]
    place = {v.serial: i for i, v in enumerate(given)}
    steps: list[Step] = []
    for value in topological(roots):
        if value.serial in place:
            continue
        call = results.get(value.serial)
        if call is not None:
            step: Step = Call(call.layer, tuple(place[v.serial] for v in call.inputs))
        elif isinstance(value.op, Leaf):
            step = _declared(layer, path, own, value.op)
        else:
            op = replace(value.op, target=value.shape) if isinstance(value.op, (Broadcast, Reshape)) else value.op
            step = Apply(op, tuple(place[v.serial] for v in value.inputs))
        place[value.serial] = len(given) + len(steps)
        steps.append(step)
    updates = tuple((place[a.serial], place[b.serial]) for a, b in own.updates)
    return Body(tuple(steps), place[output.serial], updates)


def _declared(layer: Layer, path: str, own: Construction, op: Leaf) -> Step:
    """The step that declares a leaf which a layer uses."""
    name = op.key.removeprefix(f"{path}.") if path else op.key
    if op.kind == "parameter" and op.key in own.parameters:
        return Weight(name, own.parameters[op.key])
    if op.kind == "statistic" and op.key in own.statistics:
        values = own.statistics[op.key]
        return Statistic(name, values.shape, float(values.flat[0]) if values.size else 0.0)
    raise ConvolveError(
        f"{path or 'the net'}: {type(layer).__name__} cannot be saved, because it uses a value from outside, "
        f"{op.kind} {op.key!r}. Use its inputs, and parameters and statistics of its own scope"
    )


# files


def save(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], header: Mapping[str, object]) -> None:
    """Write tensors and a header to a safetensors file: whole, or not at all. Equal contents are equal files.

    Args:
        path: of the file, which may exist; a link is followed.
        tensors: by name, float32 (int64 for the state of random numbers).
        header: anything that JSON can hold; `format_version` is added.

    Raises:
        FileError: the file cannot be written. What was there before is unchanged, and nothing else is left.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> save(f"{folder.name}/a.safetensors", {"x": np.ones(2, np.float32)}, {"net": None})
    >>> load(f"{folder.name}/a.safetensors")
    ({'x': array([1., 1.], dtype=float32)}, {'format_version': 1, 'net': None})
    >>> folder.cleanup()
    """
    with _named(path):
        data = dumps(tensors, header)
    write(path, data)


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """Give a file, which may exist, new contents: whole, or not at all; a link is followed.

    Raises:
        FileError: the file cannot be written. What was there before is unchanged, and nothing else is left.
    """
    try:
        _replace(Path(os.path.realpath(path)), data)
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise FileError(f"{path}: cannot be written ({_reason(error)}). {_advice(error)}") from None


def load(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors and the header of a file that `save` wrote.

    Raises:
        FileError: the file is missing, damaged, of another kind or of another version; the message says which.
    """
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise IsADirectoryError(errno.EISDIR, "it is a folder or a device")
        data = Path(path).read_bytes()
    except (OSError, ValueError, MemoryError) as error:
        raise FileError(f"{path}: cannot be read ({_reason(error)}). Check the name") from None
    with _named(path):
        return loads(data)


def dumps(tensors: Mapping[str, np.ndarray], header: Mapping[str, object]) -> bytes:
    """What `save` writes, as bytes.

    Raises:
        FileError: a tensor or the header is nothing that a file can hold.
    """
    arrays = {}
    for name, array in sorted(tensors.items()):
        if array.dtype not in DTYPES:
            raise FileError(f"tensor {name!r}: expected float32 or int64. Received: {array.dtype}")
        arrays[name] = np.asarray(array, order="C")
    try:
        text = json.dumps(
            {**header, "format_version": FORMAT_VERSION}, sort_keys=True, separators=(",", ":"), allow_nan=False
        )
        return safetensors.numpy.save(arrays, {KEY: text})
    except (TypeError, ValueError, RecursionError, safetensors.SafetensorError) as error:
        raise FileError(
            f"the header or a name cannot be written ({error}). JSON holds finite numbers, strings, true, false, null, "
            "lists, and objects with strings as keys"
        ) from None


def loads(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What `load` reads, from bytes."""
    try:
        tensors = safetensors.numpy.load(data)
    except KeyError as error:
        raise FileError(f"holds a tensor of type {error}; expected float32 or int64") from None
    except (safetensors.SafetensorError, ValueError, MemoryError) as error:
        raise FileError(
            f"is no whole safetensors file ({error}). It is truncated, damaged or of another kind: save or get it anew"
        ) from None
    header = _header(data)
    for name, array in tensors.items():
        if array.dtype not in DTYPES:
            raise FileError(f"tensor {name!r}: expected float32 or int64. Received: {array.dtype}")
    return dict(sorted(tensors.items())), header


KEY = "convolve"
"""The one metadata key."""
DTYPES = (np.float32, np.int64)


def _header(data: bytes) -> dict[str, Any]:
    """The JSON under our key, from a file that safetensors found whole: 8 bytes of length, then JSON, then tensors."""
    size = int.from_bytes(data[:8], "little")
    try:
        text = (json.loads(data[8 : 8 + size]).get("__metadata__") or {}).get(KEY)
        if text is None:
            raise FileError(
                f"is a safetensors file without the metadata key {KEY!r}: not written by convolve. Load it with the "
                "library that wrote it"
            )
        header = json.loads(text, object_pairs_hook=_object, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"its metadata {KEY!r} is not the JSON that convolve writes ({error}). It is damaged") from None
    version = header.get("format_version") if isinstance(header, dict) else None
    if type(version) is not int or version not in READABLE:
        raise FileError(
            f"expected format_version {' or '.join(map(str, READABLE))}, which this version of convolve reads. "
            f"Received: {reprlib.repr(version)}; a newer convolve may read it"
        )
    return dict(header)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"a key stands twice among {reprlib.repr([key for key, _ in pairs])}")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number


@contextlib.contextmanager
def _named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Let errors begin with the file's name."""
    try:
        yield
    except FileError as error:
        raise FileError(f"{path}: {error}") from None


def _replace(path: Path, data: bytes) -> None:
    """Give a file new contents at once: a reader, or a machine that stops, sees the old ones or the new ones."""
    if path.exists() and not path.is_file():
        raise IsADirectoryError(errno.EISDIR, "it is a folder or a device")
    temporary = path.parent / f".convolve-{secrets.token_hex(8)}.tmp"
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not every platform can sync a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


ADVICE: dict[int | None, str] = {
    errno.ENOENT: "Make the folder first, or choose another one",
    errno.ENOTDIR: "A part of its folder's name is a file: choose another folder",
    errno.EISDIR: "Give the name of a file",
    errno.ENOSPC: "Make room on the disk, or choose another one",
    errno.EDQUOT: "Make room in your quota, or choose another disk",
    errno.EFBIG: "The system's limit for files is lower: raise it, or choose another disk",
}


def _advice(error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    return f"{ADVICE.get(number, 'Choose a place where you may write')}; what was there before is unchanged"


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "it does not fit into memory"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
