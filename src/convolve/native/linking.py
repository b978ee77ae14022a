"""Object code put where it runs, without LLVM's library: that takes longer to load than a small net to answer.

What LLVM writes for x86-64 Linux (ELF, the large code model) refers to its own constants and to the C library by 64-bit
distances from a table of addresses: wherever it lies it is the same, but for that table. All else is left to LLVM.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import sys
from functools import cache
from typing import Any

_HEADER = struct.Struct("<16xHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QIIq")
_X86_64 = 62
PROGBITS, SYMTAB, STRTAB, RELA, NOTE, UNWIND = 1, 2, 3, 4, 7, 0x70000001
"""Types of sections; what unwinds the stack is not needed."""
WRITABLE, LOADED = 1, 2
GOT64, GOTOFF64, GOTPC64 = 27, 25, 29
"""Kinds of distances: of a symbol's slot from the table, of a symbol from the table, of the table from here."""
PAGE = mmap.PAGESIZE


class _Unknown(Exception):
    """Something that LLVM knows and we do not."""


def link(code: bytes, symbol: str) -> int | None:
    """The address of a function of this object code, now in memory; None where LLVM must do it."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        return None
    try:
        image, start, table, imports = _laid_out(code, symbol)
        addresses = [ctypes.cast(_library()[name], ctypes.c_void_p).value or 0 for name in imports]
    except (_Unknown, AttributeError):
        return None
    struct.pack_into(f"<{len(addresses)}Q", image, table, *addresses)
    return _placed(bytes(image), start)


def _laid_out(code: bytes, symbol: str) -> tuple[bytearray, int, int, list[str]]:
    """The code as it lies in memory, where the function begins, where the table does, whose addresses go there."""
    _, machine, _, _, _, at, _, _, _, _, _, count, _ = _HEADER.unpack_from(code)
    if code[:4] != b"\x7fELF" or machine != _X86_64:
        raise _Unknown
    sections = [_SECTION.unpack_from(code, at + i * _SECTION.size) for i in range(count)]
    image, places = bytearray(), {}
    for i, (_, kind, flags, _, offset, size, _, _, alignment, _) in enumerate(sections):
        if flags & LOADED and kind != UNWIND:
            if kind != PROGBITS or flags & WRITABLE:
                raise _Unknown
            image += bytes(-len(image) % max(1, alignment))
            places[i] = len(image)
            image += code[offset : offset + size]
    image += bytes(-len(image) % 8)
    table, imports = len(image), dict[str, int]()
    symbols, names = next((s[4:6], sections[s[6]][4]) for s in sections if s[1] == SYMTAB)
    start = -1

    def named(index: int) -> tuple[str, int, int]:
        """A symbol's name, section and value."""
        name, _, _, section, value, _ = _SYMBOL.unpack_from(code, symbols[0] + index * _SYMBOL.size)
        return code[names + name : code.index(b"\0", names + name)].decode(), section, value

    for index in range(symbols[1] // _SYMBOL.size):
        name, section, value = named(index)
        if name == symbol:
            start = places[section] + value
    for _, kind, _, _, offset, size, _, target, _, _ in sections:
        for where in range(offset, offset + size, _RELOCATION.size) if kind == RELA and target in places else ():
            at, kind, index, addend = _RELOCATION.unpack_from(code, where)
            name, section, value = named(index)
            place = places[target] + at
            if kind == GOTPC64:
                distance = table + addend - place
            elif kind == GOTOFF64 and section in places:
                distance = places[section] + value + addend - table
            elif kind == GOT64 and section == 0:
                distance = 8 * imports.setdefault(name, len(imports)) + addend
            else:
                raise _Unknown
            struct.pack_into("<q", image, place, distance)
    if start < 0:
        raise _Unknown
    image += bytes(8 * len(imports))
    return image, start, table, list(imports)


_regions: list[tuple[mmap.mmap, Any]] = []


def _placed(image: bytes, start: int) -> int | None:
    """Code in pages of its own, which from then on can be run and not be written."""
    size = -(-len(image) // PAGE) * PAGE
    region = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    region[: len(image)] = image
    view = ctypes.c_char.from_buffer(region)
    address = ctypes.addressof(view)
    if _library().mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), mmap.PROT_READ | mmap.PROT_EXEC):
        return None
    _regions.append((region, view))
    return address + start


@cache
def _library() -> Any:
    """The C library, and whatever else the process has."""
    return ctypes.CDLL(None)
