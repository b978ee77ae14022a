"""NPZ files, good and bad."""

from __future__ import annotations

import io
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convolve.data import load
from convolve.errors import ConvolveError, DataError, FileError

X = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), np.uint8)
Y = np.array([0, 1, 2, 0, 1, 2])
SET: dict[str, Any] = {"x_train": X, "y_train": Y, "x_test": X[:2], "y_test": Y[:2]}


def saved(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_round_trip(tmp_path: Path, save: Any) -> None:
    save(tmp_path / "set.npz", **SET, speaker=np.array(["a", "b"]))
    data = load(tmp_path / "set.npz")
    assert data.name == "set.npz"
    assert data.describe() == "6 training and 2 test images, 5x4x3, 3 classes"
    np.testing.assert_array_equal(data.x_train, X)
    np.testing.assert_array_equal(data.y_train, Y)
    np.testing.assert_array_equal(data.x_test, X[:2])


@given(
    st.sampled_from(["u1", "i1", "<i2", ">i4", "i8", "u2", "f2", ">f4", "f8", "?"]),
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.booleans(),
)
def test_every_plain_type_and_order(
    tmp_path_factory: pytest.TempPathFactory, dtype: str, shape: list[int], fortran: bool
) -> None:
    x = (np.arange(4 * int(np.prod(shape))).reshape(4, *shape) % 2).astype(dtype)
    path = saved(
        tmp_path_factory.getbasetemp() / "types.npz", x_train=np.asfortranarray(x) if fortran else x, y_train=Y[:4]
    )
    np.testing.assert_array_equal(load(path).x_train.reshape(x.shape), x)


def test_grey_images_signals_and_class_names(tmp_path: Path) -> None:
    assert load(saved(tmp_path / "a.npz", x_train=X[..., 0], y_train=Y)).input_shape == (5, 4, 1)
    assert load(saved(tmp_path / "a.npz", x_train=X[:, 0, :, 0], y_train=Y)).input_shape == (4, 1)
    named = load(saved(tmp_path / "a.npz", **SET, classes=np.array(["cat", "dog", "Käfer"])))
    assert named.classes == ("cat", "dog", "Käfer")
    with pytest.raises(DataError, match=r"a\.npz: y_train: received label 2 at index 2; expected whole numbers 0 to 1"):
        load(saved(tmp_path / "a.npz", **SET, classes=np.array(["cat", "dog"])))


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (
            {"x": X, "y": Y},
            "holds x, y; expected x_train, y_train, x_test, y_test, so x_train and y_train must be added",
        ),
        ({}, "holds nothing"),
        ({"x_train": X}, "y_train must be added"),
        ({"x_train": X, "y_train": Y, "x_test": X}, "y_test must be added"),
        ({**SET, "x_train": np.array([None] * 6)}, r"x_train is of type \|O.*never done"),
        ({**SET, "x_train": np.zeros(6, [("a", "i4")])}, "x_train is of type unknown; expected a plain array"),
        ({**SET, "x_train": np.zeros(6, complex)}, "x_train is of type <c16"),
        ({**SET, "x_train": X[:0]}, r"x_train is empty \(shape \(0, 5, 4, 3\)"),
    ],
)
def test_wrong_content(tmp_path: Path, arrays: dict[str, Any], words: str) -> None:
    with pytest.raises(FileError, match=words):
        load(saved(tmp_path / "set.npz", **arrays))


def with_member(path: Path, head: str, values: bytes, method: int = zipfile.ZIP_STORED) -> Path:
    """A set whose x_train has this header text."""
    text = head.encode()
    member = b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + values
    y = io.BytesIO()
    np.save(y, Y)
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("x_train.npy", member)
        archive.writestr("y_train.npy", y.getvalue())
    return path


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (
            "{'descr': '|u1', 'fortran_order': False, 'shape': (6, 5), }",
            "claims shape .6, 5. of uint8, 30 bytes, but holds 24",
        ),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 99999999999), }", "but holds 24"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (-6, -4), }", "expected a plain array"),
        ("{'descr': '<U99999999', 'fortran_order': False, 'shape': (0, 4), }", "expected a plain array"),
        ("{'descr': __import__('os'), 'fortran_order': False, 'shape': (6, 4), }", "expected a plain array"),
        (f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({'1, ' * 99}24), }}", "no whole"),
    ],
)
def test_a_header_is_not_believed(tmp_path: Path, head: str, words: str) -> None:
    with pytest.raises(FileError, match=words):
        load(with_member(tmp_path / "set.npz", head, bytes(24)))


def test_other_containers(tmp_path: Path) -> None:
    head = "{'descr': '|u1', 'fortran_order': False, 'shape': (6, 4), }"
    assert load(with_member(tmp_path / "good.npz", head, bytes(24))).input_shape == (4, 1)
    with pytest.raises(FileError, match="packed by zip method 12; expected stored or deflated"):
        load(with_member(tmp_path / "bz2.npz", head, bytes(24), zipfile.ZIP_BZIP2))
    (tmp_path / "text.npz").write_text("no zip")
    with pytest.raises(FileError, match=r"text\.npz: is no whole \.npz"):
        load(tmp_path / "text.npz")
    path = saved(tmp_path / "encrypted.npz", **SET)
    raw = path.read_bytes()
    path.write_bytes(
        raw.replace(b"PK\3\4\x2d\0\0\0", b"PK\3\4\x2d\0\1\0").replace(
            b"PK\1\2\x2d\3\x2d\0\0\0", b"PK\1\2\x2d\3\x2d\0\1\0"
        )
    )
    with pytest.raises(FileError, match="encrypted"):
        load(path)


def test_a_size_is_not_believed(tmp_path: Path) -> None:
    path = with_member(tmp_path / "set.npz", "{'descr': '|u1', 'fortran_order': False, 'shape': (6, 4), }", bytes(24))
    raw = bytearray(path.read_bytes())
    entry = raw.index(b"PK\1\2")
    raw[entry + 24 : entry + 28] = b"\xff\xff\xff\x7f"
    path.write_bytes(raw)
    with pytest.raises(FileError, match="x_train claims 2,147,483,647 bytes, but a file of this size holds at most"):
        load(path)


def test_any_damage_is_our_error(tmp_path: Path) -> None:
    draw = random.Random(0)
    path = tmp_path / "set.npz"
    wholes = []
    for save in (np.savez, np.savez_compressed):
        save(path, **SET)
        wholes.append(path.read_bytes())
    refused = 0
    for case in range(200):
        raw = bytearray(wholes[case % 2])
        if draw.random() < 0.3:
            del raw[draw.randrange(len(raw)) :]
        for _ in range(draw.randrange(1, 4)):
            if raw:
                raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
        path.write_bytes(raw)
        try:
            load(path)
        except ConvolveError as error:
            assert "set.npz" in str(error)  # noqa: PT017 - that nothing else is raised is the point
            refused += 1
    assert refused > 120  # the rest hit what is not read, or names and times
