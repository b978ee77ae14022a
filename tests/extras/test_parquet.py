"""Parquet tables, as the Hugging Face hub and pandas write them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convolve import data
from convolve.data.folder import load_folder
from convolve.data.parquet import Cell, Column
from convolve.errors import DataError, FileError
from convolve.source import rows

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

COUNT = 30
BYTES = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (COUNT, 6, 8, 3), np.uint8)


def png(picture: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    return stream.getvalue()


def write(path: Path, columns: dict[str, Any], features: dict[str, Any] | None = None, group: int = 4) -> Path:
    """A table in row groups of four, described as the hub does."""
    metadata = {"huggingface": json.dumps({"info": {"features": features}})} if features else None
    made = pyarrow.table(columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(made.replace_schema_metadata(metadata), path, row_group_size=group)
    return path


def images(x: np.ndarray, named: bool = True) -> Any:
    return pyarrow.array([{"bytes": png(p), "path": f"{i}.png" if named else None} for i, p in enumerate(x)], BYTES)


def whole(found: data.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """All samples and their labels, whichever part they are in, in the order of their names."""
    assert found.x_test is not None
    assert found.y_test is not None
    x = np.concatenate([rows(part, range(len(part))) for part in (found.x_train, found.x_test)])
    y = np.concatenate([found.y_train, found.y_test])
    order = np.argsort([int(Path(name).stem) for name in (*found.train_files, *found.test_files)])
    return x[order], y[order]


@pytest.mark.parametrize("memory", [None, 1000], ids=["in memory", "streamed"])
def test_pictures_with_classes_as_the_hub_has_them(tmp_path: Path, memory: int | None) -> None:
    x, y = pictures(), np.arange(COUNT) % 3
    names = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["zebra", "cat", "a;b", "none"]}}
    path = write(tmp_path / "animals.parquet", {"label": y, "image": images(x)}, names)
    found = load_folder(path, size=(6, 8), memory=memory)
    assert isinstance(found.x_train, np.ndarray) is (memory is None)
    assert (found.task, found.classes, found.name) == ("classify", ("zebra", "cat", "a;b", "none"), "animals")
    samples, labels = whole(found)
    np.testing.assert_array_equal(samples, x)
    np.testing.assert_array_equal(labels, y)


def test_parts_are_those_of_the_hubs_files_or_of_a_column(tmp_path: Path) -> None:
    x, y = pictures(), np.arange(COUNT) % 2
    for part, chosen in (("train", slice(0, 20)), ("validation", slice(20, 24)), ("test", slice(24, None))):
        write(
            tmp_path / "set" / "data" / f"{part}-00000-of-00001.parquet", {"img": images(x[chosen]), "label": y[chosen]}
        )
    column = ["train"] * 20 + ["valid"] * 4 + ["test"] * 6
    other = write(tmp_path / "one.parquet", {"img": images(x), "label": y, "split": column})
    for given in (tmp_path / "set", other):
        found = data.load(given, size=(6, 8))
        assert found.x_validation is not None
        assert found.x_test is not None
        assert [len(part) for part in (found.x_train, found.x_validation, found.x_test)] == [20, 4, 6]
        np.testing.assert_array_equal(found.x_test, x[24:])


def test_what_is_learnt_follows_from_the_column(tmp_path: Path) -> None:
    x = pictures()
    binary = pyarrow.array([png(p) for p in x])
    several = [["cat"] * (i % 2) + ["dog"] * (i % 3 == 0) for i in range(COUNT)]
    cases: tuple[tuple[Any, str, str, tuple[str, ...]], ...] = (
        (np.arange(COUNT) / 4, "height", "regress", ("value",)),
        (np.arange(COUNT), "value", "regress", ("value",)),
        ([[i, i / 2] for i in range(COUNT)], "values", "regress", ("value1", "value2")),
        (["cat", "dog"] * (COUNT // 2), "kind", "classify", ("cat", "dog")),
        (pyarrow.array(["cat", "dog"] * (COUNT // 2)).dictionary_encode(), "kind", "classify", ("cat", "dog")),
        (np.arange(COUNT) % 2 == 0, "kind", "classify", ("False", "True")),
        (several, "tags", "labels", ("cat", "dog")),
        ([";".join(s) for s in several], "labels", "labels", ("cat", "dog")),
    )
    for column, name, task, classes in cases:
        found = data.load(write(tmp_path / "t.parquet", {"x": binary, name: column}), size=(6, 8))
        assert (found.task, found.classes) == (task, classes), name
    samples, labels = (np.concatenate([found.y_train, found.y_test]) for _ in range(2))  # type: ignore[list-item]
    assert labels.sum(0).tolist() == [COUNT // 2, COUNT // 3]
    assert samples.shape == (COUNT, 2)
    found = data.load(write(tmp_path / "t.parquet", {"x": binary}), size=(6, 8), task="autoencode")
    assert found.task == "autoencode"


def test_arrays_sounds_and_files_beside_the_table(tmp_path: Path) -> None:
    signals = np.random.default_rng(1).standard_normal((COUNT, 12)).astype(np.float32)
    label = [str(i % 2) for i in range(COUNT)]
    found = data.load(write(tmp_path / "a.parquet", {"signal": list(signals), "label": label}))
    assert found.x_train.shape[1:] == (12, 1)
    row = int(found.train_files[5].partition("[")[2][:-1])
    np.testing.assert_array_equal(found.x_train[5, :, 0], signals[row])  # type: ignore[index]
    grid = [s.reshape(3, 4).tolist() for s in signals]
    assert data.load(write(tmp_path / "b.parquet", {"grid": grid, "label": label})).x_train.shape[1:] == (3, 4, 1)
    for i, picture in enumerate(pictures()):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    paths = [f"{i}.png" for i in range(COUNT)]
    x, _ = whole(data.load(write(tmp_path / "c.parquet", {"path": paths, "label": label}), size=(6, 8)))
    np.testing.assert_array_equal(x, pictures())


@pytest.mark.parametrize("memory", [None, 1000], ids=["in memory", "streamed"])
def test_masks(tmp_path: Path, memory: int | None) -> None:
    x = np.random.default_rng(0).integers(0, 255, (COUNT, 8, 8, 3), np.uint8)
    masks = x[..., 0] // 128 * 9
    path = write(tmp_path / "m.parquet", {"image": images(x), "mask": images(masks)})
    found = load_folder(path, memory=memory)
    assert (found.task, found.classes) == ("segment", ("0", "9"))
    assert found.x_test is not None
    for part, y in ((found.x_train, found.y_train), (found.x_test, found.y_test)):
        np.testing.assert_array_equal(rows(part, range(len(part)))[..., 0] // 128, rows(y, range(len(y))))


def test_broken_rows_are_left_out_and_listed(tmp_path: Path) -> None:
    cells = [png(p) for p in pictures()]
    cells[3], cells[7] = cells[3][:40], b""
    path = write(tmp_path / "t.parquet", {"image": pyarrow.array(cells), "label": ["a", "b"] * (COUNT // 2)})
    found = data.load(path, size=(6, 8))
    assert found.x_test is not None
    assert len(found.x_train) + len(found.x_test) == COUNT - 2
    assert [lost.file for lost in found.skipped] == ["t.parquet[3]", "t.parquet[7]"]
    assert "holds nothing in its column image" in found.skipped[1].reason
    with pytest.raises(FileError, match=r"t\.parquet\[[37]\]"):
        data.load(path, size=(6, 8), strict=True)


def test_no_more_than_what_is_kept_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = pictures()
    column = Column(write(tmp_path / "t.parquet", {"image": images(x), "label": ["a"] * COUNT}), "image")
    assert len(png(x[3])) < Cell(column, 3).stat().st_size < 3 * len(png(x[3]))  # with what a group has besides
    monkeypatch.setattr("convolve.data.parquet.KEPT", 2 * column._group(0).nbytes + 100)
    for row in np.random.default_rng(0).permutation(COUNT).tolist():
        assert Cell(column, row).read_bytes() == png(x[row])
        assert len(column._groups) <= 2


def test_tables_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = images(pictures())
    whole_table = write(tmp_path / "t.parquet", {"image": x, "label": ["a", "b"] * (COUNT // 2)})
    damaged = tmp_path / "cut.parquet"
    damaged.write_bytes(whole_table.read_bytes()[:-50])
    with pytest.raises(FileError, match=r"cut\.parquet: cannot be read as a Parquet table"):
        data.load(damaged)
    with pytest.raises(DataError, match="has the columns a, b; expected one of images"):
        data.load(write(tmp_path / "n.parquet", {"a": ["x"], "b": ["y"]}))
    described = {"label": {"_type": "ClassLabel", "names": ["only"]}}
    with pytest.raises(DataError, match=r"\[1\]: has class number 1; expected one from 0 to 0"):
        data.load(write(tmp_path / "n.parquet", {"image": x, "label": np.arange(COUNT) % 2}, described))
    with pytest.raises(DataError, match="to segment needs folders images and masks"):
        data.load(whole_table, task="segment")
    monkeypatch.setattr("convolve.data.parquet.MOST_GROUP", 1000)
    with pytest.raises(FileError, match=r"as groups are read whole\. Write it anew with row_group_size=100"):
        data.load(whole_table)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(FileError, match=r"pip install 'convolve\[parquet\]'"):
        data.load(whole_table)
