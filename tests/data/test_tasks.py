"""What data are labelled for: read from how files lie, what a table's second column holds, and the shape of arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convolve import data
from convolve.data.dataset import Dataset, as_task, is_number
from convolve.errors import DataError, FileError

RANDOM = np.random.default_rng(0)


def picture(path: Path, size: tuple[int, int] = (16, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RANDOM.integers(0, 256, (*size, 3), np.uint8)).save(path)


def table(folder: Path, head: str, labels: list[str]) -> str:
    for i in range(len(labels)):
        picture(folder / f"{i}.png")
    text = "".join(f'{i}.png,"{label}"\n' for i, label in enumerate(labels))
    (folder / "t.csv").write_text(f"path,{head}\n{text}" if head else text)
    return str(folder / "t.csv")


@pytest.mark.parametrize(
    ("head", "labels", "task", "classes"),
    [
        ("", ["cat", "dog"], "classify", ("cat", "dog")),
        ("label", ["3", "10"], "classify", ("3", "10")),
        ("", ["cat;dog", "dog", "cat"], "labels", ("cat", "dog")),
        ("labels", ["cat", "", "dog"], "labels", ("cat", "dog")),
        ("", ["1", "2.5"], "regress", ("value",)),
        ("value", ["1", "2"], "regress", ("value",)),
        ("", ["1;2.5", "2;3"], "regress", ("value1", "value2")),
    ],
)
def test_a_table_says_what_it_is_for(
    tmp_path: Path, head: str, labels: list[str], task: str, classes: tuple[str, ...]
) -> None:
    found = data.load(table(tmp_path, head, labels * 6))
    assert (found.task, found.classes) == (task, classes)
    y, files = found.y_train, [labels[int(name.removesuffix(".png")) % len(labels)] for name in found.train_files]
    for row, label in zip(y, files, strict=True):
        if task == "classify":
            assert found.classes[row] == label
        elif task == "labels":
            assert {c for c, there in zip(classes, row, strict=True) if there} == set(label.split(";")) - {""}
        else:
            assert row.tolist() == [float(part) for part in label.split(";")]


def test_a_table_is_read_as_one_asks(tmp_path: Path) -> None:
    numbers = table(tmp_path, "", ["3", "10"] * 4)
    assert sorted(set(data.load(numbers, task="regress").y_train.ravel().tolist())) == [3.0, 10.0]
    assert data.load(numbers, task="labels").classes == ("3", "10")
    assert data.load(numbers, task="autoencode").task == "autoencode"
    with pytest.raises(DataError, match="needs folders images and masks; a table of labels has no masks"):
        data.load(numbers, task="segment")
    with pytest.raises(FileError, match=r"t\.csv: has 'cat' as a value"):
        data.load(table(tmp_path, "value", ["1", "cat"]))
    with pytest.raises(DataError, match="expected as many in each"):
        data.load(table(tmp_path, "value", ["1", "1;2"]))


@pytest.mark.parametrize("parts", [("",), ("train", "test"), ("train", "val", "test")])
def test_images_and_masks(tmp_path: Path, parts: tuple[str, ...]) -> None:
    """Values become classes in their order, over all parts; sides multiples of 8; palettes are indices."""
    for part in parts:
        for i in range(6):
            picture(tmp_path / part / "images" / f"{i}.jpg", (20, 30))
            mask = np.zeros((20, 30), np.uint8)
            mask[:10] = 255
            mask[:, :15] = (7, 0)[i % 2]
            path = tmp_path / part / "masks" / f"{i}.png"
            path.parent.mkdir(exist_ok=True)
            image = Image.fromarray(mask)
            if i == 3:
                image = image.convert("P")
                image.putpalette([5, 6, 7] * 256)
            image.save(path)
    found = data.load(tmp_path)
    assert (found.task, found.classes, found.input_shape) == ("segment", ("0", "7", "255"), (16, 32, 3))
    assert found.y_train.dtype == np.uint8
    assert found.y_train.shape == (*found.x_train.shape[:-1],)
    odd = [int(Path(name).stem) % 2 for name in found.train_files]
    for is_odd, mask in zip(odd, found.y_train, strict=True):
        assert (mask[:, :15] == (0 if is_odd else 1)).all()
        assert (mask[:8, 17:] == 2).all()
    assert (found.x_validation is not None) is (len(parts) == 3)
    assert "3 classes of places" in found.describe()
    assert data.load(tmp_path, size=(10, 12)).y_train.shape[1:] == (10, 12)


def test_masks_that_are_none(tmp_path: Path) -> None:
    for i in range(4):
        picture(tmp_path / "images" / f"{i}.png")
        picture(tmp_path / "masks" / f"{i}.png")
    with pytest.raises(FileError, match="a mask of mode RGB; expected class numbers"):
        data.load(tmp_path)
    for i in range(4):
        Image.fromarray(RANDOM.integers(0, 256, (16, 16), np.uint8)).save(tmp_path / "masks" / f"{i}.png")
    with pytest.raises(DataError, match=r"its masks have \d+ values; expected class numbers, at most 64"):
        data.load(tmp_path)
    (tmp_path / "masks" / "2.png").unlink()
    with pytest.raises(DataError, match="2 is not in both, images and masks"):
        data.load(tmp_path)


def test_volumes_with_masks(tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for i in range(5):
            values = RANDOM.random((8, 8, 8)).astype(np.float32)
            np.save(tmp_path / kind / f"{i}.npy", values if kind == "images" else (values > 0.5).astype(np.uint8))
    found = data.load(tmp_path)
    assert (found.task, found.classes, found.input_shape) == ("segment", ("0", "1"), (8, 8, 8, 1))
    np.save(tmp_path / "masks" / "1.npy", np.zeros((8, 8, 7), np.uint8))
    with pytest.raises(FileError, match=r"1\.npy: holds uint8 of shape \(8, 8, 7\); expected whole numbers"):
        data.load(tmp_path)


def test_a_folder_without_classes_is_for_autoencoding(tmp_path: Path) -> None:
    for i in range(8):
        picture(tmp_path / f"{i}.png")
    found = data.load(tmp_path, task="autoencode")
    assert (found.task, found.classes) == ("autoencode", ("all",))
    assert found.x_test is not None
    assert len(found.x_train) + len(found.x_test) == 8
    with pytest.raises(DataError, match="holds no subfolders"):
        data.load(tmp_path)
    with pytest.raises(DataError, match="to regress needs a CSV"):
        data.load(tmp_path, task="regress")


X = np.zeros((6, 8, 8, 1), np.uint8)


@pytest.mark.parametrize(
    ("y", "task", "classes"),
    [
        ([0, 1, 2, 0, 1, 2], "classify", 3),
        (np.array([0.0, 1, 2, 0, 1, 2]), "classify", 3),
        (np.array([0.5, 1, 2, 0, 1, 2]), "regress", 1),
        (np.ones((6, 3)) * 0.3, "regress", 3),
        (np.array([[1, 0], [1, 1], [0, 0]] * 2), "labels", 2),
        (np.ones((6, 8, 8), np.int64), "segment", 2),
    ],
)
def test_arrays_say_what_they_are_for(tmp_path: Path, y: Any, task: str, classes: int) -> None:
    np.savez(tmp_path / "a.npz", x_train=X, y_train=y)
    found = data.load(tmp_path / "a.npz")
    assert (found.task, len(found.classes)) == (task, classes)
    assert found.split(0.3).y_train.shape[1:] == found.y_train.shape[1:]


def test_one_task_for_another() -> None:
    whole = Dataset("dots", X, [0, 1] * 3, None, None, ("3", "7"))
    assert as_task(whole, "regress").y_train.ravel().tolist() == [3.0, 7.0] * 3
    assert as_task(whole, "labels").y_train.tolist() == [[1, 0], [0, 1]] * 3
    assert as_task(whole, "classify") is whole
    with pytest.raises(DataError, match="is a set for --task classify"):
        as_task(whole, "segment")
    with pytest.raises(DataError, match="is a set for --task classify"):
        as_task(Dataset("dots", X, [0, 1] * 3, None, None, ("a", "b")), "regress")
    assert not is_number("nan")
