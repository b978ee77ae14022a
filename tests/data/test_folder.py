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
    assert repr(data) == "Dataset('pets': 15 training and 5 test images, 10x12x1, 2 classes)"
    assert data.classes == ("cat", "dog")
    assert data.x_test is not None
    assert data.y_test is not None
    assert data.y_test.tolist() == [0, 0, 1, 1, 1]
    assert len(data.test_files) == 5
    assert set(data.train_files) | set(data.test_files) == {f"{c}/{i:03}.png" for c in data.classes for i in range(10)}
    values = np.concatenate([data.x_train, data.x_test])[:, 0, 0, 0]
    assert sorted(values.tolist()) == [*range(10), *range(100, 110)]
    assert (values // 100).tolist() == np.concatenate([data.y_train, data.y_test]).tolist()


def test_the_held_out_part_is_chosen_by_the_seed(tmp_path: Path) -> None:
    root = fill(tmp_path)
    first, again, other = load(root), load(root), load(root, seed=1)
    assert first.x_test is not None
    np.testing.assert_array_equal(first.x_test, again.x_test)
    assert not np.array_equal(first.x_test, other.x_test)
    assert load_folder(root, fraction=0.5).describe().startswith("7 training and 13 test")
    with pytest.raises(DataError, match=r"a fraction of 1\.5"):
        load_folder(root, fraction=1.5)


def test_files_stay_in_their_part_when_others_are_added(tmp_path: Path) -> None:
    root = fill(tmp_path, 20)
    before = load(root)
    for i in range(20, 60):
        grey(i).save(root / "dog" / f"{i:03}.png")
    after = load(root)
    assert set(before.train_files) < set(after.train_files)
    assert set(before.test_files) < set(after.test_files)
    (root / "wolf").mkdir()
    grey(1).save(root / "wolf" / "000.png")
    grey(1).save(root / "wolf" / "001.png")
    third = load(root)
    assert set(after.test_files) <= set(third.test_files)
    assert 2 in third.y_train  # whatever its names are


def test_no_part_is_empty(tmp_path: Path) -> None:
    root = fill(tmp_path, 2)
    for fraction in (1e-9, 1 - 1e-9):
        data = load_folder(root, fraction=fraction)
        assert data.x_test is not None
        assert set(data.y_train) == {0, 1}
        assert len(data.x_test) == (1 if fraction < 0.5 else 2)


def test_broken_files_are_left_out_and_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fill(tmp_path / "pets")
    whole = load(root)
    for name in ("cat/000.png", "dog/003.png"):
        path = root / name
        path.write_bytes(path.read_bytes()[:45])
    (root / "dog" / "extra.jpg").write_bytes(b"no picture")
    grey(0, 40, 50).save(root / "cat" / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    data = load(root)
    names = ["cat/000.png", "cat/large.png", "dog/003.png", "dog/extra.jpg"]
    assert [skipped.file for skipped in data.skipped] == names
    assert "claims more pixels than the limit of 1,000" in data.skipped[1].reason
    assert "truncated or damaged" in data.skipped[2].reason
    lost = {"cat/000.png", "dog/003.png"}
    assert set(data.train_files) | set(data.test_files) == (set(whole.train_files) | set(whole.test_files)) - lost
    assert len(data.x_train) == len(data.y_train) == len(data.train_files)
    with pytest.raises(FileError, match=r"pets.(cat.large.png: claims more|dog.extra.jpg: not an image)"):
        load(root, strict=True)
    (root / "cat" / "large.png").unlink()
    (root / "dog" / "extra.jpg").unlink()
    with pytest.raises(FileError, match=r"truncated or damaged"):
        load(root, strict=True)


def test_train_and_test_folders(tmp_path: Path) -> None:
    fill(tmp_path / "train", 3)
    fill(tmp_path / "test", 2, ("dog",))
    data = load(tmp_path)
    assert data.describe() == "6 training and 2 test images, 10x12x1, 2 classes"
    assert data.y_test is not None
    assert data.y_test.tolist() == [1, 1]
    (tmp_path / "test" / "wolf").mkdir()
    grey(1).save(tmp_path / "test" / "wolf" / "1.png")
    with pytest.raises(DataError, match=r"test: has wolf, not among the classes to train on: cat, dog"):
        load(tmp_path)


@pytest.mark.parametrize("names", [("train", "val"), ("training", "Validation")])
def test_train_and_validation_folders(tmp_path: Path, names: tuple[str, str]) -> None:
    fill(tmp_path / names[0], 3)
    fill(tmp_path / names[1], 2)
    data = load(tmp_path)
    assert data.describe() == "6 training and 4 test images, 10x12x1, 2 classes"
    assert data.x_validation is None


def test_all_three_parts(tmp_path: Path) -> None:
    for part, count in (("train", 4), ("val", 3), ("test", 2)):
        fill(tmp_path / part, count)
    data = load(tmp_path)
    assert data.describe() == "8 training, 6 validation and 4 test images, 10x12x1, 2 classes"
    assert data.y_validation is not None
    assert data.y_validation.tolist() == [0] * 3 + [1] * 3


def table(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_table_of_paths_and_labels(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    files = [f"{c}/{i:03}.png" for c in ("cat", "dog") for i in range(3)]
    labels = ["10", "9", "9", "10", "9", "10"]
    data = load(table(tmp_path / "labels.csv", "path,label", *map(",".join, zip(files, labels, strict=True))))
    assert data.classes == ("9", "10")
    found = {name: data.classes[label] for name, label in zip(data.train_files, data.y_train, strict=True)}
    assert found.items() <= dict(zip(files, labels, strict=True)).items()
    assert sorted([*data.train_files, *data.test_files]) == files
    parts = ("train", "train", "val", "test", "train", "test")
    data = load(table(tmp_path / "parts.csv", *map(",".join, zip(files, "abbabb", parts, strict=True))))
    assert data.describe() == "3 training, 1 validation and 2 test images, 10x12x1, 2 classes"
    with pytest.raises(FileError, match=r"bad\.csv, line 3: expected path,label .*Received: cat/001\.png$"):
        load(table(tmp_path / "bad.csv", "cat/000.png,a", "", "cat/001.png"))
    with pytest.raises(DataError, match="x to test on, but not among the classes"):
        load(table(tmp_path / "other.csv", "cat/000.png,a,train", "cat/001.png,x,test"))
    with pytest.raises(DataError, match=r"names [abc]\.txt; expected files of one kind"):
        load(table(tmp_path / "kinds.csv", "a.txt,a", "b.txt,b", "c.txt,b"))
    with pytest.raises(DataError, match="holds no rows"):
        load(table(tmp_path / "none.csv", "path,label"))


def test_volumes_in_class_folders(tmp_path: Path) -> None:
    for name in ("lung", "liver"):
        (tmp_path / name).mkdir()
        for i in range(6):
            np.save(tmp_path / name / f"{i}.npy", np.full((4, 5, 6), i + 0.5, ">f8" if i else "i2"))
    np.save(tmp_path / "lung" / "odd.npy", np.zeros((4, 5, 5)))
    (tmp_path / "lung" / "code.npy").write_bytes(b"")
    np.save(tmp_path / "liver" / "nan.npy", np.full((4, 5, 6), np.nan))
    data = load(tmp_path)
    assert data.input_shape == (4, 5, 6, 1)
    assert data.x_train.dtype == np.float32
    assert sorted(s.file for s in data.skipped) == ["liver/nan.npy", "lung/code.npy", "lung/odd.npy"]
    assert data.x_test is not None
    values = np.concatenate([data.x_train, data.x_test])[:, 0, 0, 0, 0]
    assert sorted(values.tolist()) == sorted([0, 1.5, 2.5, 3.5, 4.5, 5.5] * 2)


def test_the_most_frequent_kind_counts(tmp_path: Path) -> None:
    fill(tmp_path, 4)
    np.save(tmp_path / "cat" / "1.npy", np.zeros((3, 3, 3)))
    assert load(tmp_path).describe().endswith("images, 10x12x1, 2 classes")


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
    with pytest.raises(DataError, match=r"empty: holds no files to learn from \(\.bmp, "):
        load(tmp_path)
    grey(1).save(tmp_path / "empty" / "1.png")
    with pytest.raises(DataError, match=f"{tmp_path.name}: received at most one file a class"):
        load(tmp_path)
    for name in "12":
        (tmp_path / "empty" / f"{name}.png").write_bytes(b"")
    with pytest.raises(FileError, match=r"none of its files can be read\. .*not an image"):
        load(tmp_path)
