"""A folder of files with one subfolder a class, or a table of files, or of their contents, and their classes."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from convolve.data.dataset import Dataset, Skipped, Task, as_task
from convolve.data.files import Labelled, Listing, list_folder, list_table, listed, most_frequent, read_csv
from convolve.data.kinds import SUFFIXES, Form, Kind, MaskForm, Size, for_masks, kind_of
from convolve.data.loader import Loader, Numbered, attempted
from convolve.data.nifti import suffix_of
from convolve.data.parquet import read_parquet, tables_of
from convolve.errors import DataError, FileError
from convolve.source import Rows, in_order, subset

Part: TypeAlias = tuple[Rows, Any, tuple[str, ...]]
MOST_MASKED = 64
"""Values of masks that are taken for classes."""
CHUNK = 256
"""Masks whose values are looked at together."""


def load_folder(
    path: str | os.PathLike[str],
    size: Size = None,
    fraction: float = 0.2,
    seed: int = 0,
    strict: bool = False,
    rate: int | None = None,
    memory: int | None = None,
    task: Task | None = None,
) -> Dataset:
    """The files of a folder, one subfolder a class: images, WAV files, or arrays in .npy files.

    What is to be learnt of them follows from how they lie, unless `task` says it: with folders `images` and `masks` (in
    `train` and `test`, or without these), a class for each place (segment); of a table, see `convolve.data.files`. A
    mask has its image's name, but for what follows the dot, and a class number for each pixel: grey values, or those of
    a palette. The values that there are become the classes 0, 1, ... in their order, and their names. Masks are resized
    with their images, each pixel to its nearest. Images with masks get sides that 8 divides.

    The kind is that of most files; others, and all whose names begin with a dot, are passed over. Classes are numbered
    in the order of their names. If there are subfolders `train` and `test` (or `val`), they are the parts, and nothing
    else is read; of all three, `val` is what is watched while training. Otherwise the files are divided by a hash of
    their names: none changes sides when others are added.

    * Images are brought to one size by `read_image`, as uint8 (n, height, width, channels). They stay grey, of one
      channel, if all are; otherwise all become RGB.
    * WAV files become float32 (n, length, channels) of -1 to 1, at the most frequent rate (see `read_wave`).
    A Parquet table, or a folder of them as the hub has it, is read as a table of files: see `convolve.data.parquet`.

    * Arrays of .npy files are volumes (d, h, w) or (d, h, w, channels), images (h, w) or signals (n,). All must have
      one shape; uint8 stays, other numbers become float32.

    Files that are broken, too large or of another shape are left out and listed in the set's `skipped`.

    They are decoded by threads; resized copies are kept on disk (see `convolve.data.copies`), so that the next run
    begins at once. A set that would take more than `memory` is not read now: its arrays are `Loader`s, which read when
    they are asked, and training asks ahead.

    Args:
        path: the folder, a CSV of path,label or path,label,part, or a Parquet table.
        size: of images (height, width), or one number for both; by default the median height and the median width of
            the training images, both made smaller by one factor if the longer is more than 64. Of sounds the number of
            samples; by default what 19 of 20 training files have at most.
        fraction: how much is held out to test on, about.
        seed: another one holds out other files.
        strict: stop at the first broken file.
        rate: samples a second that sounds are brought to; by default the most frequent.
        memory: bytes that all samples may take; by default a quarter of the computer's.
        task: one of `convolve.data.dataset.TASKS`.

    Raises:
        FileError: with `strict`, a broken file; without, a set of which no file can be read. The message names it.
        DataError: no classes, a class without files, a test class that is not trained on.
    """
    root = Path(path)
    if tables_of(root):
        listing = list_table(root, read_parquet(root, task), fraction, seed, task)
        kind = _kind_of_table(root, listing)
    elif root.is_dir():
        suffix = most_frequent(root, SUFFIXES)
        kind = kind_of(suffix or SUFFIXES[0])
        listing = list_folder(root, kind.suffixes, fraction, seed, task)
    else:
        listing = list_table(root, read_csv(root), fraction, seed, task)
        kind = _kind_of_table(root, listing)
    made = _loaded(root, listing, kind, size, rate, strict, _memory() if memory is None else memory)
    return as_task(made, task)


def _kind_of_table(path: Path, listing: Listing) -> Kind:
    files = (*listing.train, *listing.validation, *listing.test)
    kinds = {suffix_of(file.path): file for file in files}
    unknown = [file.name for suffix, file in kinds.items() if suffix not in SUFFIXES]
    found = {kind_of(suffix) for suffix in kinds if suffix in SUFFIXES}
    if unknown or len(found) > 1:
        raise DataError(
            f"{path}: names {listed(unknown or sorted(kinds))}; expected files of one kind, images, WAV or .npy."
        )
    return found.pop()


def _loaded(
    root: Path, listing: Listing, kind: Kind, size: Size, rate: int | None, strict: bool, memory: int
) -> Dataset:
    parts = [listing.train, listing.validation, listing.test]
    headers = attempted(kind.probe, [file.path for part in parts for file in part], strict)
    skipped: list[Skipped] = []
    whole, known = [], []
    for part in parts:
        found, headers = headers[: len(part)], headers[len(part) :]
        skipped += _skipped(part, found)
        whole.append([file for file, header in zip(part, found, strict=True) if not isinstance(header, FileError)])
        known.append([header for header in found if not isinstance(header, FileError)])
    if not known[0]:
        raise FileError(f"{root}: none of its files can be read. {skipped[0].reason}")
    form = kind.form(known[0], [*known[1], *known[2]], size, rate)
    if listing.task == "segment":
        form = for_masks(form, size is not None)
    each = math.prod(form.shape) * np.dtype(form.dtype).itemsize
    fits = each * sum(map(len, whole)) <= memory
    made = [_part(Loader(files, form, strict), fits, skipped) for files in whole]
    classes = listing.classes
    if listing.task == "segment":
        classes, made = _with_masks(root, made, form, fits)
    (x, y, names), validation, test = made
    if not len(x):
        raise FileError(f"{root}: none of its files can be read. {skipped[0].reason}")
    return Dataset(
        listing.name,
        x,
        y,
        test[0] if len(test[0]) else None,
        test[1] if len(test[0]) else None,
        classes,
        validation[0] if len(validation[0]) else None,
        validation[1] if len(validation[0]) else None,
        names,
        test[2],
        tuple(sorted(skipped, key=lambda lost: lost.file)),
        getattr(form, "rate", None),
        listing.task,
    )


def _with_masks(root: Path, parts: Sequence[Part], form: Form, fits: bool) -> tuple[tuple[str, ...], list[Part]]:
    """The classes that masks have, and the parts with the masks in place of their paths; read when asked for, too.

    Raises:
        FileError: a mask that cannot be read, or is of another size than its image.
        DataError: more values than a mask has classes.
    """
    loaders = [
        Loader([Labelled(*file) for file in zip(y, range(len(y)), names, strict=True)], MaskForm(form), strict=True)
        for _, y, names in parts
    ]
    masks: list[Rows] = [loader.everything()[0] if fits else loader for loader in loaders]
    values = np.unique(np.concatenate([np.unique(some) for part in masks for some in in_order(part, CHUNK)]))
    if len(values) > MOST_MASKED:
        raise DataError(
            f"{root}: its masks have {len(values):,} values; expected class numbers, at most "
            f"{MOST_MASKED}. Masks saved as JPEG, or smoothed, hold values that are no classes: save them as PNG."
        )
    numbered = [Numbered(part, values, np.arange(len(values))) for part in masks]
    held = [part.batch(np.arange(len(part))).astype(np.uint8) if fits else part for part in numbered]
    made = [(x, y, names) for (x, _, names), y in zip(parts, held, strict=True)]
    return tuple(map(str, values.tolist())), made


def _part(loader: Loader, fits: bool, skipped: list[Skipped]) -> Part:
    """Samples, what is to be learnt, and files of a part: read now if they fit into memory, else when asked for.

    Samples with masks are looked at now in any case: of a broken one no other's mask could stand in.
    """
    masked = any(not isinstance(file.label, (int, tuple)) for file in loader.files)
    x: Rows = loader
    broken: dict[int, FileError] = {}
    if fits:
        x, broken = loader.everything()
    elif masked:
        broken = loader.check()
    skipped += [Skipped(loader.files[row].name, str(error)) for row, error in sorted(broken.items())]
    rows = [row for row in range(len(loader)) if row not in broken]
    x = subset(x, rows) if broken else x
    files = [loader.files[row] for row in rows]
    found = [file.label for file in files]
    labels = np.fromiter(found, object, len(found)) if masked else np.array(found)
    return x, labels, tuple(file.name for file in files)


def _memory() -> int:
    """The bytes that samples of files may take in memory: a quarter of what the computer has."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    except (AttributeError, ValueError, OSError):
        return 2 * 2**30


def _skipped(files: Sequence[Labelled], found: Sequence[object]) -> list[Skipped]:
    return [
        Skipped(file.name, str(error)) for file, error in zip(files, found, strict=True) if isinstance(error, FileError)
    ]
