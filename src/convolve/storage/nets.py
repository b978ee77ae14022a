"""Nets in words: layers of the vocabulary as they are, a person's own as the ops they write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any

from convolve.errors import ConvolveError
from convolve.graph import Leaf, Shape, Value, leaf, topological
from convolve.layers import Construction, Layer, Scope
from convolve.layers.expanded import Apply, Body, Call, Expanded, Statistic, Step, Weight
from convolve.ops.pointwise import Broadcast
from convolve.ops.reduce import Reshape
from convolve.storage.words import decode, encode, form_of, known, make, parts_of


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
    description: dict[str, Any] = encode(restore(encode(net)))
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
    net: Layer = decode(description, Layer, "net")
    return net


def _own(value: Any) -> bool:
    """Whether there are layers in a value that are not of the vocabulary."""
    if isinstance(value, Layer) and not known(value):
        return True
    if isinstance(value, (tuple, list)):
        return any(_own(v) for v in value)
    return is_dataclass(value) and any(_own(v) for v in parts_of(value).values())


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
        if known(layer):
            inner = _Recorder(Construction(self.training), path, modes=self.modes)
            shape = layer.build(inner, *inputs).shape
            return _with_inner(layer, inner.calls), shape
        shapes = tuple(v.shape[1:] for v in inputs)
        body, *others = [_body_of_any_batch(layer, path, shapes, training) for training in self.modes]
        differing = [other for other in others if encode(other) != encode(body)]
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
        return make(type(value), {n: change(v) for n, v in parts_of(value).items()}) if is_dataclass(value) else value

    form = form_of(layer)
    changed: Layer = make(type(form), {name: change(part) for name, part in parts_of(form).items()})
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
        return first if encode(first) == encode(second) else None
    a, b = first.op, second.op
    if isinstance(a, (Broadcast, Reshape)) and isinstance(b, (Broadcast, Reshape)):
        target = tuple(m if m == n else -(m // BATCHES[0]) for m, n in zip(a.target, b.target, strict=False))
        first = replace(first, op=replace(a, target=target))
    return first if [encode(first.at(n)) for n in BATCHES] == [encode(a), encode(b)] else None


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
