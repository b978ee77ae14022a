"""A folder with one subfolder a class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convolve.data import load
from convolve.data.folder import load_folder
from convolve.errors import DataError, FileError


def grey(value: int, height: int = 10, width: int = 12) -> Image.Image:
    return Image.fromarray(np.full((height, width), value, np.uint8))


def fill(root: Path, count: int = 10, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    """Grey images; class c's image i has the value 100 c + i."""
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(count):
            grey(100 * number + i).save(root / name / f"{i:03}.png")
    return root


def test_a_plain_folder(tmp_path: Path) -> None:
    root = fill(tmp_path / "pets")
    (root / ".cache").mkdir()
    (root / "notes.txt").write_text("not a class")
    (root / "cat" / "Thumbs.db").write_bytes(b"not an image")
    (root / "cat" / "._000.png").write_bytes(b"not an image")
    data = load(root)
    assert repr(data) == "Dataset('pets': 16 training and 4 test images, 10x12x1, 2 classes)"
    assert data.classes == ("cat", "dog")
    assert data.x_test is not None
    assert data.y_test is not None
    assert data.y_test.tolist() == [0, 0, 1, 1]
    values = np.concatenate([data.x_train, data.x_test])[:, 0, 0, 0]
    assert sorted(values.tolist()) == [*range(10), *range(100, 110)]
    assert (values // 100).tolist() == np.concatenate([data.y_train, data.y_test]).tolist()


def test_the_held_out_part_is_chosen_by_the_seed(tmp_path: Path) -> None:
    root = fill(tmp_path)
    first, again, other = load(root), load(root), load(root, seed=1)
    assert first.x_test is not None
    np.testing.assert_array_equal(first.x_test, again.x_test)
    assert not np.array_equal(first.x_test, other.x_test)
    assert load_folder(root, fraction=0.5).describe().startswith("10 training and 10 test")


def test_train_and_test_folders(tmp_path: Path) -> None:
    fill(tmp_path / "train", 3)
    fill(tmp_path / "test", 2, ("dog",))
    data = load(tmp_path)
    assert data.describe() == "6 training and 2 test images, 10x12x1, 2 classes"
    assert data.y_test is not None
    assert data.y_test.tolist() == [1, 1]
    (tmp_path / "test" / "wolf").mkdir()
    grey(1).save(tmp_path / "test" / "wolf" / "1.png")
    with pytest.raises(DataError, match=r"test: has wolf, not among the classes of .*train: cat, dog"):
        load(tmp_path)


def test_one_colour_image_makes_all_rgb(tmp_path: Path) -> None:
    fill(tmp_path, 5)
    assert load(tmp_path).input_shape == (10, 12, 1)
    grey(7).convert("RGB").save(tmp_path / "dog" / "colour.jpg")
    data = load(tmp_path)
    assert data.input_shape == (10, 12, 3)
    assert (data.x_train[..., 0] == data.x_train[..., 2]).all()


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(10, 20), (12, 40), (14, 30)], (12, 30)),
        ([(10, 20), (12, 40)], (10, 20)),
        ([(300, 400)] * 3, (48, 64)),
        ([(1, 640)] * 2, (1, 64)),
    ],
)
def test_the_size_is_the_median_and_at_most_64(
    tmp_path: Path, sizes: list[tuple[int, int]], expected: tuple[int, int]
) -> None:
    fill(tmp_path / "test", 1, ("one",))
    (tmp_path / "train" / "one").mkdir(parents=True)
    for i, (height, width) in enumerate(sizes):
        grey(i, height, width).save(tmp_path / "train" / "one" / f"{i}.png")
    data = load(tmp_path)
    assert data.input_shape == (*expected, 1)
    assert data.x_train[:, 0, 0, 0].tolist() == list(range(len(sizes)))


def test_the_size_can_be_said(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    assert load(tmp_path, size=9).input_shape == (9, 9, 1)
    assert load(tmp_path, size=(7, 5)).input_shape == (7, 5, 1)
    with pytest.raises(DataError, match="size: received 0"):
        load(tmp_path, size=0)


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no subfolders; expected one subfolder a class"):
        load(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: holds no image files \(\.bmp, "):
        load(tmp_path)
    grey(1).save(tmp_path / "empty" / "1.png")
    with pytest.raises(DataError, match=f"{tmp_path.name}: received at most one image a class"):
        load(tmp_path)
    whole = (tmp_path / "empty" / "1.png").read_bytes()
    (tmp_path / "empty" / "2.png").write_bytes(whole[:45])
    with pytest.raises(FileError, match=r"2\.png: the image is truncated or damaged"):
        load(tmp_path)
    (tmp_path / "empty" / "2.png").write_bytes(b"")
    with pytest.raises(FileError, match=r"2\.png: not an image"):
        load(tmp_path)
