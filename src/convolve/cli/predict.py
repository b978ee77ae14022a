"""`convolve predict`: what a model sees in images, hears in sounds, or makes of arrays in files."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from convolve import storage
from convolve.augment import Augmentation
from convolve.cli import tasks
from convolve.cli.find import Found, find_model, views_of
from convolve.cli.output import Output, printable
from convolve.cli.scores import KINDS, ClassScores
from convolve.cli.scores.base import sigmoid, softmax
from convolve.cli.sizes import sized_aloud, with_row
from convolve.data.dataset import Task
from convolve.data.images import SUFFIXES
from convolve.data.kinds import Arrays, Form, form_for
from convolve.data.nifti import suffix_of
from convolve.data.waves import SUFFIXES as SOUNDS
from convolve.errors import ConvolveError, DataError, FileError, ShapeError

BATCH = 64
MOST = 3
"""Classes that are named for an image."""
Row = dict[str, Any]


def predict(
    model: str,
    files: tuple[str, ...],
    views: str | None,
    out: str | None,
    threads: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Print what the model makes of each file, a line a file."""
    output = Output(quiet, as_json)
    found = find_model(model, threads, images=True)
    net = sized_aloud(found.model, output, Path(files[0]))
    found = replace(found, model=with_row(net) if found.task == "classify" else net)
    if out is not None and found.task not in ("segment", "autoencode"):
        raise ConvolveError(f"--out {out}: {model} gives no pictures that could be written; leave it out")
    seen = views_of(views)
    width = max(len(printable(file)) for file in files)
    everything: list[Row] = []
    for start in range(0, len(files), BATCH):
        for row in _rows(found, files[start : start + BATCH], seen, Path(out) if out else None):
            brief, said = _said(row)
            if as_json:
                everything.append(row)
            elif quiet:
                output.result(brief)
            else:
                output.say(f"{printable(row['file']):{width}}  {said}")
    if as_json:
        output.give(everything)


def _rows(found: Found, files: tuple[str, ...], views: tuple[Augmentation, ...], out: Path | None) -> list[Row]:
    samples = [_form(found, file).read(Path(file)) for file in files]
    if len({sample.dtype for sample in samples}) > 1:
        raise DataError(f"{', '.join(files[:3])}: are of several kinds; give images, sounds or arrays alone")
    model, x = found.model, np.stack(samples)
    scores = KINDS[found.task](())
    scores.check(model)
    made = np.asarray(model.predict(x, augment=views, targets=scores.targets), np.float64)
    names = model.classes or tuple(map(str, range(made.shape[-1])))
    probable = isinstance(scores, ClassScores) and scores.probable
    return [
        {"file": file, **_found(found.task, sample, row, names, probable, out and out / Path(file).name)}
        for file, sample, row in zip(files, x, made, strict=True)
    ]


def _found(
    task: Task, sample: np.ndarray, row: np.ndarray, names: tuple[str, ...], probable: bool, out: Path | None
) -> Row:
    """What a net's output for a sample says, for JSON; `out` is where a picture of it goes, whatever its suffix."""
    if task == "classify":
        shares = row if probable else softmax(row)
        order = np.argsort(-shares, kind="stable")[:MOST]
        classes = [{"class": names[i], "probability": float(shares[i])} for i in order]
        return {**classes[0], "classes": classes}
    if task == "labels":
        found = list(zip(names, sigmoid(row).tolist(), strict=True))
        labels = [{"label": name, "probability": p} for name, p in found]
        return {"labels": [name for name, p in found if p > 0.5], "probabilities": labels}
    if task == "regress":
        return {"values": dict(zip(names, map(float, row), strict=True))}
    if task == "segment":
        mask = row.argmax(-1)
        shares = np.bincount(mask.ravel(), minlength=len(names)) / mask.size
        numbered = all(name.isdecimal() and int(name) < 256 for name in names)
        values = np.array([int(name) if numbered else i for i, name in enumerate(names)], np.uint8)
        written = {"written": _write(values[mask], out)} if out else {}
        return {"shares": dict(zip(names, map(float, shares), strict=True)), **written}
    error = float(np.square(row - tasks.as_floats(sample)).mean())
    back = np.clip(np.round(row * 255), 0, 255).astype(np.uint8) if sample.dtype == np.uint8 else row.astype(np.float32)
    return {"error": error, **({"written": _write(back[..., 0] if back.shape[-1] == 1 else back, out)} if out else {})}


def _write(values: np.ndarray, out: Path) -> str:
    """Write a picture as PNG, and what is none as .npy; its path."""
    picture = values.dtype == np.uint8 and (values.ndim == 2 or (values.ndim == 3 and values.shape[-1] == 3))
    path, data = out.with_suffix(".png" if picture else ".npy"), io.BytesIO()
    if picture:
        Image.fromarray(values).save(data, "PNG")
    else:
        np.save(data, values, allow_pickle=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"--out {path.parent}: cannot be made ({error.strerror}); choose another folder") from None
    storage.write(path, data.getvalue())
    return str(path)


def _said(row: Row) -> tuple[str, str]:
    """A row in a word, and in a line."""
    if "class" in row:
        best, *others = (f"{printable(c['class'])} {c['probability']:.1%}" for c in row["classes"])
        return printable(row["class"]), best + (f"   ({', '.join(others)})" if others else "")
    if "labels" in row:
        there = [one for one in row["probabilities"] if one["probability"] > 0.5]
        likely = max(row["probabilities"], key=lambda one: float(one["probability"]))
        said = ", ".join(f"{printable(one['label'])} {one['probability']:.1%}" for one in there)
        none = f"none   (most probable: {printable(likely['label'])} {likely['probability']:.1%})"
        return printable(";".join(row["labels"])), said or none
    if "values" in row:
        values = row["values"]
        brief = ";".join(f"{v:.6g}" for v in values.values())
        return brief, brief if len(values) == 1 else ", ".join(f"{printable(n)} {v:.6g}" for n, v in values.items())
    written = f"   -> {row['written']}" if "written" in row else ""
    if "shares" in row:
        shares = [f"{printable(name)}: {share:.1%}" for name, share in row["shares"].items() if share]
        return row.get("written") or ", ".join(shares), ", ".join(shares) + written
    return f"{row['error']:.4g}", f"mean squared error {row['error']:.4g}{written}"


def _form(found: Found, file: str) -> Form:
    """What a file is brought to for a model.

    Raises:
        DataError: an image, for a model that was trained on other numbers than images hold.
        ShapeError: no sample of the model's shape is made of such a file.
    """
    suffix = suffix_of(Path(file))
    image = suffix not in (*SOUNDS, *Arrays().suffixes)  # by its content, whatever its name
    if image and found.trained_on == "float32":
        raise DataError(
            f"{found.name}: was trained on numbers of a scale that image files (0 to 255) do not have; give it arrays "
            f"by convolve.load({found.name!r}).predict(array)"
        )
    shape = found.model.input_shape
    try:
        return form_for(SUFFIXES[0] if image else suffix, shape, found.trained_on or "float32", found.rate)
    except ShapeError as error:
        raise ShapeError(f"{file}: {error}") from None
