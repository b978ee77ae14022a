"""Nets drawn for documents, and models as notebooks show them: well-formed, escaped, and told in words as well."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from convolve import BatchNorm, Conv, Dense, Dropout, Flatten, MaxPool, Model, ReLU, Residual, Sequential, zoo
from convolve.cli.app import run
from convolve.layers import Layer
from convolve.view.drawing import drawing
from convolve.view.html import table_of
from convolve.view.layout import layout

SVG = "{http://www.w3.org/2000/svg}"


def small() -> Model:
    net = Sequential(
        *(Conv(8, 3), BatchNorm(), ReLU(), MaxPool(2), Residual(Conv(8, 3), ReLU()), Dropout()),
        *(Conv(8, 3, stride=2, groups=2), Flatten(), Dense(10)),
    )
    return Model(net, input_shape=(28, 28, 1))


def boxes(picture: ElementTree.Element) -> list[tuple[float, float, float, float]]:
    found = [group.find(f"{SVG}rect") for group in picture.iter(f"{SVG}g")]
    return [tuple(float(r.get(n, "")) for n in ("x", "y", "width", "height")) for r in found if r is not None]


def test_layers_are_boxes_with_their_shapes() -> None:
    picture = ElementTree.fromstring(drawing(small().network, "a <net> & more"))
    words = [t.text for t in picture.iter(f"{SVG}text")]
    assert words[0] == "a <net> & more"
    for word in (
        "28 x 28 x 8",
        "conv1 + BatchNorm + ReLU",
        "3 x 3, stride 2, 2 groups",
        "3,930",
        "residual1 + Dropout",
    ):
        assert word in words
    assert len(boxes(picture)) == 8, "the input, and each layer but the four that follow one"


def test_it_is_told_in_words() -> None:
    picture = ElementTree.fromstring(drawing(small().network, "net"))
    assert (picture.get("role"), picture.get("aria-labelledby")) == ("img", "title description")
    assert picture.findtext(f"{SVG}title") == "net"
    words = picture.findtext(f"{SVG}desc") or ""
    assert "conv1: Conv 3 x 3, 28 x 28 x 8, 96 parameters, then BatchNorm, ReLU; reads the input" in words
    assert "reads residual1.conv1 and max_pool1" in words


@pytest.mark.parametrize("name", ["digits", "resnet20", "unet", "squeezenet"])
def test_boxes_lie_apart_and_within_the_picture(name: str) -> None:
    entry = zoo.NETS[name]
    shape = entry.input_shape if name == "digits" else (64, 64, 3)
    model = Model(entry.make(), shape)
    picture = ElementTree.fromstring(drawing(model.network, name))
    _, _, width, height = map(float, picture.get("viewBox", "").split())
    found = boxes(picture)
    for i, (x, y, w, h) in enumerate(found):
        assert 0 <= x < x + w <= width
        assert 0 <= y < y + h <= height
        assert not any(abs(x - a) < w and abs(y - b) < h for a, b, *_ in found[:i])
    frames = [r for r in picture.iter(f"{SVG}rect") if r.get("stroke-dasharray")]
    assert len(frames) == len(layout(model.network).folds)
    if name == "resnet20":
        assert [t.text for t in picture.iter(f"{SVG}text")].count("2 x") == 2


def test_a_drawing_is_the_same_each_time() -> None:
    assert drawing(small().network, "net") == drawing(small().network, "net")


class _Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_model_shows_itself_in_a_notebook() -> None:
    text = small()._repr_html_()
    assert text is not None
    found = _Tags(text)
    assert not found.open
    assert set(found.tags) == {"details", "summary", "strong", "table", "tr", "th", "td", "span"}
    assert found.tags.count("tr") == 1 + len(small().summary().rows)
    assert text.startswith("<details open>")
    assert (Model(zoo.resnet20(), (32, 32, 3))._repr_html_() or "").startswith("<details>"), "a long one is closed"


def test_what_notebooks_show_is_escaped() -> None:
    class Own(Layer):
        name = None

        def title(self) -> str:
            return "<script>alert('&')</script>"

        def build(self, scope: object, *inputs: object) -> object:  # type: ignore[override]
            return inputs[0] * 2.0  # type: ignore[operator]

    text = table_of(Model(Own(), input_shape=(3,)).summary(), "<b>")
    assert "<script" not in text
    assert "<b>" not in text
    assert "&lt;script&gt;alert(&#x27;&amp;&#x27;)" in text


def test_the_command_draws_a_net(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small().save(tmp_path / "small.safetensors")
    for net, title in ((str(tmp_path / "small.safetensors"), "small"), ("lenet5", "lenet5")):
        out = tmp_path / "net.svg"
        assert run(["summary", net, "--svg", str(out)]) == 0
        assert re.fullmatch(r".*net\.svg: \d+ kB", capsys.readouterr().out.strip())
        assert ElementTree.parse(out).getroot().findtext(f"{SVG}title") == title
    assert run(["summary", "lenet5", "--svg", str(tmp_path / "net.png")]) == 1
    assert "ends in .svg" in capsys.readouterr().err
