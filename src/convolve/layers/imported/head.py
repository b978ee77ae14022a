"""The end of an imported net, made for other classes."""

from __future__ import annotations

from dataclasses import replace

from convolve.errors import ConvolveError
from convolve.layers.imported.graph import Node, Number, Stored
from convolve.layers.imported.net import Imported

HEADS = {"Gemm": 1, "MatMul": 1, "Conv": 1}
"""Operators that make a value a class, and which of their inputs is the weight."""
ENDS = ("Softmax", "LogSoftmax", "Sigmoid", "Identity")
"""What may follow the logits and is left out: losses take logits."""
BETWEEN = (
    *("Flatten", "Reshape", "Squeeze", "Dropout", "Identity", "Relu", "Add"),
    *("GlobalAveragePool", "GlobalMaxPool", "AveragePool", "ReduceMean"),
)
"""What may stand between the weight and the logits."""


def with_head(net: Imported, classes: int, flat: bool) -> tuple[Imported, frozenset[str]]:
    """The net whose last weight makes `classes` logits, and the names of the nodes that read new arrays.

    What came after the logits is left out. With `flat`, the logits are maps of a single position: they become a row.

    Raises:
        ConvolveError: the net has several outputs, or does not end in a weight that makes a value a class.
    """
    if len(net.outputs) != 1:
        raise ConvolveError(f"replace_head: the net has {len(net.outputs)} outputs; it takes nets of one")
    [port] = net.outputs
    made = {name: node for node in net.nodes for name in node.outputs}
    stored = {a.name: a for a in net.arrays}
    name = port.name
    while name in made and made[name].op in ENDS:
        name = made[name].inputs[0]
    path: list[Node] = []
    value = name
    while value in made and made[value].op not in HEADS:
        node = made[value]
        path.append(node)
        if node.op not in BETWEEN:
            raise _without_head(node)
        value = next((v for v in node.inputs if v in made), "")
    if value not in made:
        raise _without_head(path[-1] if path else None)
    head = made[value]
    weight = stored.get(head.inputs[HEADS[head.op]])
    if weight is None:
        raise _without_head(head)
    axis = 0 if head.op == "Conv" or head.integer("transB", 0) else len(weight.shape) - 1
    units = weight.shape[axis]
    biases = [stored[v] for v in head.inputs[2:] if v in stored]
    biases += [stored[v] for node in path if node.op == "Add" for v in node.inputs if v in stored]
    new = {weight.name: tuple(classes if d == axis else n for d, n in enumerate(weight.shape))}
    new |= {b.name: tuple(classes if n == units else n for n in b.shape) for b in biases}
    used = [v for node in net.nodes for v in node.inputs if v in new]
    if len(used) != len(set(used)):
        raise ConvolveError(f"replace_head: {used[0]} is used elsewhere, too; give the net a head of its own first")
    shapes = {v for node in path if node.op == "Reshape" for v in node.inputs[1:]}
    shape = tuple(classes if n == units else n for n in port.shape)
    nodes = _until(net, name, port.name)
    if flat:
        maps = _free(f"{port.name}_map", {v for node in net.nodes for v in (*node.inputs, *node.outputs)})
        row = Node(_free("flatten", {node.name for node in net.nodes}), "Flatten", (maps,), (port.name,))
        nodes, shape = (*_until(net, name, maps), row), (*port.shape[:1], classes)
    changed = replace(
        net,
        nodes=nodes,
        outputs=(replace(port, shape=shape),),
        arrays=tuple(Stored(a.name, new.get(a.name, a.shape)) for a in net.arrays),
        numbers=tuple(_reshaped(c, units, classes) if c.name in shapes else c for c in net.numbers),
    )
    return changed, frozenset(node.name for node in net.nodes if new.keys() & set(node.inputs))


def _until(net: Imported, name: str, output: str) -> tuple[Node, ...]:
    """The nodes that the value `name` needs; it is called as the output now."""
    wanted, kept = {name}, []
    for node in reversed(net.nodes):
        if wanted.intersection(node.outputs):
            wanted.update(node.inputs)
            kept.append(node)

    def called(values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(output if v == name else v for v in values)

    return tuple(replace(n, inputs=called(n.inputs), outputs=called(n.outputs)) for n in reversed(kept))


def _free(name: str, taken: set[str]) -> str:
    """The name, or one like it that is not taken."""
    return name if name not in taken else _free(f"{name}_", taken)


def _reshaped(number: Number, units: int, classes: int) -> Number:
    return replace(number, values=tuple(classes if v == units else v for v in number.values))


def _without_head(node: Node | None) -> ConvolveError:
    found = f"{node.name} ({node.op})" if node else "an input"
    return ConvolveError(
        "replace_head: expected a net that ends in a fully-connected layer or a convolution with weights of its own, "
        f"and what pools or flattens it. Received: one that ends in {found}"
    )
