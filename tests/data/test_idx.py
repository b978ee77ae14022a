"""IDX files, good and bad."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from convolve.data import load
from convolve.data.idx import load_idx, read_idx
from convolve.errors import DataError, FileError, ShapeError

Write = Callable[[Path, NDArray[Any]], Path]
AsIdx = Callable[[NDArray[Any]], bytes]


@given(
    st.sampled_from(["u1", "i1", "i2", "i4", "f4", "f8"]),
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.sampled_from(["", ".gz"]),
    st.randoms(use_true_random=False),
)
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory, write_idx: Write, dtype: str, shape: list[int], suffix: str, random: Any
) -> None:
    raw = random.randbytes(int(np.prod(shape)) * np.dtype(dtype).itemsize)
    array = np.frombuffer(raw, dtype).reshape(shape)
    result = read_idx(write_idx(tmp_path_factory.getbasetemp() / f"round{suffix}", array))
    assert result.dtype == array.dtype
    assert result.dtype.isnative
    assert result.shape == array.shape
    assert result.tobytes() == raw


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b: b"", r"starts with the bytes \(none\)"),
        (lambda b: b[:3], "not an IDX file: starts with the bytes 00 00 08"),
        (lambda b: b"\x89PNG" + b[4:], "not an IDX file: starts with the bytes 89 50 4e 47; expected 00 00, a type"),
        (lambda b: b"\0\0\x0a" + b[3:], "not an IDX file"),
        (lambda b: b"\0\0\x08\0" + b[4:], "claims 0 dimensions; expected 1 to 8"),
        (lambda b: b"\0\0\x08\xff" + b[4:], "claims 255 dimensions"),
        (lambda b: b[:9], "ends within its header, after 9 bytes"),
        (lambda b: b[:-1], "its header claims 5x4x3 values of 1 bytes, 60 bytes, but only 59 bytes follow"),
        (lambda b: b + b"x", "60 bytes, but more bytes follow"),
        (lambda b: b[:4] + b"\0\0\0\0" + b[8:], "is empty: its header claims 0x4x3 values"),
        (lambda b: b[:4] + b"\xff" * 12 + b[16:], "claims 4294967295x4294967295x4294967295 .*holds at most"),
    ],
)
def test_damaged(tmp_path: Path, as_idx: AsIdx, packed: bool, change: Callable[[bytes], bytes], words: str) -> None:
    data = change(as_idx(np.arange(60, dtype=np.uint8).reshape(5, 4, 3)))
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(FileError, match=words) as caught:
        read_idx(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_unreadable(tmp_path: Path, as_idx: AsIdx) -> None:
    with pytest.raises(FileError, match=r"cannot be read \(No such file"):
        read_idx(tmp_path / "absent")
    with pytest.raises(FileError, match="cannot be read"):
        read_idx(tmp_path)
    packed = gzip.compress(as_idx(np.zeros((200, 9), np.uint8)))
    path = tmp_path / "images.gz"
    for damaged in (packed[:-9], packed[:12], packed + b"rubbish", packed[:-8] + b"\1\2\3\4" + packed[-4:]):
        path.write_bytes(damaged)
        with pytest.raises(FileError, match=r"images\.gz: .*(cannot be read|truncated or damaged)"):
            read_idx(path)


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(b"\0\0\x08\1\0\0\0\x05" + b"\0" * 30_000_000, 1))
    with pytest.raises(FileError, match="5 bytes, but more bytes follow"):
        read_idx(path)


@given(st.data())
def test_any_damage_is_a_file_error(
    tmp_path_factory: pytest.TempPathFactory, as_idx: AsIdx, data: st.DataObject
) -> None:
    whole = as_idx(np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    whole = gzip.compress(whole) if data.draw(st.booleans()) else whole
    raw = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for bit in data.draw(st.lists(st.integers(0, 8 * 20 - 1), max_size=4)):
        if bit // 8 < len(raw):
            raw[bit // 8] ^= 1 << bit % 8
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(raw)
    try:
        read_idx(path)
    except FileError as error:
        assert str(path) in str(error)  # noqa: PT017 - that nothing else is raised is the point


def test_pairs_and_folders(tmp_path: Path, write_idx: Write) -> None:
    x, y = np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2), np.array([0, 1, 2] * 2, np.uint8)
    images = write_idx(tmp_path / "train-images-idx3-ubyte.gz", x)
    labels = write_idx(tmp_path / "train-labels.idx1-ubyte", y)
    pair = load(f"{images}, {labels}")
    assert pair.describe() == "6 training images, 2x2x1, 3 classes"
    assert pair.classes == ("0", "1", "2")
    np.testing.assert_array_equal(pair.x_train[..., 0], x)
    assert load(tmp_path).x_test is None

    write_idx(tmp_path / "t10k-images-idx3-ubyte", x[:2])
    with pytest.raises(FileError, match="has t10k-images-idx3-ubyte but not t10k-labels-idx1-ubyte"):
        load(tmp_path)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", y[:2] + np.uint8(2))
    whole = load(str(tmp_path))
    assert whole.describe() == "6 training and 2 test images, 2x2x1, 4 classes"
    assert whole.name == tmp_path.name
    images.unlink()
    labels.unlink()
    with pytest.raises(FileError, match="has the test files but not train-images"):
        load(tmp_path)


def test_a_pair_that_does_not_match(tmp_path: Path, write_idx: Write) -> None:
    images = write_idx(tmp_path / "images", np.zeros((6, 2, 2), np.uint8))
    labels = write_idx(tmp_path / "labels", np.zeros(5, np.int32))
    with pytest.raises(DataError, match="images: y_train: received 5 labels for 6 images"):
        load(f"{images},{labels}")
    with pytest.raises(ShapeError, match=r"images: labels: received shape \(6, 2, 2\)"):
        load(f"{images},{images}")
    floats = write_idx(tmp_path / "floats", np.full((5, 2, 2), np.nan, np.float32))
    with pytest.raises(DataError, match=r"floats: x_train: received nan at index \(0, 0, 0, 0\)"):
        load_idx((floats, labels), name="floats")
    write_idx(labels, np.full(6, 2_000_000_000, np.int32))
    with pytest.raises(DataError, match="images: labels: received label 2,000,000,000"):
        load(f"{images},{labels}")
