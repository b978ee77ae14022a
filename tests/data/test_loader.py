"""Samples read when they are asked for, and the copies of them that are kept."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convolve.data.copies import Copies
from convolve.data.dataset import Dataset
from convolve.data.files import Labelled
from convolve.data.folder import load_folder
from convolve.data.kinds import ImageForm
from convolve.data.loader import Loader
from convolve.errors import FileError
from convolve.source import Source, fingerprint, joined, subset

FORM = ImageForm((24, 32, 3))


@pytest.fixture(autouse=True)
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CONVOLVE_COPIES", str(tmp_path / "copies"))
    return tmp_path / "copies"


def photos(root: Path, count: int = 6, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    """Noise, which no coding makes small."""
    random = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(random.integers(0, 256, (96, 128, 3), np.uint8)).save(root / name / f"{i}.jpg", quality=95)
    return root


def files(root: Path) -> list[Labelled]:
    return [Labelled(p, int(p.parent.name == "dog"), f"{p.parent.name}/{p.name}") for p in sorted(root.rglob("*.jpg"))]


def test_a_set_that_memory_does_not_hold_has_the_same_samples(tmp_path: Path) -> None:
    root = photos(tmp_path / "pets")
    whole, late = load_folder(root, 32), load_folder(root, 32, memory=1000)
    assert isinstance(late.x_train, Loader)
    assert isinstance(late.x_train, Source)
    assert late.describe() == whole.describe()
    assert late.train_files == whole.train_files
    order = np.random.default_rng(1).permutation(len(late.x_train))
    np.testing.assert_array_equal(late.x_train.batch(order), np.asarray(whole.x_train)[order])
    assert late.x_test is not None
    both = joined(late.x_train, late.x_test)
    assert both.shape == (12, 32, 32, 3)
    assert not isinstance(both, np.ndarray)
    assert whole.x_test is not None
    np.testing.assert_array_equal(
        both.batch(np.array([11, 0, 3])),
        np.concatenate([whole.x_train, whole.x_test])[[11, 0, 3]],  # type: ignore[list-item]
    )


def test_a_source_can_be_divided(tmp_path: Path) -> None:
    loader = Loader(files(photos(tmp_path / "pets")), FORM)
    data = Dataset("pets", loader, [0] * 6 + [1] * 6, None, None, ("cat", "dog")).split(0.25)
    assert data.describe() == "8 training and 4 test images, 24x32x3, 2 classes"
    assert data.x_test is not None
    assert not isinstance(data.x_test, np.ndarray)
    held = data.x_test.batch(np.arange(4))
    everything, broken = loader.everything()
    assert not broken
    assert all(any(np.array_equal(one, other) for other in everything) for one in held)
    first = fingerprint(subset(loader, [0, 1]))
    assert first == fingerprint(subset(Loader(files(tmp_path / "pets"), FORM), [0, 1]))
    assert first != fingerprint(subset(loader, [1, 0]))


def test_a_file_that_breaks_is_stood_in_for_by_the_next_of_its_class(tmp_path: Path) -> None:
    root = photos(tmp_path / "pets", 3)
    listed = files(root)
    wanted, _ = Loader(listed, FORM).everything()
    for name in ("cat/2.jpg", "dog/0.jpg"):
        (root / name).write_bytes((root / name).read_bytes()[:3000])
    loader = Loader(listed, FORM)
    for _ in range(2):
        np.testing.assert_array_equal(loader.batch(np.arange(6)), wanted[[0, 1, 0, 4, 4, 5]])
    assert sorted(loader.broken) == [2, 3]
    with pytest.raises(FileError, match=r"2\.jpg: the image is truncated"):
        Loader(listed, FORM, strict=True).batch(np.arange(6))
    with pytest.raises(FileError, match=r"2\.jpg"):
        Loader(listed[2:3], FORM).batch(np.array([0]))


def test_copies_are_read_in_place_of_files(tmp_path: Path, copies: Path) -> None:
    listed = files(photos(tmp_path / "pets", 2))
    wanted = Loader(listed, FORM).batch(np.arange(4))
    kept = sorted(copies.iterdir())
    assert len(kept) == 4
    assert {path.stat().st_size for path in kept} == {24 * 32 * 3 + 4}
    np.testing.assert_array_equal(Loader(listed, FORM).batch(np.arange(4)), wanted)
    for path in kept:
        path.write_bytes(path.read_bytes()[:-4] + b"sums")
    kept[0].write_bytes(b"half")
    np.testing.assert_array_equal(Loader(listed, FORM).batch(np.arange(4)), wanted)
    assert {path.stat().st_size for path in copies.iterdir()} == {24 * 32 * 3 + 4}
    assert Loader(listed, ImageForm((8, 8, 1))).batch(np.arange(4)).shape == (4, 8, 8, 1)
    assert len(list(copies.iterdir())) == 8


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    listed = files(photos(tmp_path / "pets", 2))
    before = Loader(listed, FORM).batch(np.arange(4))
    listed[0].path.write_bytes(listed[1].path.read_bytes())
    after = Loader(listed, FORM).batch(np.arange(4))
    np.testing.assert_array_equal(after, before[[1, 1, 2, 3]])


def test_copies_are_bounded(tmp_path: Path, copies: Path) -> None:
    listed = files(photos(tmp_path / "pets", 6))
    each = 24 * 32 * 3 + 4

    def total() -> int:
        return sum(path.stat().st_size for path in copies.iterdir())

    limited = Copies(limit=5 * each)
    wanted = Loader(listed, FORM, copies=limited).batch(np.arange(12))
    assert total() == 5 * each
    np.testing.assert_array_equal(Loader(listed, FORM, copies=limited).batch(np.arange(12)), wanted)
    assert total() == 5 * each
    for path in copies.iterdir():  # of a run long ago
        os.utime(path, (1, 1))
    other = Copies(limit=5 * each)
    Loader(listed, ImageForm((24, 32, 1)), copies=other).batch(np.arange(12))
    assert total() <= 5 * each
    assert sum(path.stat().st_size < each for path in copies.iterdir()) >= 2


def test_a_folder_that_cannot_be_written_keeps_nothing(tmp_path: Path) -> None:
    listed = files(photos(tmp_path / "pets", 1))
    blocked = tmp_path / "a file"
    blocked.write_text("")
    assert Loader(listed, FORM, copies=Copies(blocked / "copies")).batch(np.arange(2)).shape == (2, 24, 32, 3)


def _read(root: str, copies: str) -> int:
    loader = Loader(files(Path(root)), FORM, copies=Copies(Path(copies)))
    return int(sum(loader.batch(np.arange(12)).astype(np.int64).sum() for _ in range(3)))


def test_processes_share_copies(tmp_path: Path, copies: Path) -> None:
    root = photos(tmp_path / "pets", 6)
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        sums = pool.starmap(_read, [(str(root), str(copies))] * 4)
    assert set(sums) == {_read(str(root), str(tmp_path / "others"))}
    assert len([path for path in copies.iterdir() if not path.name.startswith(".")]) == 12
