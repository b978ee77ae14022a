"""WAV and FLAC files of any rate, width and length to float32 signals of one."""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convolve.errors import FileError

SUFFIXES = (".wav", ".wave", ".flac")
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_ZEROS = 16
"""Zero crossings of the resampling filter on each side."""
_MOST_SECONDS = 3600


@dataclass(frozen=True)
class Wave:
    """What a header says: samples a second, samples of each channel, channels."""

    rate: int
    length: int
    channels: int


def probe_wave(path: Path) -> Wave:
    """A file's header.

    Raises:
        FileError: no WAV or FLAC file, a damaged one, one of more than an hour, or of a coding other than whole numbers
            and floats.
    """
    return _read(path)[0]


def read_wave(path: str | os.PathLike[str], rate: int, length: int, channels: int = 1) -> NDArray[np.float32]:
    """A WAV or FLAC file as float32 (length, channels) of -1 to 1, at `rate` samples a second.

    It is resampled (see `resample`), cut at its end or padded with zeros. Of several channels one is made by their
    mean; one is repeated where more are asked for.

    Raises:
        FileError: as `probe_wave`.
    """
    place: Any = Path(path) if isinstance(path, str) else path
    return _brought_to(*_read(place), rate, length, channels)


def decode_wave(content: bytes, length: int, channels: int, name: str, rate: int | None = None) -> NDArray[np.float32]:
    """As `read_wave`, of a file's contents, at its own rate unless another is given; `name` is what errors call it."""
    header, data = _parsed(content, Path(name))
    return _brought_to(header, data, rate or header.rate, length, channels)


def _brought_to(header: Wave, data: NDArray[np.float32], rate: int, length: int, channels: int) -> NDArray[np.float32]:
    signal = data if header.channels == channels else data.mean(1, keepdims=True, dtype=np.float32)
    signal = resample(signal, header.rate, rate)[:length]
    made = np.zeros((length, channels), np.float32)
    made[: len(signal)] = signal
    return made


def resample(signal: NDArray[np.float32], rate: int, to: int) -> NDArray[np.float32]:
    """A signal (n, channels) at another rate, by a windowed sinc of 16 zero crossings a side.

    The filter passes what is below half of the lower rate (Smith, "Digital Audio Resampling", 2002): nothing of a tone
    that the new rate cannot hold comes back as another.

    >>> resample(np.ones((80, 1), np.float32), 8000, 4000).shape
    (40, 1)
    """
    if rate == to:
        return signal
    common = math.gcd(rate, to)
    up, down = to // common, rate // common
    count = -(-len(signal) * up // down)
    cut = min(1.0, to / rate)
    reach = math.ceil(_ZEROS / cut)
    padded = np.pad(signal, ((reach, reach + 1), (0, 0)))
    places = np.arange(count) * down
    whole, phase = places // up, places % up
    taps = np.arange(-reach, reach + 1)
    made = np.empty((count, signal.shape[1]), np.float32)
    for chosen in np.unique(phase):
        distance = (taps - chosen / up) * cut
        window = np.where(np.abs(distance) < _ZEROS, np.cos(distance * (math.pi / 2 / _ZEROS)) ** 2, 0)
        kernel = np.sinc(distance) * window
        kernel = (kernel / kernel.sum()).astype(np.float32)
        at = np.flatnonzero(phase == chosen)
        for part in np.array_split(at, -(-len(at) // 4096)):
            windows = padded[whole[part][:, None] + np.arange(len(taps))]
            made[part] = np.einsum("ntc,t->nc", windows, kernel)
    return made


def _read(path: Path) -> tuple[Wave, NDArray[np.float32]]:
    """The header, and the samples (n, channels) as -1 to 1."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror or error}). Check the name.") from error
    return _parsed(data, path)


def _parsed(data: bytes, path: Path) -> tuple[Wave, NDArray[np.float32]]:
    """The same of a file's contents."""
    if data[:4] == b"fLaC":
        return _read_flac(data, path)
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise FileError(f"{path}: not a WAV file: starts with {data[:4].hex(' ') or '(nothing)'}; expected RIFF.")
    chunks = _chunks(data)
    head = chunks.get(b"fmt ", b"")
    if len(head) < 16 or b"data" not in chunks:
        raise FileError(f"{path}: the WAV file is truncated or damaged: it lacks its format or its data.")
    coding, channels, rate, _, _, bits = struct.unpack("<HHIIHH", head[:16])
    if coding == _EXTENSIBLE and len(head) >= 26:
        coding = struct.unpack("<H", head[24:26])[0]
    known = (coding == _PCM and bits in (8, 16, 24, 32)) or (coding == _FLOAT and bits in (32, 64))
    if not known or not 1 <= channels <= 64 or not 1 <= rate <= 10**6:
        raise FileError(
            f"{path}: holds {channels} channels of {bits} bits in coding {coding} at {rate:,} Hz; expected whole "
            "numbers of 8, 16, 24 or 32 bits, or floats of 32 or 64. Save it as such."
        )
    raw = chunks[b"data"]
    samples = len(raw) // (channels * bits // 8)
    _check_length(path, samples, rate)
    values = _values(raw[: samples * channels * bits // 8], coding, bits).reshape(samples, channels)
    if not np.isfinite(values).all():
        raise FileError(f"{path}: holds samples that are not finite numbers. Save it anew.")
    return Wave(rate, samples, channels), values


def _read_flac(data: bytes, path: Path) -> tuple[Wave, NDArray[np.float32]]:
    """The same of a FLAC file's contents, by libsndfile."""
    try:
        import soundfile
    except ImportError:
        raise FileError(f"{path}: FLAC files need soundfile: pip install 'convolve[flac]'") from None
    try:
        with soundfile.SoundFile(BytesIO(data)) as file:
            _check_length(path, file.frames, file.samplerate)
            values = file.read(dtype="float32", always_2d=True)
            return Wave(file.samplerate, len(values), file.channels), values
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise FileError(f"{path}: the FLAC file is truncated or damaged ({error}). Get or save it anew.") from error


def _check_length(path: Path, samples: int, rate: int) -> None:
    if not 0 < samples <= rate * _MOST_SECONDS:
        raise FileError(f"{path}: holds {samples:,} samples; expected at least one, and at most an hour of them.")


def _chunks(data: bytes) -> dict[bytes, bytes]:
    """The first chunk of each name; the last may be shorter than it claims, as streamed recordings have it."""
    found: dict[bytes, bytes] = {}
    place = 12
    while place + 8 <= len(data):
        size = int.from_bytes(data[place + 4 : place + 8], "little")
        found.setdefault(data[place : place + 4], data[place + 8 : place + 8 + size])
        place += 8 + size + size % 2
    return found


def _values(raw: bytes, coding: int, bits: int) -> NDArray[np.float32]:
    if coding == _FLOAT:
        floats: NDArray[np.float32] = np.frombuffer(raw, f"<f{bits // 8}").astype(np.float32)
        return floats
    if bits == 8:  # the one width that has no sign
        return (np.frombuffer(raw, np.uint8).astype(np.float32) - np.float32(128)) / np.float32(128)
    if bits == 24:
        wide = np.zeros((len(raw) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        return wide.view("<i4")[:, 0].astype(np.float32) / np.float32(2**31)
    whole: NDArray[np.float32] = np.frombuffer(raw, f"<i{bits // 8}").astype(np.float32)
    return whole / np.float32(2 ** (bits - 1))
