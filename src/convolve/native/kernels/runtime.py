"""What the threads themselves run: the walk over a program's table, the barrier between phases, the wait for work.

Shared words (see `Word`) and a table of calls, four 64-bit slots each: kernel, arguments,
pieces, and whether the phase ends here. Every call has a counter from which threads claim pieces, every other thread
from the last one on: so each meets much the same part of an image in every call, in the cache that holds it. A
barrier's last arrival lets all go on. Waiting spins briefly and then sleeps in the operating system's kernel, so that
a busy neighbour costs its share and no more.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import llvmlite.ir as ir

from convolve.native.builder import I32, I64, POINTER, Expr, Kernel
from convolve.native.job import LINE, Word
from convolve.native.waiting import emit_wait, emit_wake

BARRIER_SPINS = 2000
IDLE_SPINS = 20000
HALF = 32
"""Bits of a counter for the pieces that are claimed from one end."""
MOST_THREADS = 1023
"""Bits of the job's word that hold the job's number of threads."""


class Runtime:
    """Atomics and waiting in a kernel."""

    def __init__(self, k: Kernel) -> None:
        self.k = k

    def run(self) -> None:
        """What `Run` does."""
        k = self.k
        with self.flushed_denormals():
            counters = self.word(Word.COUNTERS)
            base = k.ir.inttoptr(counters.value, POINTER)
            with k.range(self.word(Word.COUNT)) as call:
                k.ir.store(I64(0), k.ir.gep(base, [(call * LINE).value], source_etype=I64))
            threads = self.word(Word.THREADS)
            with k.when(threads > 1):
                self.publish(threads)
            self.walk(k.lift(0), threads)

    def serve(self) -> None:
        """What `Serve` does."""
        k = self.k
        with self.flushed_denormals():
            seen = k.variable(k.narrow(k.seen))
            with self.forever() as leave:
                self.wait_while(Word.JOB, seen.get(), Word.JOB_SLEEPERS, IDLE_SPINS)
                seen.set(self.state(Word.JOB))
                leave(self.word(Word.QUIT).differs(0))
                # The job's own word says how many take part: whoever is late must not go by the next job's.
                threads = Expr(k, k.ir.zext((seen.get() & MOST_THREADS).value, I64))
                with k.when(k.piece < threads):
                    self.walk(k.piece, threads)

    def address(self, word: Word) -> Any:
        return (self.k.shared + int(word)).value

    def word(self, word: Word) -> Expr:
        return Expr(self.k, self.k.ir.load(self.address(word), typ=I64))

    def state(self, word: Word) -> Expr:
        """A 32-bit word that other threads change."""
        return Expr(self.k, self.k.ir.load_atomic(self.address(word), "seq_cst", 4, typ=I32))

    def add(self, word: Word, amount: int) -> Expr:
        return Expr(self.k, self.k.ir.atomic_rmw("add", self.address(word), I32(amount), "seq_cst"))

    def advance(self, word: Word, sleepers: Word) -> None:
        """Change a word and wake those who sleep until it does."""
        self.add(word, 1)
        with self.k.when(self.state(sleepers).differs(0)):
            emit_wake(self.k.module, self.k.ir, self.address(word))

    def wait_while(self, word: Word, seen: Expr, sleepers: Word, spins: int) -> None:
        """Return when the word is no longer `seen`: spin first, then sleep."""
        k, b = self.k, self.k.ir
        function = b.function
        spin, turn, sleep, nap, awake, done = (
            function.append_basic_block(n) for n in ("spin", "turn", "sleep", "nap", "awake", "done")
        )
        count = k.variable(0)
        b.branch(spin)
        b.position_at_end(spin)
        b.cbranch(self.state(word).differs(seen).value, done, turn)
        b.position_at_end(turn)
        self._pause()
        count.set(count.get() + 1)
        b.cbranch((count.get() < spins).value, spin, sleep)
        b.position_at_end(sleep)
        self.add(sleepers, 1)
        b.branch(nap)
        b.position_at_end(nap)
        emit_wait(k.module, b, self.address(word), seen.value)
        b.cbranch(self.state(word).differs(seen).value, awake, nap)
        b.position_at_end(awake)
        self.add(sleepers, -1)
        b.branch(done)
        b.position_at_end(done)

    def publish(self, threads: Expr) -> None:
        """Let the job's word be the next job's number and its threads, and wake the workers."""
        k = self.k
        number = (self.state(Word.JOB) & ~MOST_THREADS) + (MOST_THREADS + 1)
        value = number | k.narrow(threads)
        k.ir.atomic_rmw("xchg", self.address(Word.JOB), value.value, "seq_cst")
        with k.when(self.state(Word.JOB_SLEEPERS).differs(0)):
            emit_wake(k.module, k.ir, self.address(Word.JOB))

    def walk(self, thread: Expr, threads: Expr) -> None:
        """All calls in order: claim pieces until none is left, and meet at the end of each phase.

        A counter holds how many were claimed from the front, and in its upper half how many from the back.
        """
        k, b = self.k, self.k.ir
        calls = b.inttoptr(self.word(Word.CALLS).value, POINTER)
        counters = b.inttoptr(self.word(Word.COUNTERS).value, POINTER)
        scratch = b.inttoptr((self.word(Word.SCRATCH) + thread * self.word(Word.SCRATCH_SIZE)).value, POINTER)
        kind = ir.FunctionType(ir.VoidType(), [POINTER, I64, POINTER]).as_pointer()
        from_front = (thread & 1).equals(0)
        step = k.select(from_front, k.lift(1), k.lift(1 << HALF))
        with k.range(self.word(Word.COUNT)) as call:
            row = b.gep(calls, [(call * 4).value], source_etype=I64)

            def slot(index: int, row: Any = row) -> Expr:
                return Expr(k, b.load(b.gep(row, [I64(index)], source_etype=I64), typ=I64))

            kernel = b.inttoptr(slot(0).value, kind)
            arguments = b.inttoptr(slot(1).value, POINTER)
            pieces = slot(2)
            counter = b.gep(counters, [(call * LINE).value], source_etype=I64)
            with self.forever() as leave:
                claimed = Expr(k, b.atomic_rmw("add", counter, step.value, "monotonic"))
                front, back = claimed & ((1 << HALF) - 1), claimed >> HALF
                leave(front + back >= pieces)
                piece = k.select(from_front, front, pieces - 1 - back)
                b.call(kernel, [arguments, piece.value, scratch])
            with k.when((slot(3) & k.select(threads > 1, k.lift(1), k.lift(0))).differs(0)):
                self.barrier(threads)

    def barrier(self, threads: Expr) -> None:
        k = self.k
        seen = self.state(Word.BARRIER)
        arrived = self.add(Word.ARRIVED, 1) + 1
        last = Expr(k, k.ir.zext(arrived.value, I64)).equals(threads)
        with k.either(last) as (everybody, wait):
            with everybody:
                k.ir.atomic_rmw("xchg", self.address(Word.ARRIVED), I32(0), "seq_cst")
                self.advance(Word.BARRIER, Word.BARRIER_SLEEPERS)
            with wait:
                self.wait_while(Word.BARRIER, seen, Word.BARRIER_SLEEPERS, BARRIER_SPINS)

    @contextmanager
    def forever(self) -> Iterator[Any]:
        """while True: with `leave(condition)` as the way out."""
        b = self.k.ir
        body, done = b.function.append_basic_block("forever"), b.function.append_basic_block("left")
        b.branch(body)
        b.position_at_end(body)

        def leave(condition: Expr) -> None:
            stay = b.function.append_basic_block("stay")
            b.cbranch(condition.value, done, stay)
            b.position_at_end(stay)

        yield leave
        b.branch(body)
        b.position_at_end(done)

    @contextmanager
    def flushed_denormals(self) -> Iterator[None]:
        """Denormals are zero inside; the thread's own mode is restored."""
        k, b = self.k, self.k.ir
        if platform.machine() in ("x86_64", "AMD64"):
            slot = b.alloca(I32)
            pointer = Expr(k, slot)
            k.intrinsic("llvm.x86.sse.stmxcsr", None, [pointer])
            before = b.load(slot, typ=I32)
            b.store(b.or_(before, I32(0x8040)), slot)
            k.intrinsic("llvm.x86.sse.ldmxcsr", None, [pointer])
            yield
            b.store(before, slot)
            k.intrinsic("llvm.x86.sse.ldmxcsr", None, [pointer])
        else:
            mode = k.intrinsic("llvm.aarch64.get.fpcr", I64, [])
            k.intrinsic("llvm.aarch64.set.fpcr", None, [mode | (1 << 24)])
            yield
            k.intrinsic("llvm.aarch64.set.fpcr", None, [mode])

    def _pause(self) -> None:
        word = "pause" if platform.machine() in ("x86_64", "AMD64") else "yield"
        self.k.ir.asm(ir.FunctionType(ir.VoidType(), []), word, "", [], True)
