"""A folder that one process has for itself: a lock of the operating system, which goes when the process goes."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

from convolve.errors import FileError

LOCK = ".lock"
TAKEN = {errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK}


def lock(folder: Path) -> IO[bytes]:
    """Take a folder: its lock file, open and locked, until it is closed or the process ends, however it ends.

    Where a file system has no locks, the folder is not guarded.

    Raises:
        FileError: another process has it, or the lock file cannot be made.
    """
    path = folder / LOCK
    try:
        file = path.open("ab")
    except OSError as error:
        raise FileError(f"{path}: cannot be made ({error.strerror}); choose another --out") from None
    try:
        _lock(file)
    except OSError as error:
        if error.errno in TAKEN:
            file.close()
            raise FileError(
                f"{folder}: another run is filling this folder; wait until it has ended, or choose another --out"
            ) from None
    return file


def unlock(file: IO[bytes], remove: bool) -> None:
    """Give the folder back, and with `remove` leave no lock file in it."""
    if remove and os.name == "posix":  # while it is still ours
        with suppress(OSError):
            Path(file.name).unlink()
    file.close()
    if remove and os.name != "posix":  # where an open file stays
        with suppress(OSError):
            Path(file.name).unlink()


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[bytes]) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
