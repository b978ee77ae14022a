"""What processes keep for each other on disk: object code, and what was found out on the way to it.

An entry is the SHA-256 of its name and its content followed by the content. It is written to a temporary file and
renamed, and dropped and made again where it is damaged, or was written under another name. The folder holds code that
will run, so it must belong to the user and be closed to everybody else.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import warnings
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path


class KernelCacheWarning(UserWarning):
    """Kernels cannot be kept on disk; they are compiled anew in each process."""


def directory() -> Path:
    """Where entries are kept: `$CONVOLVE_CACHE`, or `kernels` in the user's cache folder."""
    chosen = os.environ.get("CONVOLVE_CACHE")
    if chosen:
        return Path(chosen)
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("convolve", appauthor=False)) / "kernels"


KINDS: dict[str, int | None] = {"kernel": None, "fact": None, "net": 256, "program": 256}
"""Entries by the end of their names, and how many are kept at most: those that were used last.

Object code; a line of text; what is known of a file's net; its programs.
"""


def entries(kind: str = "kernel") -> list[Path]:
    """The entries of a kind."""
    folder = directory()
    return sorted(folder.glob(f"*.{kind}")) if folder.is_dir() else []


def clear() -> int:
    """Delete all entries; returns how many kernels there were."""
    number = len(entries())
    for kind in KINDS:
        for path in entries(kind):
            path.unlink(missing_ok=True)
    return number


def read(name: str) -> bytes | None:
    """The content of an entry; None where there is none, or a damaged or foreign one, which is dropped."""
    folder = _checked(directory())
    if folder is None:
        return None
    path = folder / name
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, content = content[:32], content[32:]
    if _digest(name, content) != digest:
        path.unlink(missing_ok=True)
        return None
    if KINDS[path.suffix[1:]] is not None:
        with contextlib.suppress(OSError):
            os.utime(path)
    return content


def write(name: str, content: bytes) -> None:
    """Keep an entry, whole or not at all; a warning where that fails."""
    folder = _checked(directory())
    if folder is None:
        return
    temporary = folder / f".{os.urandom(8).hex()}"
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(_digest(name, content) + content)
        temporary.replace(folder / name)
        _trim((folder / name).suffix[1:])
    except OSError as error:
        temporary.unlink(missing_ok=True)
        warnings.warn(
            f"kernel cache {folder} cannot be written: {error}. Free some space or set CONVOLVE_CACHE.",
            KernelCacheWarning,
            stacklevel=2,
        )


def _digest(name: str, content: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + content).digest()


def _trim(kind: str) -> None:
    """Delete the entries of a kind that have not been used for longest, where there are too many."""
    most = KINDS[kind]
    if most is None:
        return
    used = {}
    for path in entries(kind):
        with contextlib.suppress(FileNotFoundError):  # another process may trim as well
            used[path] = path.stat().st_mtime_ns
    for path in sorted(used, key=lambda path: used[path])[:-most]:
        path.unlink(missing_ok=True)


def recall(question: str, answer: Callable[[], str]) -> str:
    """A line of text that takes long to find out: the one of an earlier process that asked the same."""
    name = f"{hashlib.sha256(question.encode()).hexdigest()[:40]}.fact"
    known = read(name)
    if known is None:
        known = answer().encode()
        write(name, known)
    return known.decode()


def stamps(paths: Iterable[Path]) -> str:
    """By what a change of files is noticed, as Python notices that of a module: their sizes and times."""
    found = ((path, path.stat()) for path in sorted(paths))
    return "|".join(f"{path}:{status.st_size}:{status.st_mtime_ns}" for path, status in found)


@cache
def _checked(folder: Path) -> Path | None:
    """The folder, made if need be, if code in it can be trusted and kept."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.stat()
        if hasattr(os, "getuid"):
            if status.st_uid != os.getuid():
                raise PermissionError("it belongs to another user")
            if stat.S_IMODE(status.st_mode) & 0o077:
                folder.chmod(0o700)
    except OSError as error:
        warnings.warn(
            f"kernel cache {folder} is not used: {error}. Kernels are compiled anew in each process; "
            "set CONVOLVE_CACHE to a folder of your own.",
            KernelCacheWarning,
            stacklevel=2,
        )
        return None
    return folder
