"""Dataclasses as JSON of a closed vocabulary, and back: nothing is unpickled, evaluated or imported by name."""

from __future__ import annotations

import contextlib
import inspect
import math
import numbers
import reprlib
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from convolve.errors import ConvolveError, FileError, ShapeError
from convolve.graph import OPS, Leaf, Op
from convolve.layers import VOCABULARY, Layer, Symbol
from convolve.layers.expanded import STEPS, Step, earlier
from convolve.layers.joins import Net
from convolve.window import Window


class Word:
    """A base of frozen dataclasses that files hold by name; it says itself which there are, so that no more can be.

    What has a field of such a type, or a list of them, is written by `encode` and read by `decode`.
    """

    vocabulary: ClassVar[Mapping[str, type]]


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


def known(layer: Layer) -> bool:
    """Whether a layer is of the vocabulary: a class of the same name is not enough."""
    return VOCABULARY.get(type(layer).__name__) is type(layer)


def form_of(value: Any) -> Any:
    """What stands for a value in a file."""
    return _Wiring.of(value) if isinstance(value, Net) else value


def parts_of(value: Any) -> dict[str, Any]:
    """The fields of a dataclass by name."""
    form = form_of(value)
    cls: Any = type(form)
    return {f.name: getattr(form, f.name) for f in fields(cls) if f.name in _parameters(cls)}


@cache
def _parameters(cls: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(cls).parameters


def make(cls: Any, parts: Mapping[str, Any]) -> Any:
    """An instance from its fields, one of which may be what the class takes by position (`Sequential(*layers)`)."""
    keywords = dict(parts)
    several = [name for name, p in _parameters(cls).items() if p.kind is p.VAR_POSITIONAL]
    positional = [v for name in several for v in keywords.pop(name)]
    made = cls(*positional, **keywords)
    return made.net() if isinstance(made, _Wiring) else made


# to JSON


def encode(value: Any) -> Any:
    """Words, records and plain values as JSON, keys sorted; what is of a vocabulary carries its name."""
    if isinstance(value, (Layer, Step, Word)):
        return {type(value).__name__: _record(value)}
    if isinstance(value, Op):
        return {value.name: _record(value)}
    if is_dataclass(value):
        return _record(value)
    if isinstance(value, (tuple, list)):
        return [encode(v) for v in value]
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
    return {name: encode(part) for name, part in sorted(parts_of(value).items())}


# from JSON


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
        made = make(cls, parts)
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
