"""A folder of image files with one subfolder a class."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convolve.data.dataset import Dataset, held_out
from convolve.data.images import SUFFIXES, probe, read_image
from convolve.errors import DataError

# The longest side an image is given when nobody says which: what a CPU trains on in minutes.
_LONGEST = 64

_LAYOUT = "expected one subfolder a class with image files in it, or train and test folders with such subfolders"


def load_folder(
    path: str | os.PathLike[str],
    size: int | tuple[int, int] | None = None,
    fraction: float = 0.2,
    seed: int = 0,
) -> Dataset:
    """The image files of a folder, one subfolder a class, as uint8 (n, height, width, channels).

    All are brought to one size by `read_image`. Images stay grey, of one channel, if all are; otherwise all become
    RGB. Classes are numbered in the order of their names. If there are subfolders `train` and `test`, they are
    the two parts (and nothing else is read); otherwise `held_out` takes a fraction of every class to test on. Files
    and folders whose names begin with a dot, and files without an image's suffix, are left alone.

    Args:
        path: the folder.
        size: (height, width), or one number for both. By default the median height and the median width of the
            training images, both made smaller by one factor if the longer is more than 64.
        fraction: how much of every class is held out to test on.
        seed: chooses which images are.

    Raises:
        FileError: a file that is no image or a damaged one; the message names it.
        DataError: no classes, a class without images, a test class that is not trained on.
    """
    root = Path(path)
    train_root, test_root = root / "train", root / "test"
    if train_root.is_dir() and test_root.is_dir():
        classes, train = _scan(train_root)
        test_classes, test = _scan(test_root)
        unknown = [name for name in test_classes if name not in classes]
        if unknown:
            raise DataError(
                f"{test_root}: has {_list(unknown)}, not among the classes of {train_root}: {_list(classes)}. "
                "Expected the same classes."
            )
    else:
        classes, files = _scan(root)
        kept, held = held_out([classes.index(f.parent.name) for f in files], fraction, seed, name=str(root))
        train, test = [files[i] for i in kept], [files[i] for i in held]

    headers = [probe(file) for file in train]
    grey = all(is_grey for *_, is_grey in headers) and all(probe(file)[2] for file in test)
    height, width = _common_size([(h, w) for h, w, _ in headers]) if size is None else _pair(size)
    shape = (height, width, 1 if grey else 3)
    return Dataset(
        root.resolve().name,
        _read_all(train, shape),
        np.array([classes.index(file.parent.name) for file in train]),
        _read_all(test, shape),
        np.array([classes.index(file.parent.name) for file in test]),
        tuple(classes),
    )


def _scan(root: Path) -> tuple[list[str], list[Path]]:
    """Class names and image files, both in the order of their names, so that it is the same on every file system."""
    folders = sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))
    if not folders:
        raise DataError(f"{root}: holds no subfolders; {_LAYOUT}.")
    files = []
    for folder in folders:
        images = sorted(
            f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith(".") and f.is_file()
        )
        if not images:
            raise DataError(f"{folder}: holds no image files ({', '.join(SUFFIXES)}); {_LAYOUT}.")
        files += images
    return [folder.name for folder in folders], files


def _common_size(sizes: list[tuple[int, int]]) -> tuple[int, int]:
    height, width = (sorted(side)[(len(side) - 1) // 2] for side in zip(*sizes, strict=True))
    factor = min(1.0, _LONGEST / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise DataError(f"size: received {size}; expected a height and a width of at least 1.")
    return height, width


def _read_all(files: list[Path], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    images = np.empty((len(files), *shape), np.uint8)
    for image, file in zip(images, files, strict=True):
        image[:] = read_image(file, shape)
    return images


def _list(names: list[str]) -> str:
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
