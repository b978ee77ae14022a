"""Sounds in WAV files: their codings, their rates, and folders of them."""

from __future__ import annotations

import struct
import wave
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from convolve.data import load, read_wave
from convolve.data.waves import probe_wave, resample
from convolve.errors import FileError


def tone(frequency: float, rate: int, length: int) -> NDArray[np.float64]:
    return np.sin(2 * np.pi * frequency * np.arange(length) / rate)


def saved(path: Path, values: NDArray[np.float64], rate: int, width: int = 2) -> Path:
    """Values of -1 to 1, (n,) or (n, channels), by the standard library."""
    whole = np.round(values * (2 ** (8 * width - 1) - 1)).astype(np.int64)
    data = {
        1: lambda: (whole + 128).astype(np.uint8).tobytes(),
        2: lambda: whole.astype("<i2").tobytes(),
        3: lambda: whole.astype("<i4").reshape(-1, 1).view(np.uint8)[:, :3].tobytes(),
        4: lambda: whole.astype("<i4").tobytes(),
    }[width]()
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(values.shape[1] if values.ndim > 1 else 1)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(data)
    return path


def chunked(coding: int, bits: int, data: bytes, channels: int = 1, rate: int = 8000) -> bytes:
    size = channels * bits // 8
    head = struct.pack("<HHIIHH", coding, channels, rate, rate * size, size, bits)
    body = b"WAVEfmt " + struct.pack("<I", 16) + head + b"LIST\x03\0\0\0abc\0" + b"data" + struct.pack("<I", len(data))
    return b"RIFF" + struct.pack("<I", len(body) + len(data)) + body + data


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_every_width_of_whole_numbers(tmp_path: Path, width: int) -> None:
    values = tone(440, 8000, 100) * 0.9
    read = read_wave(saved(tmp_path / "a.wav", values, 8000, width), 8000, 100)
    assert read.shape == (100, 1)
    assert read.dtype == np.float32
    np.testing.assert_allclose(read[:, 0], values, atol=max(2.0 ** (1 - 8 * width) * 1.5, 1e-6))


def test_floats_and_other_chunks(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(chunked(3, 32, np.array([0.5, -1.25, 0.25], "<f4").tobytes()))
    assert read_wave(path, 8000, 3)[:, 0].tolist() == [0.5, -1.25, 0.25]


def test_channels_length_and_padding(tmp_path: Path) -> None:
    both = np.stack([np.full(10, 0.5), np.full(10, -0.25)], -1)
    path = saved(tmp_path / "a.wav", both, 8000)
    assert probe_wave(path).channels == 2
    np.testing.assert_allclose(read_wave(path, 8000, 4, 2), both[:4], atol=1e-4)
    one = read_wave(path, 8000, 12)
    np.testing.assert_allclose(one[:10, 0], 0.125, atol=1e-4)
    assert not one[10:].any()


@pytest.mark.parametrize(("rate", "to"), [(8000, 16000), (44100, 16000), (48000, 8000), (11025, 8000)])
def test_a_tone_stays_a_tone_at_another_rate(rate: int, to: int) -> None:
    made = resample(tone(600, rate, rate // 4)[:, None].astype(np.float32), rate, to)
    assert made.shape == (-(-(rate // 4) * to // rate), 1)
    wanted = tone(600, to, len(made))
    np.testing.assert_allclose(made[200:-200, 0], wanted[200:-200], atol=2e-3)


def test_what_a_lower_rate_cannot_hold_is_gone() -> None:
    made = resample(tone(6000, 16000, 4000)[:, None].astype(np.float32), 16000, 8000)
    assert np.abs(made[100:-100]).max() < 1e-3


def test_a_folder_of_sounds(tmp_path: Path) -> None:
    for name, pitch in (("low", 200.0), ("high", 900.0)):
        for i in range(12):
            rate = 16000 if i == 3 else 8000
            saved(tmp_path / name / f"{i:02}.wav", tone(pitch, rate, 400 + 10 * i), rate)
    whole = (tmp_path / "low" / "00.wav").read_bytes()
    (tmp_path / "low" / "broken.wav").write_bytes(whole[:30])
    data = load(tmp_path)
    assert [skipped.file for skipped in data.skipped] == ["low/broken.wav"]
    assert data.describe().endswith(f"signals, {data.input_shape[0]}x1, 2 classes")
    assert data.x_train.dtype == np.float32
    assert 500 <= data.input_shape[0] <= 510
    assert len(data.train_files) + len(data.test_files) == 24
    for sound, label in zip(data.x_train, data.y_train, strict=True):
        loudest = np.abs(np.fft.rfft(sound[:, 0])).argmax() * 8000 / len(sound)
        assert abs(loudest - {"low": 200, "high": 900}[data.classes[label]]) < 20
    assert load(tmp_path, size=100).input_shape == (100, 1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", r"not a WAV file: starts with \(nothing\)"),
        (b"OggS" + bytes(40), "not a WAV file"),
        (b"RIFF\0\0\0\0WAVE", "lacks its format or its data"),
        (chunked(7, 8, b"abc"), "8 bits in coding 7"),
        (chunked(1, 16, b"", 0), "holds 0 channels"),
        (chunked(1, 16, b"a"), "holds 0 samples"),
        (chunked(1, 8, bytes(3601), rate=1), "holds 3,601 samples"),
        (chunked(3, 32, np.array([np.nan], "<f4").tobytes()), "not finite"),
    ],
)
def test_what_is_no_sound_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(FileError, match=rf"a\.wav: .*{words}"):
        probe_wave(path)


def test_spoken_digits_as_files(tmp_path: Path, shared_data: Path) -> None:
    archive = shared_data / "fsdd" / "fsdd_8k.npz"
    if not archive.is_file():
        pytest.skip("no spoken digits beside this checkout")
    with np.load(archive) as arrays:
        x, y = arrays["x_train"][:60], arrays["y_train"][:60]
    for i, (sound, label) in enumerate(zip(x, y, strict=True)):
        saved(tmp_path / str(label) / f"{i}.wav", sound / 32767, 8000)
    data = load(tmp_path)
    assert data.input_shape == (8000, 1)
    for name, read in zip(data.train_files, data.x_train, strict=True):
        np.testing.assert_array_equal(np.round(read[:, 0] * 32768), x[int(Path(name).stem)])
