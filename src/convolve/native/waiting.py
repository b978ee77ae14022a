"""Sleeping in the kernel until a word of memory changes: one small function an operating system.

`wait(word, seen)` returns soon after `*word` is no longer `seen` (it may return early); `wake(word)` wakes all that
wait.
"""

from __future__ import annotations

import platform
import sys

import llvmlite.ir as ir

from convolve.native.builder import I32, I64, POINTER

VOID = ir.VoidType()


def declare(
    module: ir.Module, name: str, result: ir.Type, arguments: list[ir.Type], variadic: bool = False
) -> ir.Function:
    """An external function, declared once a module."""
    known = module.globals.get(name)
    return known or ir.Function(module, ir.FunctionType(result, arguments, var_arg=variadic), name)


def emit_wait(module: ir.Module, b: ir.IRBuilder, word: ir.Value, seen: ir.Value) -> None:
    """Sleep while the 32-bit `*word` equals `seen`."""
    if sys.platform == "linux":
        syscall = declare(module, "syscall", I64, [I64], variadic=True)
        b.call(syscall, [I64(_futex()), word, I32(_FUTEX_WAIT), seen, POINTER(None), POINTER(None), I32(0)])
    elif sys.platform == "darwin":
        wait = declare(module, "__ulock_wait", I32, [I32, POINTER, I64, I32])
        b.call(wait, [I32(_UL_COMPARE_AND_WAIT), word, b.zext(seen, I64), I32(0)])
    else:
        slot = b.alloca(I32)
        b.store(seen, slot)
        wait = declare(module, "WaitOnAddress", I32, [POINTER, POINTER, I64, I32])
        b.call(wait, [word, slot, I64(4), I32(0xFFFFFFFF)])


def emit_wake(module: ir.Module, b: ir.IRBuilder, word: ir.Value) -> None:
    """Wake every thread that sleeps on `word`."""
    if sys.platform == "linux":
        syscall = declare(module, "syscall", I64, [I64], variadic=True)
        b.call(syscall, [I64(_futex()), word, I32(_FUTEX_WAKE), I32(0x7FFFFFFF), POINTER(None), POINTER(None), I32(0)])
    elif sys.platform == "darwin":
        wake = declare(module, "__ulock_wake", I32, [I32, POINTER, I64])
        b.call(wake, [I32(_UL_COMPARE_AND_WAIT | _ULF_WAKE_ALL), word, I64(0)])
    else:
        b.call(declare(module, "WakeByAddressAll", VOID, [POINTER]), [word])


_FUTEX_WAIT, _FUTEX_WAKE = 0 | 128, 1 | 128  # private to the process
_UL_COMPARE_AND_WAIT, _ULF_WAKE_ALL = 1, 0x100


def _futex() -> int:
    """Linux's system call number."""
    return {"x86_64": 202, "aarch64": 98, "armv7l": 240, "i686": 240, "riscv64": 98}[platform.machine()]
