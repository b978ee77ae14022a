"""report.html: one file that tells a run, whatever names are in it."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pytest

from convolve.cli.report import report
from convolve.cli.scores import ClassScores, measured
from convolve.cli.scores.base import MOST_MISTAKES
from convolve.layers import Dense, Flatten, Sequential
from convolve.model import Model

CLASSES = ("<script>alert(1)</script>", "b & c", 'd"e')


class Page(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data.strip())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def scores_of(x: np.ndarray, names: tuple[str, ...] = ()) -> tuple[ClassScores, Model]:
    model = Model(Sequential(Flatten(), Dense(3)), input_shape=x.shape[1:])
    return measured(ClassScores(CLASSES, names), model, x, np.arange(len(x)) % 3), model


def page_of(x: np.ndarray, scores: ClassScores, model: Model) -> Page:
    reached = {"net": "<b>mine</b>", "parameters": 9, "epochs": 2, "seconds": 1.0, "accuracy": scores.accuracy}
    config = {"settings": {"net": "<b>mine</b>", "seed": 0}, "data": {"name": "x & y"}, "made_with": {"cpu": "a<b"}}
    results = {"fully_connected": None, "net": reached, "best_epoch": 2, "test_with_mirror_images": None}
    results["cost"] = {"peak_bytes": 5_000_000}
    epochs = [{"loss": 1.0, "validation_loss": 1.5, "accuracy": 0.5}, {"loss": 0.5, "validation_loss": 1.0}]
    return Page(report(config, results, epochs, scores, [(x[m.index],) for m in scores.worst], str(model.summary())))


@pytest.mark.parametrize(
    "x",
    [
        np.random.default_rng(0).integers(0, 255, (60, 6, 5, 3)).astype(np.uint8),
        np.random.default_rng(0).standard_normal((60, 6, 5, 1), np.float32),
        np.random.default_rng(0).standard_normal((60, 4, 6, 5, 2), np.float32),
    ],
    ids=["colour", "floats", "volumes"],
)
def test_a_report_is_one_file_without_scripts(x: np.ndarray) -> None:
    scores, model = scores_of(x, tuple(f"<i>{i}.png" for i in range(60)))
    page = page_of(x, scores, model)
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "iframe", "b", "i"}
    pictures = page.named("img")
    assert len(pictures) == len(scores.worst) == min(MOST_MISTAKES, scores.images - scores.right) > 0
    assert all((picture["src"] or "").startswith("data:image/png;base64,") and picture["alt"] for picture in pictures)
    text = " ".join(page.text)
    for wanted in (*CLASSES, "<b>mine</b> on x & y", "a<b", f"<i>{scores.worst[0].index}.png", "5.00 MB", "flatten1"):
        assert wanted in text
    assert len(page.named("svg")) == 1


def test_signals_are_drawn() -> None:
    x = np.random.default_rng(0).standard_normal((60, 500, 1), np.float32)
    scores, model = scores_of(x)
    assert len(page_of(x, scores, model).named("polyline")) > len(scores.worst) > 0


def test_mistakes_begin_with_the_worst_and_classes_are_counted() -> None:
    x = np.random.default_rng(0).standard_normal((60, 8, 1), np.float32)
    scores, model = scores_of(x)
    y, made = np.arange(60) % 3, model.predict(x)
    taken = made.argmax(-1)
    assert [m.probability for m in scores.worst] == sorted(m.probability for m in scores.worst)
    assert all(CLASSES[taken[m.index]] == m.predicted != m.true == CLASSES[y[m.index]] for m in scores.worst)
    for number, found in enumerate(scores.by_class()):
        true, of = (y == number).sum(), (taken == number).sum()
        right = ((taken == number) & (y == number)).sum()
        assert (found.images, found.taken, found.right) == (true, of, right)
        assert found.f1 == pytest.approx(2 * right / (true + of))
        assert found.recall == pytest.approx(right / true)
        assert found.precision == pytest.approx(right / of)
