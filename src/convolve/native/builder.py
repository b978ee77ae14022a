"""Kernel code as Python reads it: expressions with operators, loops and branches as context managers.

The only file that touches basic blocks. A kernel is a function `(args, piece, scratch)`: `args` points to 64-bit
slots (pointers, integers, float bits), `piece` says which share of the work this call does, `scratch` is memory of
the thread's own. Arithmetic carries no fast-math flag: what is written is what is computed, in that order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import llvmlite.ir as ir

from convolve.native.target import Target

I8, I32, I64 = (ir.IntType(n) for n in (8, 32, 64))
F32 = ir.FloatType()
POINTER = ir.PointerType()
ELEMENTS: dict[str, Any] = {"f4": F32, "i4": I32, "i8": I64, "u1": I8, "f8": ir.DoubleType()}


class Expr:
    """A value of the kernel: an integer, a float or a vector of either, with the operators one expects."""

    def __init__(self, kernel: Kernel, value: Any) -> None:
        self.kernel, self.value = kernel, value

    @property
    def type(self) -> Any:
        return self.value.type

    @property
    def is_float(self) -> bool:
        t = self.type
        return isinstance(t.element if isinstance(t, ir.VectorType) else t, (ir.FloatType, ir.DoubleType))

    def _binary(self, other: Expr | float, integer: str, floating: str, swap: bool = False) -> Expr:
        a, b = self.value, self.kernel.lift(other, self.type).value
        if swap:
            a, b = b, a
        return Expr(self.kernel, getattr(self.kernel.ir, floating if self.is_float else integer)(a, b))

    def __add__(self, other: Expr | float) -> Expr:
        return self._binary(other, "add", "fadd")

    __radd__ = __add__

    def __sub__(self, other: Expr | float) -> Expr:
        return self._binary(other, "sub", "fsub")

    def __rsub__(self, other: Expr | float) -> Expr:
        return self._binary(other, "sub", "fsub", swap=True)

    def __mul__(self, other: Expr | float) -> Expr:
        return self._binary(other, "mul", "fmul")

    __rmul__ = __mul__

    def __truediv__(self, other: Expr | float) -> Expr:
        return self._binary(other, "sdiv", "fdiv")

    def __floordiv__(self, other: Expr | int) -> Expr:
        """Quotient of non-negative integers."""
        return self._binary(other, "udiv", "fdiv")

    def __mod__(self, other: Expr | int) -> Expr:
        """Remainder of non-negative integers."""
        return self._binary(other, "urem", "frem")

    def __and__(self, other: Expr | int) -> Expr:
        return self._binary(other, "and_", "and_")

    def __or__(self, other: Expr | int) -> Expr:
        return self._binary(other, "or_", "or_")

    def __xor__(self, other: Expr | int) -> Expr:
        return self._binary(other, "xor", "xor")

    def __lshift__(self, other: Expr | int) -> Expr:
        return self._binary(other, "shl", "shl")

    def __rshift__(self, other: Expr | int) -> Expr:
        """Arithmetic shift."""
        return self._binary(other, "ashr", "ashr")

    def __neg__(self) -> Expr:
        return Expr(self.kernel, self.kernel.ir.fneg(self.value) if self.is_float else self.kernel.ir.neg(self.value))

    def _compare(self, op: str, other: Expr | float) -> Expr:
        b = self.kernel.lift(other, self.type).value
        build = self.kernel.ir
        if self.is_float:
            made = build.fcmp_unordered("!=", self.value, b) if op == "!=" else build.fcmp_ordered(op, self.value, b)
        else:
            made = build.icmp_signed(op, self.value, b)
        return Expr(self.kernel, made)

    def __lt__(self, other: Expr | float) -> Expr:
        return self._compare("<", other)

    def __le__(self, other: Expr | float) -> Expr:
        return self._compare("<=", other)

    def __gt__(self, other: Expr | float) -> Expr:
        return self._compare(">", other)

    def __ge__(self, other: Expr | float) -> Expr:
        return self._compare(">=", other)

    def equals(self, other: Expr | float) -> Expr:
        return self._compare("==", other)

    def differs(self, other: Expr | float) -> Expr:
        """True also where a float is not a number."""
        return self._compare("!=", other)


class Pointer:
    """A typed address. `p + n` moves by elements."""

    def __init__(self, kernel: Kernel, value: Any, element: str) -> None:
        self.kernel, self.value, self.element = kernel, value, element

    def __add__(self, index: Expr | int) -> Pointer:
        k = self.kernel
        made = k.ir.gep(self.value, [k.lift(index, I64).value], source_etype=ELEMENTS[self.element])
        return Pointer(k, made, self.element)

    def load(self) -> Expr:
        """One element; small integers come widened to 64 bits."""
        k = self.kernel
        element = ELEMENTS[self.element]
        value = k.ir.load(self.value, typ=element)
        if self.element == "i4":
            value = k.ir.sext(value, I64)
        elif self.element == "u1":
            value = k.ir.zext(value, I64)
        return Expr(k, value)

    def store(self, value: Expr | float) -> None:
        k = self.kernel
        k.ir.store(k.lift(value, ELEMENTS[self.element]).value, self.value)

    def vector(self, mask: Expr | None = None) -> Expr:
        """A vector of consecutive elements; bytes and 32-bit integers come as floats. Masked lanes are not touched."""
        k = self.kernel
        lanes = k.target.lanes
        kind = ir.VectorType(ELEMENTS[self.element], lanes)
        if mask is None:
            value = k.ir.load(self.value, typ=kind, align=1)
        else:
            operands = [Expr(k, self.value), Expr(k, I32(1)), mask, Expr(k, ir.Constant(kind, None))]
            value = k.intrinsic(f"llvm.masked.load.{_suffix(kind)}.p0", kind, operands).value
        floats = ir.VectorType(F32, lanes)
        if self.element == "u1":
            value = k.ir.uitofp(value, floats)
        elif self.element == "i4":
            value = k.ir.sitofp(value, floats)
        return Expr(k, value)

    def splat(self) -> Expr:
        """One element in every lane, as a float."""
        k = self.kernel
        loaded = self.load()
        return k.splat(loaded if loaded.is_float else k.to_float(loaded))

    def store_vector(self, value: Expr, mask: Mask | None = None) -> None:
        """Store a vector; with a mask, touch only its first lanes.

        A partial store goes by halves (4, 2, 1 lanes): processors without fast masked stores take a dozen cycles for
        one.
        """
        k = self.kernel
        if mask is None:
            k.ir.store(value.value, self.value, align=1)
            return
        with k.either(mask.count >= value.type.count) as (whole, part):
            with whole:
                k.ir.store(value.value, self.value, align=1)
            with part:
                place, half = self, value.type.count // 2
                while half:
                    low, high = k.halves(value)
                    chosen = mask.count & half
                    with k.when(chosen.differs(0)):
                        k.ir.store(low.value, place.value, align=1)
                    value = k.select(chosen.differs(0), high, low)
                    place = place + chosen
                    half //= 2

    def prefetch(self, write: bool = False) -> None:
        """Ask for the line at this address, to be read or written soon; any address will do."""
        k = self.kernel
        options = [Expr(k, I32(n)) for n in (int(write), 3, 1)]
        k.intrinsic("llvm.prefetch.p0", None, [Expr(k, self.value), *options])


class Mask(Expr):
    """The first `count` lanes set."""

    def __init__(self, kernel: Kernel, value: Any, count: Expr) -> None:
        super().__init__(kernel, value)
        self.count = count


class Variable:
    """A value that loops change. Becomes a register."""

    def __init__(self, kernel: Kernel, initial: Expr) -> None:
        self.kernel = kernel
        with kernel.ir.goto_entry_block():
            self.slot = kernel.ir.alloca(initial.type)
        self.set(initial)

    def set(self, value: Expr) -> None:
        self.kernel.ir.store(value.value, self.slot)

    def get(self) -> Expr:
        return Expr(self.kernel, self.kernel.ir.load(self.slot, typ=self.slot.allocated_type))


class Kernel:
    """A native function in the making."""

    def __init__(self, target: Target, name: str, arguments: Sequence[str]) -> None:
        """`arguments`: "name:f4" (pointer to float), "name:i4", "name:u1", "name:int" or "name:float"."""
        self.target = target
        self.module = ir.Module(name)
        self.module.triple = target.triple
        function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), [POINTER, I64, POINTER]), name)
        self.ir: Any = ir.IRBuilder(function.append_basic_block("entry"))
        slots, piece, scratch = function.args
        self.piece = Expr(self, piece)
        self.scratch = Pointer(self, scratch, "f4")
        self.args: dict[str, Any] = {}
        for index, declared in enumerate(arguments):
            label, kind = declared.split(":")
            address = self.ir.gep(slots, [I64(index)], source_etype=I64)
            if kind == "int":
                self.args[label] = Expr(self, self.ir.load(address, typ=I64))
            elif kind == "float":
                self.args[label] = Expr(self, self.ir.load(address, typ=F32))
            else:
                self.args[label] = Pointer(self, self.ir.load(address, typ=POINTER), kind)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["args"][name]
        except KeyError:
            raise AttributeError(f"kernel {self.module.name} has no argument {name!r}") from None

    def finish(self) -> str:
        """Close the function and give the module's text."""
        self.ir.ret_void()
        return str(self.module)

    # values

    def lift(self, value: Expr | float, kind: Any = I64) -> Expr:
        """A Python number as a constant of `kind`; expressions pass through."""
        if isinstance(value, Expr):
            return value
        if isinstance(kind, ir.VectorType):
            return Expr(self, ir.Constant(kind, [self.lift(value, kind.element).value.constant] * kind.count))
        if isinstance(kind, ir.FloatType):
            value = struct.unpack("f", struct.pack("f", value))[0]
        return Expr(self, ir.Constant(kind, value))

    def vector_type(self, lanes: int | None = None) -> Any:
        return ir.VectorType(F32, lanes or self.target.lanes)

    def constant(self, value: float, lanes: int | None = None) -> Expr:
        """`value`, rounded to float32, in every lane."""
        return self.lift(value, self.vector_type(lanes))

    def splat(self, scalar: Expr, lanes: int | None = None) -> Expr:
        lanes = lanes or self.target.lanes
        empty = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
        one = self.ir.insert_element(empty, scalar.value, I32(0))
        return Expr(self, self.ir.shuffle_vector(one, empty, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes)))

    def to_float(self, value: Expr) -> Expr:
        return Expr(self, self.ir.sitofp(value.value, F32))

    def narrow(self, value: Expr) -> Expr:
        """An integer as 32 bits: as wide as a float."""
        return Expr(self, self.ir.trunc(value.value, I32))

    def lane(self, vector: Expr, index: int) -> Expr:
        return Expr(self, self.ir.extract_element(vector.value, I32(index)))

    def bits(self, value: Expr, kind: Any) -> Expr:
        """The same bits as another type."""
        return Expr(self, self.ir.bitcast(value.value, kind))

    def as_ints(self, vector: Expr) -> Expr:
        """Float lanes' bits as 32-bit integers."""
        return self.bits(vector, ir.VectorType(I32, vector.type.count))

    def as_floats(self, vector: Expr) -> Expr:
        return self.bits(vector, ir.VectorType(F32, vector.type.count))

    def select(self, condition: Expr, yes: Expr, no: Expr) -> Expr:
        return Expr(self, self.ir.select(condition.value, yes.value, no.value))

    def choose(self, condition: Expr, yes: Pointer, no: Pointer) -> Pointer:
        return Pointer(self, self.ir.select(condition.value, yes.value, no.value), yes.element)

    def minimum(self, a: Expr, b: Expr | int) -> Expr:
        other = self.lift(b)
        return self.select(a < other, a, other)

    def fma(self, a: Expr, b: Expr, c: Expr) -> Expr:
        """a * b + c, rounded once (twice on a CPU without the instruction)."""
        if not self.target.fma:
            return a * b + c
        return self.intrinsic(f"llvm.fma.{_suffix(a.type)}", a.type, [a, b, c])

    def unary(self, name: str, a: Expr) -> Expr:
        """An LLVM intrinsic that maps to one exact instruction: sqrt, fabs, floor, rint, ..."""
        return self.intrinsic(f"llvm.{name}.{_suffix(a.type)}", a.type, [a])

    def address(self, pointer: Pointer) -> Expr:
        """An address as an integer."""
        return Expr(self, self.ir.ptrtoint(pointer.value, I64))

    def words(self, count: Expr) -> Pointer:
        """So many 64-bit words of the function's own, until it returns."""
        return Pointer(self, self.ir.alloca(I64, count.value), "i8")

    def halves(self, vector: Expr) -> tuple[Expr, Expr]:
        """The lower and the upper half of a vector's lanes; of two lanes, numbers."""
        half = vector.type.count // 2
        if half == 1:
            return self.lane(vector, 0), self.lane(vector, 1)

        return self.shuffle(vector, range(half)), self.shuffle(vector, range(half, 2 * half))

    def shuffle(self, vector: Expr, lanes: Sequence[int]) -> Expr:
        """A vector of the lanes that are named."""
        chosen = ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes))
        return Expr(self, self.ir.shuffle_vector(vector.value, vector.value, chosen))

    def woven(self, vectors: Sequence[Expr]) -> list[Expr]:
        """As many vectors, with the first lanes of all, the second lanes of all, and so on."""
        count, lanes = len(vectors), vectors[0].type.count
        values, width = [v.value for v in vectors], lanes
        while len(values) > 2:
            empty = ir.Constant(values[0].type, ir.Undefined)
            pairs = zip(values[::2], [*values[1::2], empty][: -(-len(values) // 2)], strict=True)
            whole = ir.Constant(ir.VectorType(I32, 2 * width), list(range(2 * width)))
            values, width = [self.ir.shuffle_vector(a, b, whole) for a, b in pairs], 2 * width
        order = [i % count * lanes + i // count for i in range(count * lanes)]
        chosen = (order[i : i + lanes] for i in range(0, len(order), lanes))
        masks = (ir.Constant(ir.VectorType(I32, lanes), part) for part in chosen)
        return [Expr(self, self.ir.shuffle_vector(*values, mask)) for mask in masks]

    def lane_mask(self, count: Expr, lanes: int | None = None) -> Mask:
        """Lanes 0..count-1 set; `count` may lie outside of 0..lanes."""
        lanes = lanes or self.target.lanes
        kind = ir.VectorType(I32, lanes)
        index = Expr(self, ir.Constant(kind, list(range(lanes))))
        within = self.select(count < 0, self.lift(0), count)
        return Mask(self, (index < self.splat(self.narrow(count), lanes)).value, within)

    def intrinsic(self, name: str, result: Any, operands: Sequence[Expr]) -> Expr:
        kind = ir.FunctionType(result or ir.VoidType(), [o.type for o in operands])
        function = self.module.globals.get(name) or ir.Function(self.module, kind, name)
        return Expr(self, self.ir.call(function, [o.value for o in operands]))

    def variable(self, initial: Expr | int) -> Variable:
        return Variable(self, self.lift(initial))

    # control

    @contextmanager
    def range(self, stop: Expr | int, start: Expr | int = 0, step: int = 1) -> Iterator[Expr]:
        """for i in range(start, stop, step)"""
        first, last = self.lift(start), self.lift(stop)
        function = self.ir.function
        body, done = function.append_basic_block("loop"), function.append_basic_block("done")
        before = self.ir.block
        self.ir.cbranch((first < last).value, body, done)
        self.ir.position_at_end(body)
        index = self.ir.phi(I64)
        index.add_incoming(first.value, before)
        yield Expr(self, index)
        following = self.ir.add(index, I64(step))
        index.add_incoming(following, self.ir.block)
        self.ir.cbranch(self.ir.icmp_signed("<", following, last.value), body, done)
        self.ir.position_at_end(done)

    @contextmanager
    def when(self, condition: Expr) -> Iterator[None]:
        """if condition:"""
        with self.ir.if_then(condition.value):
            yield

    @contextmanager
    def either(self, condition: Expr) -> Iterator[tuple[Any, Any]]:
        """if condition: (the first) else: (the second), each a context manager."""
        with self.ir.if_else(condition.value) as branches:
            yield branches


def _suffix(kind: Any) -> str:
    if isinstance(kind, ir.VectorType):
        return f"v{kind.count}{_suffix(kind.element)}"
    return "f32" if isinstance(kind, ir.FloatType) else "f64" if isinstance(kind, ir.DoubleType) else f"i{kind.width}"
