"""What a data set is like: how many samples of each class, which lie in two parts, and a picture of some of each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from convolve.data.dataset import Dataset
from convolve.source import Rows, batch, in_order, rows

if TYPE_CHECKING:
    from PIL.Image import Image

CHUNK = 256
"""Samples that are looked at together."""
TILE = 64
"""Pixels of a sample's side on a contact sheet, at least."""
_MARGIN, _TEXT, _BACK, _INK = 4, 120, (255, 255, 255), (40, 40, 40)


@dataclass(frozen=True)
class Repeated:
    """The same sample in two parts, or twice in one: its places, and whether both call it the same class."""

    first: tuple[str, int]
    second: tuple[str, int]
    same_class: bool


def parts(dataset: Dataset) -> dict[str, tuple[Rows, Any]]:
    """Samples and labels of each part that there is."""
    found = {
        part: (getattr(dataset, f"x_{part}"), getattr(dataset, f"y_{part}")) for part in ("train", "validation", "test")
    }
    return {part: (x, y) for part, (x, y) in found.items() if x is not None}


def balance(dataset: Dataset) -> dict[str, NDArray[np.int64]]:
    """How many samples of each class (or label) every part has, (classes,); of masks, how many places; of values none.

    >>> dots = Dataset("dots", np.zeros((3, 8, 8, 1), np.uint8), [0, 1, 1], None, None, ("small", "large"))
    >>> balance(dots)["train"].tolist()
    [1, 2]
    """
    size = len(dataset.classes)
    if dataset.task == "labels":
        return {part: y.sum(0).astype(np.int64) for part, (_, y) in parts(dataset).items()}
    if dataset.task == "regress":
        return {part: np.zeros(size, np.int64) for part in parts(dataset)}
    return {
        part: sum((np.bincount(some.ravel(), minlength=size) for some in in_order(y, CHUNK)), np.zeros(size, np.int64))
        for part, (_, y) in parts(dataset).items()
    }


def repeated(dataset: Dataset) -> list[Repeated]:
    """Samples whose values are all those of an earlier one: in the order train, validation, test.

    What is learned from and tested on as well makes a test too good.

    >>> x = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1)
    >>> repeated(Dataset("dots", x, [0, 1, 1], x[2:], [0], ("small", "large")))
    [Repeated(first=('train', 2), second=('test', 0), same_class=False)]
    """
    seen: dict[bytes, tuple[str, int]] = {}
    found = []
    for part, (x, y) in parts(dataset).items():
        for row, sample in enumerate(_samples(x)):
            digest = hashlib.blake2b(np.ascontiguousarray(sample).data, digest_size=16).digest()
            first = seen.setdefault(digest, (part, row))
            if first != (part, row):
                alike = np.array_equal(rows(parts(dataset)[first[0]][1], [first[1]]), rows(y, [row]))
                found.append(Repeated(first, (part, row), alike))
    return found


def contact_sheet(dataset: Dataset, columns: int = 8, most_classes: int = 40) -> Image:
    """A picture of the first training samples of each class, a row a class, with its name and how many there are.

    Of samples without classes the first ones, in one row.

    Images are shown as they are, volumes by their middle slice, signals as curves. Floats are brought to the range of
    all that is shown.
    """
    from PIL import Image, ImageDraw

    x, y = dataset.x_train, dataset.strata
    names = dataset.classes if y is dataset.y_train else ("samples",)
    classes = range(len(names))[:most_classes]
    rows = {label: np.flatnonzero(y == label)[:columns] for label in classes}
    shown = np.concatenate(list(rows.values()))
    samples = x[shown] if isinstance(x, np.ndarray) else x.batch(shown)
    scaled = iter(_as_bytes(samples))
    rank = len(x.shape) - 2
    tiles = {label: [_tile(next(scaled), rank) for _ in chosen] for label, chosen in rows.items()}
    width, height = next(tile.size for row in tiles.values() for tile in row)
    size = (_TEXT + columns * (width + _MARGIN) + _MARGIN, len(classes) * (height + _MARGIN) + _MARGIN)
    sheet = Image.new("RGB", size, _BACK)
    draw = ImageDraw.Draw(sheet)
    counts = np.bincount(y, minlength=len(names))
    for line, (label, row) in enumerate(tiles.items()):
        top = _MARGIN + line * (height + _MARGIN)
        name = names[label].encode("latin-1", "replace").decode("latin-1")  # what Pillow's own font has
        draw.text((_MARGIN, top), f"{name[:18]}\n{counts[label]:,}", _INK)
        for column, tile in enumerate(row):
            sheet.paste(tile, (_TEXT + column * (width + _MARGIN), top))
    return sheet


def _samples(x: Rows) -> Iterator[NDArray[Any]]:
    for start in range(0, len(x), CHUNK):
        yield from batch(x, start, start + CHUNK)


def _as_bytes(x: NDArray[Any]) -> NDArray[np.uint8]:
    if x.dtype == np.uint8:
        return x
    low, high = float(x.min()), float(x.max())
    return np.round((x - low) * (255 / max(high - low, 1e-30))).astype(np.uint8)


def _tile(sample: NDArray[np.uint8], rank: int) -> Image:
    """A sample (*spatial, channels) of 0 to 255 as a picture."""
    from PIL import Image, ImageDraw

    if rank == 1:
        curve = sample[:, 0].astype(int)
        columns = np.array_split(curve, min(2 * TILE, len(curve)))
        tile = Image.new("RGB", (2 * TILE, TILE), (240, 240, 240))
        draw = ImageDraw.Draw(tile)
        for place, part in enumerate(columns):
            at = place * 2 * TILE // len(columns)
            draw.line(
                [(at, (255 - part.max()) * (TILE - 1) // 255), (at, (255 - part.min()) * (TILE - 1) // 255)], _INK
            )
        return tile
    while sample.ndim > 3:
        sample = sample[len(sample) // 2]
    picture = sample if sample.shape[-1] == 3 else np.repeat(sample[..., :1], 3, -1)
    height, width = picture.shape[:2]
    factor = max(1, -(-TILE // max(height, width))) if max(height, width) < TILE else 1
    scale = factor if max(height, width) <= 2 * TILE else 2 * TILE / max(height, width)
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BILINEAR
    return Image.fromarray(np.ascontiguousarray(picture)).resize(shape, how)
