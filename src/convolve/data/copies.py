"""Samples as they came out of files, resized, kept on disk: what is read again in each epoch is decoded once.

A copy is the sample's bytes and a checksum, in a file of its own, named by a digest of what it was made of: the file's
path, size and time, and the form. It is written under another name and renamed, so that any number of processes may
share the folder; one that is damaged or half written is not believed, and made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convolve.data.kinds import Form

LIMIT = 4 * 2**30
"""Bytes that all copies may take, unless $CONVOLVE_COPIES_LIMIT says otherwise; at most half of what is free."""
LEAST = 8 * 2**10
"""Bytes of a file from which on it is quicker to read a copy than the file."""
_LOOKED = 256
"""Copies after which it is looked again how much all processes have written."""


def folder() -> Path:
    """Where copies are kept: `$CONVOLVE_COPIES`, or `copies` in the user's cache folder."""
    chosen = os.environ.get("CONVOLVE_COPIES")
    if chosen:
        return Path(chosen)
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("convolve", appauthor=False)) / "copies"


class Copies:
    """A bounded store. Where it is full, copies that were not used since it was opened go, the oldest first.

    Copies in use never go: a set larger than the store keeps a part of itself there, instead of chasing itself through.
    Where the folder cannot be written, nothing is kept.
    """

    def __init__(self, root: Path | None = None, limit: int | None = None) -> None:
        self.root = folder() if root is None else root
        self._limit = limit if limit is not None else int(os.environ.get("CONVOLVE_COPIES_LIMIT") or LIMIT)
        self._opened = time.time()
        self._lock = threading.Lock()
        self._room = 0
        self._until_looked = 0
        self._used: set[str] = set()

    def read(self, path: Path, form: Form) -> NDArray[Any]:
        """A file's sample, from its copy where there is one.

        Raises:
            FileError: as `form.read`.
        """
        try:
            status = path.stat()
        except OSError:
            return form.read(path)  # which says what is wrong
        if status.st_size < LEAST:
            return form.read(path)
        made_of = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}|{form!r}"
        place = self.root / hashlib.sha256(made_of.encode("utf-8", "surrogateescape")).hexdigest()[:40]
        kept = self._get(place, form)
        if kept is None:
            kept = form.read(path)
            self._put(place, kept)
        return kept

    def _get(self, place: Path, form: Form) -> NDArray[Any] | None:
        try:
            data = place.read_bytes()
        except OSError:
            return None
        array = np.frombuffer(data, np.uint8)[:-4]
        size = int(np.prod(form.shape)) * np.dtype(form.dtype).itemsize
        if len(array) != size or zlib.crc32(array.data).to_bytes(4, "little") != data[-4:]:
            return None
        if place.name not in self._used:
            self._used.add(place.name)
            with contextlib.suppress(OSError):  # another process may just have let it go
                os.utime(place)
        return array.view(form.dtype).reshape(form.shape)

    def _put(self, place: Path, sample: NDArray[Any]) -> None:
        if not self._reserve(sample.nbytes + 4):
            return
        data = np.ascontiguousarray(sample).reshape(-1).view(np.uint8).data
        name = ""
        try:
            handle, name = tempfile.mkstemp(dir=self.root, prefix=".")
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.write(zlib.crc32(data).to_bytes(4, "little"))
            Path(name).replace(place)
            self._used.add(place.name)
        except OSError:  # a full disk, a folder that was taken away: the sample is read anew next time
            if name:
                Path(name).unlink(missing_ok=True)
            self._room = 0

    def _reserve(self, size: int) -> bool:
        """Whether so many bytes may be written."""
        with self._lock:
            if self._until_looked == 0:
                self._until_looked = _LOOKED
                self._room = self._look()
            self._until_looked -= 1
            if size > self._room:
                return False
            self._room -= size
            return True

    def _look(self) -> int:
        """Bytes that may still be written, after old copies went where there are too many."""
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            with os.scandir(self.root) as found:
                entries = [(entry.stat(), entry.path) for entry in found if entry.is_file()]
            free = shutil.disk_usage(self.root).free
        except OSError:
            return 0
        total = sum(status.st_size for status, _ in entries)
        limit = min(self._limit, total + free // 2)
        for status, path in sorted(entries, key=lambda entry: entry[0].st_mtime):
            if total <= limit * 3 // 4 or status.st_mtime >= self._opened:
                break
            Path(path).unlink(missing_ok=True)
            total -= status.st_size
        return max(0, limit - total)
