"""Labelled files: what a folder with one subfolder a class holds, or a table of paths and labels lists."""

from __future__ import annotations

import csv
import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from convolve.data.dataset import Task, is_number
from convolve.data.nifti import suffix_of
from convolve.errors import DataError, FileError

PARTS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}
"""How the folders of each part may be called."""
HEADS = ("label", "labels", "class", "value", "values")
"""How the second column of a table may be headed."""
MOST_LISTED = 10


Place: TypeAlias = Any
"""Where a file lies: a path, or what reads as one (`convolve.data.parquet.Cell`)."""


@dataclass(frozen=True)
class Labelled:
    """A file, the number of its class (or what else is to be learnt of it), and how messages and reports call it."""

    path: Place
    label: Any
    name: str


@dataclass(frozen=True)
class Row:
    """A row of a table: a file, how it is called, what is to be learnt of it, and the part that it is in, if any."""

    place: Place
    name: str
    label: Any
    """A word, several words at once, or the place of a mask."""
    part: str | None


@dataclass(frozen=True)
class Table:
    """Rows, how the column of labels is headed (if it is), and the classes where the table names them."""

    rows: Sequence[Row]
    head: str
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listing:
    """The files of a set, each part in the order of their names, so that it is the same on every file system."""

    name: str
    classes: tuple[str, ...]
    train: tuple[Labelled, ...]
    validation: tuple[Labelled, ...]
    test: tuple[Labelled, ...]
    task: Task = "classify"


def list_folder(root: Path, suffixes: Sequence[str], fraction: float, seed: int, task: Task | None = None) -> Listing:
    """The files of a folder. Those whose name begins with a dot or ends otherwise than in `suffixes` are passed over.

    With folders `images` and `masks` each file's label is its mask's path, and the task to segment. To autoencode, no
    classes are needed.

    Raises:
        DataError: no classes, a class without files, a class of another part that is not trained on.
    """
    folders = _folders(root)
    parts = {part: next((f for f in folders if f.name.lower() in names), None) for part, names in PARTS.items()}
    train = parts["train"]
    if task in (None, "segment") and _pair_of(train or root):
        return _list_pairs(root, parts, suffixes, fraction, seed)
    if task in ("segment", "labels", "regress"):
        wanted = "folders images and masks" if task == "segment" else "a CSV of path,label"
        raise DataError(f"{root}: to {task} needs {wanted}; this folder has classes at most.")
    if task == "autoencode" and not _folders(train or root):
        return _list_flat(root, parts, suffixes, fraction, seed)
    if train is None or parts["validation"] is parts["test"] is None:
        classes = tuple(folder.name for folder in folders)
        return _divided(root.resolve().name, classes, _in_classes(root, root, classes, suffixes), fraction, seed)
    classes = tuple(folder.name for folder in _folders(train))
    found = {part: _in_classes(root, f, classes, suffixes) if f else () for part, f in parts.items()}
    if not found["test"]:  # train and val, as many sets are published: what is named for the end comes last
        found |= {"test": found["validation"], "validation": ()}
    return Listing(root.resolve().name, classes, found["train"], found["validation"], found["test"])


def _pair_of(folder: Path) -> tuple[Path, Path] | None:
    """The folders of images and of their masks."""
    named = {inner.name.lower(): inner for inner in _folders(folder)}
    return (named["images"], named["masks"]) if {"images", "masks"} <= named.keys() else None


def _list_pairs(
    root: Path, parts: dict[str, Path | None], suffixes: Sequence[str], fraction: float, seed: int
) -> Listing:
    """Images with masks of the same names, but for what follows the dot."""
    found = {part: _pairs(root, f, suffixes) if f else () for part, f in parts.items()}
    if not found["train"]:
        return _divided(root.resolve().name, (), _pairs(root, root, suffixes), fraction, seed, "segment")
    return _in_parts(root.resolve().name, (), found, fraction, seed, "segment")


def _pairs(root: Path, part: Path, suffixes: Sequence[str]) -> tuple[Labelled, ...]:
    pair = _pair_of(part)
    if pair is None:
        raise DataError(f"{part}: holds no folders images and masks, as the folder to train on does.")
    images, masks = ({f.stem: f for f in sorted(folder.iterdir()) if wanted(f, suffixes)} for folder in pair)
    lonely = sorted(images.keys() ^ masks.keys())
    if lonely or not images:
        raise DataError(f"{part}: {listed(lonely) or 'nothing'} is not in both, images and masks; expected pairs.")
    return tuple(Labelled(f, masks[stem], f.relative_to(root).as_posix()) for stem, f in images.items())


def _list_flat(
    root: Path, parts: dict[str, Path | None], suffixes: Sequence[str], fraction: float, seed: int
) -> Listing:
    """Files without classes."""

    def files(folder: Path | None) -> tuple[Labelled, ...]:
        inside = sorted(f for f in folder.iterdir() if wanted(f, suffixes) and f.is_file()) if folder else []
        return tuple(Labelled(f, 0, f.relative_to(root).as_posix()) for f in inside)

    found = {part: files(folder) for part, folder in parts.items()}
    if parts["train"] is None:
        found = dict.fromkeys(parts, ()) | {"train": files(root)}
    if not found["train"]:
        raise DataError(f"{root}: holds no files to learn from ({', '.join(suffixes)}).")
    return _in_parts(root.resolve().name, ("all",), found, fraction, seed, "autoencode")


def _in_parts(
    name: str, classes: tuple[str, ...], found: dict[str, tuple[Labelled, ...]], fraction: float, seed: int, task: Task
) -> Listing:
    """The parts as they are; without a test part the validation part is one, without that one is held out."""
    if found["test"]:
        return Listing(name, classes, found["train"], found["validation"], found["test"], task)
    if found["validation"]:
        return Listing(name, classes, found["train"], (), found["validation"], task)
    return _divided(name, classes, found["train"], fraction, seed, task)


def list_table(path: Path, table: Table, fraction: float, seed: int, task: Task | None = None) -> Listing:
    """The files that a table names.

    The column of labels says what is to be learnt, unless `task` does:

    * headed `value`, or numbers of which one is not whole: values (regress), several with semicolons between;
    * headed `labels`, or with a semicolon somewhere: several labels at once, with semicolons between; a file may have
      none;
    * masks: a class for each place (segment);
    * else: a class.

    A part is train, validation or test; where none is named to test on, a fraction is held out.

    Raises:
        FileError: a row without a label.
        DataError: no rows, or a class of another part that is not trained on.
    """
    rows, masks = table.rows, all(not isinstance(row.label, (str, tuple)) for row in table.rows)
    task = task or ("segment" if masks else _task_of([row.label for row in rows], table.head))
    if (task == "segment") is not masks and task != "autoencode":
        raise DataError(
            f"{path}: its labels are masks; they are for --task segment."
            if masks
            else f"{path}: to segment needs folders images and masks; a table of labels has no masks."
        )
    if task in ("segment", "autoencode"):
        files = [
            (Labelled(row.place, row.label if masks and task == "segment" else 0, row.name), row.part) for row in rows
        ]
        return _of_table(path, () if task == "segment" else ("all",), files, fraction, seed, task)
    trained = [row.label for row in rows if row.part in (None, "train")]
    classes, number = table.classes, dict[Any, Any]()
    if task == "regress":
        number = {row.label: _values(path, row.label) for row in rows}
        count = len(number[rows[0].label])
        uneven = [label for label, values in number.items() if len(values) != count]
        if uneven:
            raise DataError(f"{path}: has {uneven[0]!r} among rows of {count} values; expected as many in each.")
        classes = ("value",) if count == 1 else tuple(f"value{i + 1}" for i in range(count))
    elif task == "labels":
        sets = {row.label: frozenset(part.strip() for part in _parted(row.label)) - {""} for row in rows}
        classes = table.classes or tuple(sorted({name for label in trained for name in sets[label]}, key=_natural))
        lost = sorted(set().union(*sets.values()) - set(classes), key=_natural)
        if lost or not classes:
            raise DataError(f"{path}: {listed(lost) or 'no label'} to test on, but not among the labels to train on.")
        number = {label: tuple(int(name in named) for name in classes) for label, named in sets.items()}
    elif any(row.label == "" for row in rows):
        raise FileError(f"{path}: has a row without a label; expected path,label.")
    else:
        classes = classes or tuple(sorted(set(trained), key=_natural))
        number = {name: i for i, name in enumerate(classes)}
    unknown = sorted({row.label for row in rows} - number.keys(), key=_natural)
    if unknown:
        raise DataError(f"{path}: {listed(unknown)} to test on, but not among the classes to train on.")
    files = [(Labelled(row.place, number[row.label], row.name), row.part) for row in rows]
    return _of_table(path, classes, files, fraction, seed, task)


def _of_table(
    path: Path,
    classes: tuple[str, ...],
    files: Sequence[tuple[Labelled, str | None]],
    fraction: float,
    seed: int,
    task: Task,
) -> Listing:
    found = {wanted: tuple(f for f, part in files if (part or "train") == wanted) for wanted in PARTS}
    return _in_parts(path.stem, classes, found, fraction, seed, task)


def _parted(label: str | tuple[str, ...]) -> Sequence[str]:
    """The several words of a label."""
    return label if isinstance(label, tuple) else label.split(";")


def _task_of(labels: Sequence[str | tuple[str, ...]], head: str) -> Task:
    """What the column of labels, with this heading, is for.

    >>> _task_of(["3", "4.5"], "label"), _task_of(["cat;dog", "cat"], ""), _task_of(["3", "4"], "")
    ('regress', 'labels', 'classify')
    """
    words = [part for label in labels for part in _parted(label)]
    numbers = [float(part) for part in words if is_number(part)]
    if head in ("value", "values") or (len(numbers) == len(words) and any(not n.is_integer() for n in numbers)):
        return "regress"
    several = head == "labels" or (head != "classes" and any(isinstance(w, tuple) or ";" in w for w in labels))
    return "labels" if several else "classify"


def _values(path: Path, label: str | tuple[str, ...]) -> tuple[float, ...]:
    parts = _parted(label)
    if not all(map(is_number, parts)):
        raise FileError(f"{path}: has {label!r} as a value; expected a number, or several with semicolons between.")
    return tuple(map(float, parts))


def share_of(name: str, seed: int = 0) -> float:
    """Where a file of this name falls between 0 and 1: the same on every machine, whatever other files there are.

    >>> share_of("cat/0001.png") == share_of("cat/0001.png") != share_of("cat/0001.png", seed=1)
    True
    """
    return (
        int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogateescape")).digest()[:8], "big") / 2**64
    )


def _divided(
    name: str,
    classes: tuple[str, ...],
    files: tuple[Labelled, ...],
    fraction: float,
    seed: int,
    task: Task = "classify",
) -> Listing:
    """Hold out the files whose share lies below `fraction`.

    Of a class that would be held out whole, the last file is trained on; if nothing would be held out, the first is.
    """
    if not 0 < fraction < 1:
        raise DataError(f"{name}: received a fraction of {fraction} to hold out; expected one between 0 and 1.")
    shares = {file: share_of(file.name, seed) for file in files}
    stratum = {file: file.label if task == "classify" else 0 for file in files}
    last = {stratum[file]: file for file in sorted(files, key=shares.__getitem__)}
    held = {file for file in files if shares[file] < fraction} - set(last.values())
    spare = [file for file in files if file is not last[stratum[file]]]
    if not spare:
        raise DataError(
            f"{name}: received at most one file a class; expected two or more, to train on one and to test on another."
        )
    held = held or {min(spare, key=shares.__getitem__)}
    kept, tested = (tuple(f for f in files if (f in held) is wanted) for wanted in (False, True))
    return Listing(name, classes, kept, (), tested, task)


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
    return suffix_of(path) in suffixes and not path.name.startswith(".")


def most_frequent(root: Path, suffixes: Sequence[str]) -> str | None:
    """The most frequent of these suffixes among a folder's files down to the third level; None where there are none."""
    counts: Counter[str] = Counter()
    for folder, inner, names in os.walk(root):
        inner[:] = sorted(n for n in inner if not n.startswith("."))
        if len(Path(folder).relative_to(root).parts) >= 2:
            inner.clear()
        counts.update(suffix_of(Path(n)) for n in names if wanted(Path(n), suffixes))
    return min(counts, key=lambda s: (-counts[s], s)) if counts else None


def listed(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_LISTED]) + (", ..." if len(names) > MOST_LISTED else "")


def read_csv(path: Path) -> Table:
    """The rows of a CSV: lines of path,label or path,label,part, with or without a line of headings.

    Paths count from the table's folder.

    Raises:
        FileError: the table cannot be read; the message has the line.
        DataError: no rows.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            lines = [(reader.line_num, row) for reader in [csv.reader(stream)] for row in reader if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileError(
            f"{path}: cannot be read as a table ({error}). Expected lines of path,label in UTF-8."
        ) from error
    first = [cell.strip().lower() for cell in lines[0][1][:2]] if lines else []
    head = first[1] if len(first) == 2 and first[0] in ("path", "file") and first[1] in HEADS else ""
    lines = lines[1:] if head else lines
    if not lines:
        raise DataError(f"{path}: holds no rows; expected lines of path,label.")
    named = {name: part for part, names in PARTS.items() for name in names}
    found: list[Row] = []
    for line, row in lines:
        name, label, *part = (*(cell.strip() for cell in row), "")[: max(2, len(row))]
        if (
            len(row) not in (2, 3)
            or not name
            or not (label or head == "labels")
            or (part and part[0].lower() not in named)
        ):
            raise FileError(
                f"{path}, line {line}: expected path,label or path,label,part with a part of {', '.join(PARTS)}. "
                f"Received: {','.join(row)}"
            )
        found.append(Row(path.parent / name, name, label, named[part[0].lower()] if part else None))
    return Table(found, head)


def _natural(label: str) -> tuple[int, int, str]:
    """Numbers by their size, before words."""
    return (0, int(label), label) if label.isdecimal() else (1, 0, label)
