"""Parquet tables, as the Hugging Face hub and pandas write them, by pyarrow: rows are read a row group at a time."""

from __future__ import annotations

import json
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from convolve.data.files import HEADS, PARTS, Row, Table, listed
from convolve.errors import DataError, FileError

if TYPE_CHECKING:
    import pyarrow

SUFFIX = ".parquet"
KEPT = 2**27
"""Bytes of row groups that are kept of a table."""
MOST_GROUP = 2**30
"""Bytes that a row group may have: it is read whole."""
PATHS = ("path", "file", "file_name")
"""How a column is called that names files."""
PART_HEADS = ("part", "split")
MASKS = ("mask", "masks", "annotation")
"""How a column of masks may be called, beside `convolve.data.files.HEADS`."""
KINDS = {b"RIFF": ".wav", b"fLaC": ".flac", b"\x93NUM": ".npy"}
"""How contents that are no pictures begin, and the suffix of such files."""


@dataclass(frozen=True)
class Status:
    """What is asked of a file's status."""

    st_size: int
    st_mtime_ns: int


@dataclass(frozen=True)
class Cell:
    """What a row has in a column, in place of a file: with those of a path's methods that reading files needs."""

    column: Column = field(repr=False)
    row: int

    @property
    def name(self) -> str:
        return f"{self.column.path.name}[{self.row}]"

    @property
    def suffix(self) -> str:
        """That of a file of such contents: of what the column begins with."""
        return self.column.suffix

    def __str__(self) -> str:
        return f"{self.column.path}[{self.row}]"

    def read_bytes(self) -> bytes:
        return self.column.content(self.row)

    def open(self, mode: str) -> BinaryIO:
        return BytesIO(self.read_bytes())

    def stat(self) -> Status:
        """The time of the table, and the mean size of a cell: contents need not be read to know whether to."""
        return Status(self.column.mean_size, self.column.path.stat().st_mtime_ns)

    def resolve(self) -> str:
        """A name that no other file's sample has."""
        return f"{self.column.path.resolve()}|{self.column.name}|{self.row}"


class Column:
    """A column of files' contents, or of arrays as lists, which are given as a .npy file's contents."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self._file = _opened(path)
        counts = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
        self._starts = np.cumsum([0, *counts]).tolist()
        self._lock = threading.Lock()
        self._groups: OrderedDict[int, pyarrow.ChunkedArray] = OrderedDict()
        sizes = self._sizes()
        self.mean_size = sum(sizes) // max(1, self._starts[-1])
        first = next((v for v in self._values() if v), b"")
        self.suffix = KINDS.get(first[:4], ".png")

    def _sizes(self) -> list[int]:
        """Bytes of the column in each row group.

        Raises:
            FileError: one of them is too large to be read whole.
        """
        groups = [self._file.metadata.row_group(i) for i in range(self._file.num_row_groups)]
        leaves = [[group.column(i) for i in range(group.num_columns)] for group in groups]
        own = [[leaf for leaf in group if leaf.path_in_schema.partition(".")[0] == self.name] for group in leaves]
        sizes = [sum(int(leaf.total_uncompressed_size) for leaf in group) for group in own]
        if max(sizes) > MOST_GROUP:
            raise FileError(
                f"{self.path}: has a row group of {max(sizes) >> 20:,} MB in its column {self.name}; expected at most "
                f"{MOST_GROUP >> 20:,} MB, as groups are read whole. Write it anew with row_group_size=100, say."
            )
        return sizes

    def _values(self) -> Iterator[bytes]:
        """The contents of the first group."""
        for row in range(self._starts[1]):
            yield self.content(row)

    def content(self, row: int) -> bytes:
        """What a row holds: a file's contents.

        Raises:
            FileError: it holds nothing, or the table is damaged.
        """
        number = bisect_right(self._starts, row) - 1
        value = self._group(number)[row - self._starts[number]].as_py()
        if isinstance(value, dict):
            value = value.get("bytes")
        if isinstance(value, list):
            return _as_npy(value, f"{self.path}[{row}]")
        if not value:
            raise FileError(f"{self.path}[{row}]: holds nothing in its column {self.name}.")
        return bytes(value)

    def _group(self, number: int) -> pyarrow.ChunkedArray:
        with self._lock:
            if number not in self._groups:
                with _faults(self.path):
                    self._groups[number] = self._file.read_row_group(number, columns=[self.name])[self.name]
                while len(self._groups) > 1 and sum(group.nbytes for group in self._groups.values()) > KEPT:
                    self._groups.popitem(last=False)
            self._groups.move_to_end(number)
            return self._groups[number]


def tables_of(path: Path) -> list[Path]:
    """The tables that a path stands for: itself, or those of a folder or of the folder `data` in it."""
    if path.is_dir():
        inside = [path, path / "data"]
        found = [sorted(f for f in folder.glob(f"*{SUFFIX}") if f.name[0] != ".") for folder in inside]
        return found[0] or found[1]
    return [path] if path.suffix.lower() == SUFFIX and path.is_file() else []


def read_parquet(path: Path, task: str | None = None) -> Table:
    """The rows of a table, or of all tables of a folder, whose names begin with the part that they are.

    What is learnt from is a column of files' contents (images or sounds, as bytes or as {bytes, path}), of arrays as
    lists of numbers, or else one called path that names files. What is to be learnt is the column that is called as
    in a CSV, or the only other one. A column called part or split says the part. Names of classes are those of the
    hub's description, where there is one.

    Raises:
        FileError: pyarrow is missing, or a table is damaged.
        DataError: it has no such columns.
    """
    rows: list[Row] = []
    names: tuple[str, ...] = ()
    head = ""
    for table in tables_of(path):
        found, head, named = _rows(table, task)
        part = next((p for p, words in PARTS.items() if table.name.lower().startswith(words)), None)
        rows += [row if row.part else Row(row.place, row.name, row.label, part) for row in found]
        names = named or names
    return Table(rows, head, names)


def _rows(path: Path, task: str | None) -> tuple[list[Row], str, tuple[str, ...]]:
    file = _opened(path)
    import pyarrow.types as kinds

    schema = file.schema_arrow
    fields = {name: schema.field(name).type for name in schema.names}
    if not file.metadata.num_rows:
        raise DataError(f"{path}: holds no rows.")
    target = next((n for n in fields if n.lower() in (*HEADS, *MASKS)), None)
    samples = [name for name, kind in fields.items() if name != target and _is_sample(kind)]
    named = [name for name, kind in fields.items() if kinds.is_string(kind) and name.lower() in PATHS]
    part = next((name for name in fields if name.lower() in PART_HEADS), None)
    x = next(iter(samples or named), None)
    others = [name for name in fields if name not in (x, part, *samples, *named)]
    if target is None and len(others) == 1:
        target = others[0]
    if x is None or (target is None and task != "autoencode"):
        raise DataError(
            f"{path}: has the columns {listed(list(fields))}; expected one of images or sounds (bytes, or bytes and "
            f"path), of lists of numbers or called path, and one called {', '.join(HEADS)} or mask, or one other."
        )
    wanted = [name for name in (target, part, x if x in named else None) if name]
    masked = target is not None and _is_sample(fields[target]) and not kinds.is_list(fields[target])
    read = [name for name in wanted if not (masked and name == target)]
    with _faults(path):
        values = {name: file.read(columns=[name])[name].to_pylist() for name in read}
        paths = _paths(file, x) if x in samples and _has_path(fields[x]) else None
    count = file.metadata.num_rows
    classes = _class_names(schema.metadata, target) if target else ()
    if masked and target:
        masks = Column(path, target)
        labels: list[Any] = [Cell(masks, row) for row in range(count)]
    else:
        labels = [_label(path, i, v, classes) for i, v in enumerate(values[target])] if target else ["all"] * count
    if x in named:
        places: list[Any] = [path.parent / str(name) for name in values[x]]
        called = [str(name) for name in values[x]]
    else:
        column = Column(path, x)
        places = [Cell(column, row) for row in range(count)]
        called = paths if paths and len(set(paths)) == count else [place.name for place in places]
    parts = [_part(path, i, v) for i, v in enumerate(values[part])] if part else [None] * count
    return (
        [Row(*row) for row in zip(places, called, labels, parts, strict=True)],
        _head(target, labels, classes),
        classes,
    )


def _is_sample(kind: Any) -> bool:
    """Whether a column holds files' contents or arrays."""
    import pyarrow.types as kinds

    if kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind):
        return _is_array(kind)
    if kinds.is_struct(kind):
        return any(f.name == "bytes" for f in kind)
    return bool(kinds.is_binary(kind) or kinds.is_large_binary(kind))


def _is_array(kind: Any) -> bool:
    import pyarrow.types as kinds

    while kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind):
        kind = kind.value_type
    return bool(kinds.is_integer(kind) or kinds.is_floating(kind))


def _has_path(kind: Any) -> bool:
    import pyarrow.types as kinds

    return bool(kinds.is_struct(kind)) and any(f.name == "path" for f in kind)


def _paths(file: Any, column: str) -> list[str]:
    """The names of files that the contents are from; none where some have none."""
    found = file.read(columns=[f"{column}.path"])[column].to_pylist()
    named = [value and value.get("path") for value in found]
    return [str(name) for name in named] if all(named) else []


def _head(target: str | None, labels: Sequence[Any], classes: tuple[str, ...]) -> str:
    """The heading that a CSV with such a column would have."""
    if target and any(isinstance(label, tuple) for label in labels) and target.lower() not in ("value", "values"):
        return (
            "labels" if classes or all(float(p).is_integer() for ps in labels for p in ps if _numeric(p)) else "values"
        )
    return "classes" if classes else target.lower() if target and target.lower() in HEADS else ""


def _numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _label(path: Path, row: int, value: Any, classes: tuple[str, ...]) -> str | tuple[str, ...]:
    """A row's label as a CSV would have it; of several, each."""
    if isinstance(value, list):
        return tuple(str(_label(path, row, one, classes)) for one in value)
    if classes:
        if not isinstance(value, int) or not 0 <= value < len(classes):
            raise DataError(f"{path}[{row}]: has class number {value}; expected one from 0 to {len(classes) - 1}.")
        return classes[value]
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _part(path: Path, row: int, value: Any) -> str:
    found = next((part for part, words in PARTS.items() if str(value).lower() in words), None)
    if found is None:
        raise DataError(f"{path}[{row}]: has the part {value!r}; expected one of {', '.join(PARTS)}.")
    return found


def _class_names(metadata: Any, target: str) -> tuple[str, ...]:
    """The names of classes by the description that the hub keeps in a table's schema; none without one."""
    try:
        described = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"][target]
    except (KeyError, TypeError, ValueError):
        return ()
    if isinstance(described, list) and described:
        described = described[0]
    if isinstance(described, dict) and isinstance(described.get("feature"), dict):
        described = described["feature"]
    names = described.get("names") if isinstance(described, dict) else None
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _as_npy(values: list[Any], name: str) -> bytes:
    stream = BytesIO()
    try:
        array = np.array(values)
    except ValueError as error:
        raise FileError(f"{name}: holds lists of different lengths ({error}).") from None
    np.save(stream, array if array.dtype.kind in "buif" else array.astype(np.float32), allow_pickle=False)
    return stream.getvalue()


def _opened(path: Path) -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise FileError(f"{path}: Parquet tables need pyarrow: pip install 'convolve[parquet]'") from None
    with _faults(path):
        return pyarrow.parquet.ParquetFile(path)


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    """What pyarrow raises on damaged tables, as errors with the table's name."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, ValueError, KeyError) as error:
        raise FileError(f"{path}: cannot be read as a Parquet table ({error}). Get or save it anew.") from error
