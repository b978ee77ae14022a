"""CIFAR's binary files in a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from convolve.data import load
from convolve.errors import FileError


def records(count: int, labels: int, seed: int) -> NDArray[np.uint8]:
    made = np.random.default_rng(seed).integers(0, 256, (count, labels + 3072), np.uint8)
    made[:, :labels] %= 10
    return made


def test_cifar10(tmp_path: Path) -> None:
    parts = [records(3, 1, i) for i in range(6)]
    for i, part in enumerate(parts[:5], 1):
        part.tofile(tmp_path / f"data_batch_{i}.bin")
    with pytest.raises(FileError, match=r"test_batch\.bin: cannot be read"):
        load(tmp_path)
    parts[5].tofile(tmp_path / "test_batch.bin")
    data = load(tmp_path)
    assert data.describe() == "15 training and 3 test images, 32x32x3, 10 classes"
    assert data.y_train.tolist() == [int(label) for part in parts[:5] for label in part[:, 0]]
    assert data.x_train[4, 2, 5, 1] == parts[1][1, 1 + 1024 + 2 * 32 + 5]
    (tmp_path / "batches.meta.txt").write_text("\n".join("abcdefghij"))
    assert load(tmp_path).classes == tuple("abcdefghij")
    (tmp_path / "test_batch.bin").write_bytes(b"short")
    with pytest.raises(FileError, match="file 6 holds 5 bytes; expected records of 3,073"):
        load(tmp_path)


def test_cifar100_has_two_labels_of_which_the_fine_one_counts(tmp_path: Path) -> None:
    train, test = records(4, 2, 0), records(2, 2, 1)
    train.tofile(tmp_path / "train.bin")
    test.tofile(tmp_path / "test.bin")
    data = load(tmp_path)
    assert len(data.classes) == 100
    assert data.y_train.tolist() == train[:, 1].tolist()
    assert data.x_train[3, 0, 1, 0] == train[3, 2 + 1]
