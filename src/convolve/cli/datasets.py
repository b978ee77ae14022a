"""`convolve datasets`: the sets that have a name, and what one of them, or a person's own, is like."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from convolve import data, storage
from convolve.cli.find import load_data
from convolve.cli.output import Output, count, percent, printable
from convolve.data.dataset import Dataset, Task
from convolve.data.inspection import Repeated, balance, contact_sheet, parts, repeated
from convolve.errors import FileError
from convolve.view.text import table

MOST_LISTED = 20
"""Files and pairs that are listed; --json has all."""
MOST_CLASSES = 40
UNEVEN = 5
"""The largest class by the smallest from which on a set is called unbalanced."""


def datasets(given: str | None, task: Task | None, sheet: str | None, strict: bool, quiet: bool, as_json: bool) -> None:
    """Print names, and where each set is or would come from; or of one set what was found."""
    output = Output(quiet, as_json)
    if given is None:
        _names(output)
        return
    dataset = load_data(given, output, strict=strict, list_skipped=False, task=task)
    if sheet is not None:
        _write_sheet(dataset, Path(sheet))
    pairs = repeated(dataset)
    if as_json:
        output.give(_as_dict(dataset, pairs))
    elif quiet:
        output.result(dataset.describe())
    else:
        _say(output, dataset, pairs)
        if sheet is not None:
            output.say(f"\ncontact sheet: {sheet}")


def _names(output: Output) -> None:
    names = data.names()
    if output.json:
        output.give(names)
    elif output.quiet:
        output.result("\n".join(names))
    else:
        output.say(table(("name", "where"), list(names.items()), left=2))
        output.say(
            "\nA folder with one subfolder a class (of images, WAV files or .npy arrays), a CSV of path,label, a\n"
            "Parquet table, a .npz, a pair of IDX files or a folder with CIFAR's is a data set, too:\n"
            "`convolve datasets DATA` tells more."
        )


def _write_sheet(dataset: Dataset, path: Path) -> None:
    from PIL import Image

    Image.init()
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind not in ("PNG", "JPEG", "WEBP"):
        raise FileError(
            f"--sheet {path}: a contact sheet is a picture; expected a name that ends in .png, .jpg or .webp"
        )
    stream = io.BytesIO()
    contact_sheet(dataset).save(stream, kind)
    storage.write(path, stream.getvalue())


def _as_dict(dataset: Dataset, pairs: list[Repeated]) -> dict[str, Any]:
    """The same for JSON."""
    counts = balance(dataset)
    return {
        "name": dataset.name,
        "shape": list(dataset.input_shape),
        "dtype": str(dataset.x_train.dtype),
        "samples": {part: len(x) for part, (x, _) in parts(dataset).items()},
        "classes": [
            {"class": name, **{part: int(found[i]) for part, found in counts.items()}}
            for i, name in enumerate(dataset.classes)
        ],
        "repeated": [
            {"first": _place(dataset, p.first), "second": _place(dataset, p.second), "same_class": p.same_class}
            for p in pairs
        ],
        "skipped": [vars(lost) for lost in dataset.skipped],
    }


def _say(output: Output, dataset: Dataset, pairs: list[Repeated]) -> None:
    output.say(f"{dataset.name}: {dataset.describe()}")
    output.say(f"values: {dataset.x_train.dtype}\n")
    if dataset.task == "regress":
        output.say(_value_table(dataset))
        _say_repeated(output, dataset, pairs)
        return
    output.say(_class_table(dataset))
    counts = balance(dataset)["train"]
    least, most = int(counts.min()), int(counts.max())
    if least == 0:
        missing = [name for name, n in zip(dataset.classes, counts, strict=True) if n == 0]
        output.say(f"\nnothing to learn from: {printable(', '.join(missing[:MOST_LISTED]))}")
    elif most >= UNEVEN * least:
        output.say(f"\nunbalanced: the largest class has {most / least:.1f} times as many samples as the smallest")
    _say_repeated(output, dataset, pairs)
    if dataset.skipped:
        output.say(f"\nleft out, as they cannot be read: {count(len(dataset.skipped), 'file')}")
        for lost in dataset.skipped[:MOST_LISTED]:
            output.say(f"  {printable(lost.reason)}")
        _say_more(output, len(dataset.skipped))


def _value_table(dataset: Dataset) -> str:
    rows = [
        (printable(name), part, *(f"{v:.6g}" for v in (y.min(), y.mean(), y.std(), y.max())))
        for part, (_, values) in parts(dataset).items()
        for name, y in zip(dataset.classes, values.T.astype(float), strict=True)
    ]
    return table(("value", "part", "least", "mean", "deviation", "largest"), rows, left=2)


def _class_table(dataset: Dataset) -> str:
    counts = balance(dataset)
    total = int(counts["train"].sum()) if dataset.task == "segment" else len(dataset.x_train)
    rows = [
        (
            printable(name),
            *(f"{int(found[i]):,}" for found in counts.values()),
            percent(int(counts["train"][i]) / total),
        )
        for i, name in enumerate(dataset.classes)
    ]
    left = len(rows) - MOST_CLASSES
    text = table(
        ({"labels": "label", "segment": "class of places"}.get(dataset.task, "class"), *counts, "of train"),
        rows[:MOST_CLASSES],
    )
    return text + (f"\n{left:,} more classes; --json has all" if left > 0 else "")


def _say_repeated(output: Output, dataset: Dataset, pairs: list[Repeated]) -> None:
    across = [pair for pair in pairs if pair.first[0] != pair.second[0]]
    within = len(pairs) - len(across)
    contrary = sum(not pair.same_class for pair in pairs)
    if not pairs:
        output.say("\nno sample is there twice")
        return
    output.say(
        f"\nthe same values twice: {count(len(across), 'sample')} in two parts, {count(within, 'sample')} within one"
        + (f"; {contrary:,} of them with another class" if contrary else "")
    )
    for pair in across[:MOST_LISTED]:
        note = "" if pair.same_class else "  (another class)"
        output.say(f"  {_place(dataset, pair.first)} = {_place(dataset, pair.second)}{note}")
    _say_more(output, len(across))


def _say_more(output: Output, found: int) -> None:
    if found > MOST_LISTED:
        output.say(f"  and {found - MOST_LISTED:,} more; --json has all")


def _place(dataset: Dataset, place: tuple[str, int]) -> str:
    """A file's name, or the part and the number of a sample."""
    part, row = place
    files = {"train": dataset.train_files, "test": dataset.test_files}.get(part, ())
    return printable(files[row]) if files else f"{part}[{row}]"
