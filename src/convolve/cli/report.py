"""A run as a page: report.html, one file that needs no other, and no script."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from convolve.cli.output import duration, percent
from convolve.cli.scores import ClassScores, Scores, shown, spoken, with_mirror_images
from convolve.view.curves import curves
from convolve.view.svg import Markup, element
from convolve.view.text import megabytes

MOST_CLASSES = 40
"""Classes up to which the whole confusion matrix is shown."""
PIXELS = 112
"""Width of a mistake's picture."""
STYLE = """
body { font: 15px/1.5 system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; color: #222; background: #fff;
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { border-collapse: collapse; } th, td { padding: .15rem .6rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; } .scroll { overflow-x: auto; }
.confusion td, .confusion th { text-align: center; padding: .15rem .35rem; min-width: 1.6rem; }
svg { max-width: 100%; height: auto; } pre { overflow-x: auto; font-size: 13px; line-height: 1.35; }
.mistakes { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0; width: 8.5rem; }
figure img, figure svg { width: 7rem; height: 7rem; object-fit: contain; image-rendering: pixelated;
  border: 1px solid #ddd; } figcaption { font-size: 13px; line-height: 1.3; overflow-wrap: anywhere; }
"""


def report(
    config: Mapping[str, Any],
    results: Mapping[str, Any],
    epochs: Sequence[Mapping[str, float]],
    scores: Scores,
    pictures: Sequence[Sequence[np.ndarray]],
    summary: str,
) -> str:
    """The page.

    Args:
        config: as config.json holds it.
        results: as results.json holds them.
        epochs: metrics of each.
        scores: on the test part.
        pictures: the samples of `scores.worst`, in this order, each with what `scores.shows` beside it.
        summary: the net's layers, as text.
    """
    title = f"{config['settings']['net']} on {config['data']['name']}"
    parts = [
        element("h1", {}, title),
        _reached(results, scores),
        element("h2", {}, "Curves"),
        Markup(curves(epochs, title)),
        *_told(scores),
        element("h2", {}, "Worst mistakes"),
        _mistakes(scores, pictures),
        element("h2", {}, "The net"),
        element("pre", {}, summary),
        element("h2", {}, "How it was made"),
        _table(("setting", "value"), list(_flat({**config, "cost": results["cost"]}))),
    ]
    head = _joined(
        [
            Markup('<meta charset="utf-8">'),
            Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            element("title", {}, title),
            Markup(f"<style>{STYLE}</style>"),
        ]
    )
    page = element("html", {"lang": "en"}, _joined([element("head", {}, head), element("body", {}, _joined(parts))]))
    return f"<!DOCTYPE html>\n{page}\n"


def _joined(parts: Sequence[str]) -> Markup:
    return Markup("\n".join(parts))


def _reached(results: Mapping[str, Any], scores: Scores) -> Markup:
    nets = [net for net in (results["fully_connected"], results["net"]) if net]
    rows = [
        (
            net["net"],
            f"{net['parameters']:,}",
            str(net["epochs"]),
            duration(net["seconds"]),
            shown(scores.metric, net[scores.metric]),
        )
        for net in nets
    ]
    best = f"The model is that of epoch {results['best_epoch']}, the best by the validation samples. "
    test = f"These are its scores on {scores.samples:,} test samples, which nothing before has used."
    if mirrored := results["test_with_mirror_images"]:
        test += " " + with_mirror_images(scores.metric, mirrored[scores.metric])
    heads = ("net", "parameters", "epochs", "time", f"test {spoken(scores.metric)}")
    metrics = [(spoken(name), shown(name, value)) for name, value in scores.metrics().items()]
    return _joined(
        [_table(heads, rows), element("p", {}, best + test), _table(("metric", "on the test part"), metrics)]
    )


def _told(scores: Scores) -> Iterator[Markup]:
    """What there is beyond the metrics: a table of the classes, labels or values, and who is taken for whom."""
    if isinstance(scores, ClassScores):
        yield element("h2", {}, "Classes")
        yield _classes(scores)
        yield element("h2", {}, "Confusion")
        yield _confusion(scores)
        return
    for table in scores.tables():
        yield element("h2", {}, table.title)
        yield _table(table.heads, table.rows)
    if (counts := getattr(scores, "counts", None)) is not None and len(counts) <= MOST_CLASSES:
        yield element("h2", {}, "Confusion, in places")
        yield _matrix(counts, scores.classes)


def _classes(scores: ClassScores) -> Markup:
    rows = [
        (c.name, f"{c.images:,}", f"{c.right:,}", percent(c.recall), percent(c.precision), f"{c.f1:.4f}")
        for c in scores.by_class()
    ]
    return _table(("class", "images", "right", "accuracy (recall)", "precision", "F1"), rows)


def _confusion(scores: ClassScores) -> Markup:
    if len(scores.classes) > MOST_CLASSES:
        pairs = [(p.true, p.predicted, f"{p.count:,}", f"{p.of:,}") for p in scores.confused(MOST_CLASSES)]
        return _table(("true class", "taken for", "images", "of"), pairs)
    return _matrix(scores.counts, scores.classes)


def _matrix(counts: np.ndarray, classes: Sequence[str]) -> Markup:
    totals = np.maximum(counts.sum(1, keepdims=True), 1)
    head = [element("th", {}, "true, taken for")] + [element("th", {"scope": "col"}, name) for name in classes]
    rows = [element("tr", {}, _joined(head))]
    for i, (name, row) in enumerate(zip(classes, counts / totals, strict=True)):
        cells = [element("th", {"scope": "row"}, name)]
        for j, share in enumerate(row):
            colour = (0, 114, 178) if i == j else (213, 94, 0)
            shade = f"background: rgba({colour[0]}, {colour[1]}, {colour[2]}, {0.75 * np.sqrt(share):.2f})"
            count = int(counts[i, j])
            cells.append(element("td", {"style": shade} if count else {}, f"{count:,}" if count else " "))
        rows.append(element("tr", {}, _joined(cells)))
    table = element("table", {"class": "confusion"}, _joined(rows))
    return element("div", {"class": "scroll"}, table)


def _mistakes(scores: Scores, pictures: Sequence[Sequence[np.ndarray]]) -> Markup:
    if not scores.worst:
        return element("p", {}, "There are none.")
    figures = []
    for mistake, (sample, *beside) in zip(scores.worst, pictures, strict=True):
        name = mistake.name or f"test sample {mistake.index}"
        shown = [_picture(sample, mistake.said)]
        for words, picture in zip(scores.shows, beside, strict=True):
            shown += [_picture(picture, f"{words}: {mistake.said}"), element("figcaption", {}, words)]
        caption = element("figcaption", {}, f"{mistake.said} ({name})")
        figures.append(element("figure", {}, _joined([*shown, caption])))
    return element("div", {"class": "mistakes"}, _joined(figures))


def _picture(sample: np.ndarray, words: str) -> Markup:
    """A sample (*spatial, channels): a signal as a curve, an image as it is, of a volume the middle slice."""
    while sample.ndim > 3:
        sample = sample[len(sample) // 2]
    if sample.ndim == 2:
        return _signal(sample[:, 0], words)
    if sample.dtype != np.uint8:
        low, high = float(sample.min()), float(sample.max())
        sample = np.asarray((sample - low) * (255 / (high - low or 1.0)), np.uint8)
    pixels = sample if sample.shape[-1] == 3 else sample[..., 0]
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG", optimize=True)
    url = f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode('ascii')}"
    return element("img", {"src": url, "alt": words, "width": PIXELS, "height": PIXELS})


def _signal(values: np.ndarray, words: str) -> Markup:
    """The least and the largest value of each of `PIXELS` stretches."""
    stretches = np.array_split(np.asarray(values, np.float64), min(PIXELS, len(values)))
    low, high = float(values.min()), float(values.max())
    scale = PIXELS / (high - low or 1.0)
    points = [
        f"{i:.1f},{PIXELS - (value - low) * scale:.1f}"
        for i, stretch in enumerate(stretches)
        for value in (stretch.min(), stretch.max())
    ]
    line = element("polyline", {"points": " ".join(points), "fill": "none", "stroke": "#0072b2"})
    box = f"0 0 {len(stretches)} {PIXELS}"
    return element("svg", {"viewBox": box, "role": "img", "aria-label": words, "preserveAspectRatio": "none"}, line)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    head = element("tr", {}, _joined([element("th", {"scope": "col"}, text) for text in heads]))
    body = [element("tr", {}, _joined([element("td", {}, cell) for cell in row])) for row in rows]
    return element("div", {"class": "scroll"}, element("table", {}, _joined([head, *body])))


def _flat(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        name = f"{path}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif isinstance(value, (list, tuple)):
            yield name, ", ".join(map(str, value))
        else:
            yield name, megabytes(value) if name.endswith("_bytes") and value else str(value)
