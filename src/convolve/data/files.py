"""Labelled files: what a folder with one subfolder a class holds, or a table of paths and labels lists."""

from __future__ import annotations

import csv
import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from convolve.errors import DataError, FileError

PARTS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}
"""How the folders of each part may be called."""
MOST_LISTED = 10


@dataclass(frozen=True)
class Labelled:
    """A file, the number of its class, and how messages and reports call it."""

    path: Path
    label: int
    name: str


@dataclass(frozen=True)
class Listing:
    """The files of a set, each part in the order of their names, so that it is the same on every file system."""

    name: str
    classes: tuple[str, ...]
    train: tuple[Labelled, ...]
    validation: tuple[Labelled, ...]
    test: tuple[Labelled, ...]


def list_folder(root: Path, suffixes: Sequence[str], fraction: float, seed: int) -> Listing:
    """The files of a folder. Those whose name begins with a dot or ends otherwise than in `suffixes` are passed over.

    Raises:
        DataError: no classes, a class without files, a class of another part that is not trained on.
    """
    folders = _folders(root)
    parts = {part: next((f for f in folders if f.name.lower() in names), None) for part, names in PARTS.items()}
    train = parts["train"]
    if train is None or parts["validation"] is parts["test"] is None:
        classes = tuple(folder.name for folder in folders)
        return _divided(root.resolve().name, classes, _in_classes(root, root, classes, suffixes), fraction, seed)
    classes = tuple(folder.name for folder in _folders(train))
    found = {part: _in_classes(root, f, classes, suffixes) if f else () for part, f in parts.items()}
    if not found["test"]:  # train and val, as many sets are published: what is named for the end comes last
        found |= {"test": found["validation"], "validation": ()}
    return Listing(root.resolve().name, classes, **found)


def list_table(path: Path, fraction: float, seed: int) -> Listing:
    """The files that a CSV names: rows of path,label or path,label,part, with or without a line of headings.

    Paths count from the table's folder. A part is train, validation or test; without that column, or where it names no
    file to test on, a fraction is held out.

    Raises:
        FileError: the table cannot be read; the message has the line.
        DataError: no rows, or a class of another part that is not trained on.
    """
    rows = _rows(path)
    classes = tuple(sorted({label for _, label, part in rows if part in (None, "train")}, key=_natural))
    unknown = sorted({label for _, label, _ in rows} - set(classes), key=_natural)
    if unknown:
        raise DataError(f"{path}: {listed(unknown)} to test on, but not among the classes to train on.")
    number = {name: i for i, name in enumerate(classes)}
    files = [(Labelled(path.parent / name, number[label], name), part) for name, label, part in rows]
    found = {wanted: tuple(f for f, part in files if (part or "train") == wanted) for wanted in PARTS}
    if found["test"]:
        return Listing(path.stem, classes, **found)
    if found["validation"]:
        return Listing(path.stem, classes, found["train"], (), found["validation"])
    return _divided(path.stem, classes, found["train"], fraction, seed)


def share_of(name: str, seed: int = 0) -> float:
    """Where a file of this name falls between 0 and 1: the same on every machine, whatever other files there are.

    >>> share_of("cat/0001.png") == share_of("cat/0001.png") != share_of("cat/0001.png", seed=1)
    True
    """
    return (
        int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogateescape")).digest()[:8], "big") / 2**64
    )


def _divided(name: str, classes: tuple[str, ...], files: tuple[Labelled, ...], fraction: float, seed: int) -> Listing:
    """Hold out the files whose share lies below `fraction`.

    Of a class that would be held out whole, the last file is trained on; if nothing would be held out, the first is.
    """
    if not 0 < fraction < 1:
        raise DataError(f"{name}: received a fraction of {fraction} to hold out; expected one between 0 and 1.")
    shares = {file: share_of(file.name, seed) for file in files}
    last = {file.label: file for file in sorted(files, key=shares.__getitem__)}
    held = {file for file in files if shares[file] < fraction} - set(last.values())
    spare = [file for file in files if file is not last[file.label]]
    if not spare:
        raise DataError(
            f"{name}: received at most one file a class; expected two or more, to train on one and to test on another."
        )
    held = held or {min(spare, key=shares.__getitem__)}
    return Listing(name, classes, tuple(f for f in files if f not in held), (), tuple(f for f in files if f in held))


def _folders(root: Path) -> list[Path]:
    return sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))


def _in_classes(root: Path, part: Path, classes: tuple[str, ...], suffixes: Sequence[str]) -> tuple[Labelled, ...]:
    layout = "expected one subfolder a class with files in it, or train and test folders with such subfolders"
    folders = _folders(part)
    if not folders:
        raise DataError(f"{part}: holds no subfolders; {layout}.")
    unknown = [folder.name for folder in folders if folder.name not in classes]
    if unknown:
        raise DataError(
            f"{part}: has {listed(unknown)}, not among the classes to train on: {listed(classes)}. "
            "Expected the same classes."
        )
    found = []
    for folder in folders:
        files = sorted(f for f in folder.iterdir() if wanted(f, suffixes) and f.is_file())
        if not files:
            raise DataError(f"{folder}: holds no files to learn from ({', '.join(suffixes)}); {layout}.")
        label = classes.index(folder.name)
        found += [Labelled(f, label, f.relative_to(root).as_posix()) for f in files]
    return tuple(found)


def wanted(path: Path, suffixes: Sequence[str]) -> bool:
    """Whether a name is neither hidden nor of another kind."""
    return path.suffix.lower() in suffixes and not path.name.startswith(".")


def most_frequent(root: Path, suffixes: Sequence[str]) -> str | None:
    """The most frequent of these suffixes among a folder's files down to the third level; None where there are none."""
    counts: Counter[str] = Counter()
    for folder, inner, names in os.walk(root):
        inner[:] = sorted(n for n in inner if not n.startswith("."))
        if len(Path(folder).relative_to(root).parts) >= 2:
            inner.clear()
        counts.update(Path(n).suffix.lower() for n in names if wanted(Path(n), suffixes))
    return min(counts, key=lambda s: (-counts[s], s)) if counts else None


def listed(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_LISTED]) + (", ..." if len(names) > MOST_LISTED else "")


def _rows(path: Path) -> list[tuple[str, str, str | None]]:
    """Path, label and part of each line."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            lines = [(reader.line_num, row) for reader in [csv.reader(stream)] for row in reader if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileError(
            f"{path}: cannot be read as a table ({error}). Expected lines of path,label in UTF-8."
        ) from error
    if lines and [cell.strip().lower() for cell in lines[0][1][:2]] in (["path", "label"], ["file", "label"]):
        lines = lines[1:]
    if not lines:
        raise DataError(f"{path}: holds no rows; expected lines of path,label.")
    named = {name: part for part, names in PARTS.items() for name in names}
    found: list[tuple[str, str, str | None]] = []
    for line, row in lines:
        name, label, *part = (*(cell.strip() for cell in row), "")[: max(2, len(row))]
        if len(row) > 3 or not name or not label or (part and part[0].lower() not in named):
            raise FileError(
                f"{path}, line {line}: expected path,label or path,label,part with a part of {', '.join(PARTS)}. "
                f"Received: {','.join(row)}"
            )
        found.append((name, label, named[part[0].lower()] if part else None))
    return found


def _natural(label: str) -> tuple[int, int, str]:
    """Numbers by their size, before words."""
    return (0, int(label), label) if label.isdecimal() else (1, 0, label)
